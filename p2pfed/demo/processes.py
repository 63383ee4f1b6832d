"""The demo's children: started together, watched, and ended together, whatever happens.

Each is a process group of its own, so a Ctrl-C in the terminal reaches the parent alone, which then ends them in
order. A child that dies by itself is an error with the last lines it wrote. `child` sees to it that none survives
a parent that was killed.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from p2pfed.errors import ExitCode, LocalError

STOP_S = 2.5
"""Children get so long to say goodbye and save; then they are killed. All in all an interrupted demo takes under 5 s,
measured with seven processes on two busy cores."""
KILL_S = 1.0
"""A killed process is gone in milliseconds, unless it sits in the kernel."""
LOG_LINES_SHOWN = 5
LOG_LINE_CHARS_MAX = 300


@dataclass(slots=True)
class Child:
    """One process; `log` holds all it wrote. `stopping`: its end is wanted, so its status says nothing."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    stopping: bool = False

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def last_lines(self) -> str:
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            return " | ".join(line[:LOG_LINE_CHARS_MAX] for line in lines[-LOG_LINES_SHOWN:])
        return ""


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """One torch thread each and passive waiting: spinning threads of several processes destroy each other."""
    quiet = {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    # The package this parent runs from, installed or not, is the one its children run.
    package_parent = str(Path(__file__).resolve().parents[2])
    path = environ.get("PYTHONPATH")
    return {**environ, **quiet, "PYTHONPATH": f"{package_parent}{os.pathsep}{path}" if path else package_parent}


@dataclass(slots=True)
class Family:
    """All children of one demo. Leaving the block ends every one of them."""

    logs: Path
    environment: Mapping[str, str] = field(default_factory=lambda: child_environment(os.environ))
    children: list[Child] = field(default_factory=list)
    memory_max_bytes: int = 0
    """Most that parent and children held at once; what they share is counted once where the system tells (Linux)."""

    def start(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        """`python -m MODULE ARGUMENTS` as a child. Raises LocalError where it can not be started."""
        log = self.logs / f"{name}.log"
        command = [sys.executable, "-m", "p2pfed.demo.child", module, *arguments]
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(self.environment),
                    start_new_session=True,
                )
        except OSError as error:
            raise LocalError(f"{name} can not be started: {error.strerror or error}", ExitCode.DEMO) from error
        child = Child(name, process, log)
        self.children.append(child)
        return child

    def check(self) -> None:
        """Raises LocalError for a child that ended by itself with an error."""
        for child in self.children:
            code = child.process.poll()
            if code not in (None, 0) and not child.stopping:
                raise LocalError(f"{child.name} ended with status {code}: {child.last_lines()}", ExitCode.DEMO)

    def measure_memory(self) -> None:
        pids = [os.getpid(), *(child.process.pid for child in self.children if child.running)]
        held = 0
        for pid in pids:
            with suppress(psutil.Error):
                memory = psutil.Process(pid).memory_full_info()
                held += getattr(memory, "pss", memory.rss)
        self.memory_max_bytes = max(self.memory_max_bytes, held)

    def stop(self, chosen: Sequence[Child] | None = None, within_s: float = STOP_S) -> tuple[str, ...]:
        """Ask, wait, kill. Returns the names of those that had to be killed."""
        asked = [child for child in (self.children if chosen is None else chosen) if child.running]
        for child in asked:
            child.stopping = True
            _signal(child, signal.SIGTERM)
        _await_ends(asked, within_s)
        killed = [child for child in asked if child.running]
        for child in killed:
            _signal(child, signal.SIGKILL)
        _await_ends(killed, KILL_S)
        return tuple(child.name for child in killed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _signal(child: Child, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, number)


def _await_ends(children: Sequence[Child], within_s: float) -> None:
    end = time.monotonic() + within_s
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, end - time.monotonic()))


def children_cpu_s() -> float:
    """CPU time of all children that have ended, this process's whole life long."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
