"""Runs a module as a child that can not outlive its parent: `python -m p2pfed.demo.child MODULE [ARGUMENT]...`.

Standard input is a pipe whose other end only the parent holds. When the parent is gone, however it went
(`kill -9` included), the pipe ends and so does this process, at once and whatever it is doing.
"""

import os
import runpy
import sys
import threading

from p2pfed.errors import ExitCode


def main(arguments: list[str]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True, name="parent watch").start()
    module, *rest = arguments
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    while os.read(0, 64):
        pass
    os._exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main(sys.argv[1:])
