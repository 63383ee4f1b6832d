"""What a person sees while the demo runs: one table and one line on the phase, redrawn in place.

Where the output is no terminal (a log, a pipe) the same is told in an occasional plain line.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_INTERVAL_S = 10.0
"""Between two plain lines of one phase: a log of a whole run stays under a hundred lines."""
REFRESH_PER_S = 4
BAR_CHARS = 30


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One row of the table; None where it is not known yet."""

    name: str
    trade: str
    state: str
    neighbours: int | None = None
    steps: int | None = None
    steps_max: int = 0
    swaps: int | None = None
    loss: float | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` from 0 to 1 over the whole demo; `left_s` None while it can not be known."""

    phase: str
    done: float
    elapsed_s: float
    left_s: float | None = None
    detail: str = ""
    """What runs within the phase; changes too often for a line of its own."""


class Display(Protocol):
    def show(self, progress: Progress, nodes: Sequence[NodeLine]) -> None: ...


@contextmanager
def open_display(console: Console, now: Callable[[], float] = time.monotonic) -> Iterator[Display]:
    """A table on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield PlainLines(console, now)
        return
    with Live(console=console, refresh_per_second=REFRESH_PER_S, transient=True) as live:
        yield LiveTable(live, console)


class LiveTable:
    def __init__(self, live: Live, console: Console) -> None:
        self._live = live
        self._console = console

    def show(self, progress: Progress, nodes: Sequence[NodeLine]) -> None:
        self._live.update(Group(node_table(nodes, self._console.width), _phase_line(progress)))


class PlainLines:
    """A line when the phase changes, and one every PLAIN_INTERVAL_S."""

    def __init__(self, console: Console, now: Callable[[], float]) -> None:
        self._console = console
        self._now = now
        self._phase = ""
        self._told_at = float("-inf")

    def show(self, progress: Progress, nodes: Sequence[NodeLine]) -> None:
        if progress.phase == self._phase and self._now() - self._told_at < PLAIN_INTERVAL_S:
            return
        self._phase, self._told_at = progress.phase, self._now()
        facts = ", ".join(
            f"{node.name} {node.steps}/{node.steps_max} loss {_number(node.loss)} swaps {node.swaps}"
            for node in nodes
            if node.steps is not None
        )
        self._console.print(
            f"[{_clock(progress.elapsed_s)}] {_phase(progress)}{_left(progress)}{'; ' + facts if facts else ''}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


WIDE_CHARS = 100
"""From this width on all columns fit; below, trade and state are left out."""


def node_table(nodes: Sequence[NodeLine], width: int) -> Table:
    wide = width >= WIDE_CHARS
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for head in ("node", *(("trade", "state") if wide else ())):
        table.add_column(head, no_wrap=True)
    for head in ("neighbours" if wide else "nb", "steps", "swaps", "loss", "up", "down", "distance"):
        table.add_column(head, justify="right", no_wrap=True)
    for node in nodes:
        steps = f"{node.steps}/{node.steps_max}" if node.steps is not None and node.steps_max else "-"
        table.add_row(
            Text(node.name, style="cyan"),
            *((node.trade, node.state) if wide else ()),
            _count(node.neighbours),
            steps,
            _count(node.swaps),
            _number(node.loss),
            _size(node.bytes_up),
            _size(node.bytes_down),
            _number(node.distance),
        )
    return table


def _phase_line(progress: Progress) -> Group:
    bar = ProgressBar(total=1.0, completed=min(progress.done, 1.0), width=BAR_CHARS)
    line = Table.grid(padding=(0, 1))
    line.add_row(bar, Text(f"{_phase(progress)}{_left(progress)}, {_clock(progress.elapsed_s)} so far", style="bold"))
    return Group(Text(""), line, Text("Ctrl-C ends everything cleanly.", style="dim"))


def _phase(progress: Progress) -> str:
    return f"{progress.phase}: {progress.detail}" if progress.detail else progress.phase


def _left(progress: Progress) -> str:
    return "" if progress.left_s is None else f", about {_clock(progress.left_s)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _size(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.1f} MB"
