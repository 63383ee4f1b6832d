"""Starting bench processes and reading the one JSON line each prints."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

CHILD_S = 300
"""No bench child runs longer."""


def start(module: str, *arguments: str, inside: Sequence[str] = ()) -> subprocess.Popen[str]:
    """`inside`: a command that runs it in another place, `Links.inside` of a peer."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return subprocess.Popen(
        [*inside, sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def line(child: subprocess.Popen[str]) -> Any:
    """The next JSON line the child prints."""
    assert child.stdout is not None
    text = child.stdout.readline()
    if not text:
        raise RuntimeError(f"{child.args} ended with {child.wait()} and printed nothing more")
    return json.loads(text)


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


def end(*children: subprocess.Popen[str]) -> None:
    for child in children:
        child.kill()
        child.wait()
