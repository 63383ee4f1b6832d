"""No child outlives the demo: after Ctrl-C, after SIGTERM, after kill -9 of the parent, after an error."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from p2pfed.demo.interrupt import Interrupt, Interrupted
from p2pfed.demo.processes import Family, child_environment
from p2pfed.errors import ExitCode, LocalError

ROOT = Path(__file__).parents[2]
STARTED_S = 60.0
"""Two interpreters on a busy machine."""
STOP_S = 5.0
WATCHED = ("willing", "deaf")


def until(done: Callable[[], bool], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", list[int]]]:
    """The running parent and the process ids of its children."""
    environment = {**child_environment(os.environ), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "tests.demo.parent", str(tmp_path)], env=environment, cwd=ROOT)
    files = [tmp_path / f"{name}.pid" for name in WATCHED]
    try:
        assert until(lambda: all(file.is_file() and file.read_text() for file in files), STARTED_S)
        yield process, [int(file.read_text()) for file in files]
    finally:
        process.kill()
        process.wait()
        for file in files:
            if file.is_file() and lives(int(file.read_text())):
                os.kill(int(file.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_in_time(
    parent: tuple["subprocess.Popen[bytes]", list[int]], number: signal.Signals
) -> None:
    process, children = parent
    before = time.monotonic()
    process.send_signal(number)
    assert process.wait(2 * STOP_S) == ExitCode.INTERRUPTED
    assert time.monotonic() - before < STOP_S
    assert not any(lives(pid) for pid in children)


def test_a_killed_parent_leaves_no_child(parent: tuple["subprocess.Popen[bytes]", list[int]]) -> None:
    process, children = parent
    process.kill()
    process.wait()
    assert until(lambda: not any(lives(pid) for pid in children), STOP_S), children


def test_a_child_that_dies_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with Family(tmp_path, child_environment(os.environ)) as family:
        child = family.start("doomed", "tests.demo.no_such_module", [])
        child.process.wait(STARTED_S)
        with pytest.raises(LocalError, match=r"doomed ended with status 1: .*no_such_module") as caught:
            family.check()
        assert caught.value.exit_code is ExitCode.DEMO


def test_leaving_the_block_by_an_error_ends_the_children(tmp_path: Path) -> None:
    environment = {**child_environment(os.environ), "PYTHONPATH": str(ROOT)}
    file = tmp_path / "pid"
    with pytest.raises(RuntimeError), Family(tmp_path, environment) as family:
        family.start("willing", "tests.demo.stubborn", [str(file)])
        assert until(lambda: file.is_file() and bool(file.read_text()), STARTED_S)
        raise RuntimeError
    assert not lives(int(file.read_text()))


def test_a_signal_is_seen_by_the_next_wait_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    interrupt = Interrupt()
    with interrupt.caught():
        interrupt.check()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted, match="SIGINT"):
            interrupt.pause(STOP_S)
    assert signal.getsignal(signal.SIGINT) is before
