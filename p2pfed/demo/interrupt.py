"""Ctrl-C and SIGTERM as a flag that every wait of the demo looks at.

A flag and not an exception out of a handler: wherever the signal falls, what is under way (starting a process,
writing a file) is completed and noted before the demo ends, so nothing is ever left behind unknown.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from p2pfed.errors import ExitCode, LocalError

PAUSE_S = 0.1
"""A wait looks at the flag so often: well within the 5 s an interrupted demo may take."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(LocalError):
    """Somebody asked the demo to stop."""

    exit_code = ExitCode.INTERRUPTED


class Interrupt:
    """`caught` while the block runs; handlers are as before afterwards."""

    def __init__(self) -> None:
        self.by: str | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Main thread only."""
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raises Interrupted once a signal came."""
        if self.by is not None:
            raise Interrupted(f"stopped by {self.by}")

    def pause(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Sleeps, or less where `until` comes true. Raises Interrupted."""
        end = time.monotonic() + seconds
        while not until():
            self.check()
            left = end - time.monotonic()
            if left <= 0:
                return
            threading.Event().wait(min(PAUSE_S, left))

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.by = signal.Signals(number).name
