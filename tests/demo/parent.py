"""A parent for tests: a Family of two children, one of them deaf to SIGTERM, until a signal comes."""

import sys
from pathlib import Path

from p2pfed.demo.interrupt import Interrupt, Interrupted
from p2pfed.demo.processes import Family

folder = Path(sys.argv[1])
interrupt = Interrupt()
with interrupt.caught(), Family(folder) as family:
    family.start("willing", "tests.demo.stubborn", [str(folder / "willing.pid")])
    family.start("deaf", "tests.demo.stubborn", [str(folder / "deaf.pid"), "deaf"])
    try:
        interrupt.pause(60.0)
    except Interrupted as error:
        sys.exit(error.exit_code)
