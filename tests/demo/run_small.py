"""The demo in small as a program of its own, for tests that interrupt it: `run_small DATA OUT`."""

import sys
from pathlib import Path

from p2pfed.demo.run import run_demo
from p2pfed.errors import P2pfedError
from tests.demo.small import small_settings

try:
    run_demo(out=Path(sys.argv[2]), settings=small_settings(Path(sys.argv[1]), steps=200))
except P2pfedError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
