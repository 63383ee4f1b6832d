"""What must hold at every event, and what must hold at the end, whatever the faults.

A check that fails is a sentence in `problems`; nothing is raised, so that a report shows all of them.
The checker knows everything: it balances every change of every adapter, which no node could.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from p2pfed.core.events import Adopt, CloseLink, Effect, Event, LinkDown, LinkUp, Mix, Send, SendPart
from p2pfed.core.exchange import ENDED_KEPT
from p2pfed.core.library import PINS_MAX
from p2pfed.core.membership import UPKEEP_INTERVAL_MAX_S, UPKEEP_INTERVAL_MIN_S
from p2pfed.core.messages import Role
from p2pfed.core.patience import SERVE_STALL_S
from p2pfed.core.view import VIEW_MAX
from p2pfed.sim.process import Run
from p2pfed.sim.report import Swaps

PROBLEMS_MAX = 20
"""Sentences kept: the first ones name the cause."""
TIMERS_MAX = 8 + int(UPKEEP_INTERVAL_MAX_S / UPKEEP_INTERVAL_MIN_S)
"""Pending timers of a node: swap pace, retry and stall, a few probes, and every upkeep that was brought forward."""
KEPT_MAX = PINS_MAX + 4
"""Own versions held by a node: the current one, the one in a swap, pinned ones, one just published."""
INBOXES_MAX = 2
TIME_SLACK_S = 1e-6
ROUNDING = 1e-12
"""Relative error allowed in a sum that mixing should keep: both sides add the same difference, in float64."""


@dataclass(frozen=True, slots=True)
class HalfSwap:
    """The change that one partner's mix made, until the other's is seen."""

    run: Run
    change: tuple[float, ...]


class Checker:
    """A `Watcher`. Runs that ended still count: their half-done swaps happened.

    `thorough` False: it is shown a sample of events, so it follows no sequence of them and looks at states alone.
    """

    def __init__(self, thorough: bool = True) -> None:
        self.problems: list[str] = []
        self.swaps = Swaps()
        """Mixed by both partners."""
        self.thorough = thorough
        self.halves: dict[int, HalfSwap] = {}
        self.ended: list[Run] = []
        self.jumps: list[float] | None = None
        self.timers_max = 0
        self.scale = 1.0
        self._links: dict[tuple[Run, int], str] = {}
        self._mixing: dict[Run, int] = {}

    def problem(self, sentence: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(sentence)

    def handled(self, run: Run, event: Event, effects: list[Effect], now: float) -> None:
        if self.thorough:
            self._follow(run, event, effects, now)
        self.timers_max = max(self.timers_max, run.timers_pending)
        self._check_state(run, now)

    def _follow(self, run: Run, event: Event, effects: list[Effect], now: float) -> None:
        if isinstance(event, LinkUp):
            self._links[run, event.link] = event.peer
        elif isinstance(event, LinkDown):
            self._links.pop((run, event.link), None)
        for effect in effects:
            match effect:
                case Send(link=link) | SendPart(link=link) if (run, link) not in self._links:
                    self.problem(f"{now:.3f} s: {run.name} sends over link {link}, which is not up")
                case CloseLink(link=link):
                    self._links.pop((run, link), None)
                case Mix(swap=swap) | Adopt(swap=swap):
                    if run in self._mixing:
                        self.problem(f"{now:.3f} s: {run.name} mixes swap {swap} while {self._mixing[run]} is mixed")
                    self._mixing[run] = swap

    def mixed(self, run: Run, swap: int, before: Sequence[float], now: float) -> None:
        assert run.mixer is not None
        if self.thorough and self._mixing.pop(run, None) != swap:
            self.problem(f"{run.name} mixed swap {swap} unasked")
        change = tuple(new - old for new, old in zip(run.mixer.values, before, strict=True))
        other = self.halves.pop(swap, None)
        if other is None:
            self.halves[swap] = HalfSwap(run, change)
            return
        self.swaps.add(now, other.run.number, run.number)
        if other.run is run:
            self.problem(f"{run.name} mixed swap {swap} twice")
        if not (_plain(run) and _plain(other.run)):
            return
        self.scale = max(self.scale, *map(abs, before))
        error = max(abs(mine + theirs) for mine, theirs in zip(change, other.change, strict=True))
        if error > ROUNDING * self.scale:
            self.problem(f"swap {swap} of {other.run.name} and {run.name} changed their sum by {error:.3g}")

    def adopted(self, run: Run, before: Sequence[float]) -> None:
        """One side of a swap took the other's adapter: a known change of the sum, like a restart."""
        self._mixing.pop(run, None)
        self.restarted(run, before)

    def restarted(self, run: Run, before: Sequence[float]) -> None:
        assert run.mixer is not None
        change = [new - old for new, old in zip(run.mixer.values, before, strict=True)]
        self.jumps = change if self.jumps is None else [a + b for a, b in zip(self.jumps, change, strict=True)]

    def ended_run(self, run: Run) -> None:
        self._mixing.pop(run, None)
        self.ended.append(run)

    def drift(self) -> list[float]:
        """By how much half-done swaps and restarts changed the sum of all adapters."""
        rows = [half.change for half in self.halves.values()]
        if self.jumps is not None:
            rows.append(tuple(self.jumps))
        return [math.fsum(column) for column in zip(*rows, strict=True)]

    def _check_state(self, run: Run, now: float) -> None:
        state = run.state
        linked = {entry.link: entry.peer for entry in state.membership.view.linked()}
        if linked != state.membership.links:
            self.problem(f"{now:.3f} s: {run.name} counts links {state.membership.links}, its view has {linked}")
        if len(linked) > run.options.links_max:
            self.problem(f"{now:.3f} s: {run.name} holds {len(linked)} links, more than {run.options.links_max}")
        bounds = (
            ("known peers", len(state.membership.view), VIEW_MAX),
            ("ended swaps", state.exchange.ended_kept, ENDED_KEPT),
            ("pins", state.library.pins, PINS_MAX),
            ("pending timers", run.timers_pending, TIMERS_MAX),
            ("own versions", len(run.published), KEPT_MAX),
            ("received versions", len(run.inbox), INBOXES_MAX),
        )
        for noun, value, limit in bounds:
            if value > limit:
                self.problem(f"{now:.3f} s: {run.name} has {value} {noun}, more than {limit}")
        swap = state.exchange.swap
        if swap is not None and now - swap.patience.since > SERVE_STALL_S + TIME_SLACK_S:
            self.problem(f"{now:.3f} s: {run.name} holds swap {swap.number} {now - swap.patience.since:.1f} s idle")


def _plain(run: Run) -> bool:
    """A mix of such a run moves its values by the difference exactly: no clipping, no float32."""
    return not run.options.trains and not run.options.attack and run.options.learner == "toy"


def mutual_problems(runs: list[Run]) -> list[str]:
    """Once quiet, both ends of a link count it, and every node has a neighbour."""
    problems = []
    nodes = [run for run in runs if run.running]
    for run in nodes:
        for link, peer in run.state.membership.links.items():
            end = run.ends.get(link)
            if end is None:
                problems.append(f"{run.name} counts link {link} to {peer}, which is not up")
            elif end.other.run.state.membership.links.get(end.other.link) != run.peer or end.dead:
                problems.append(f"{run.name} counts a link to {end.other.run.name}, which does not")
        if run.options.role is Role.NODE and len(nodes) > 1 and not run.state.membership.neighbours():
            problems.append(f"{run.name} has no neighbours")
    return problems


def components(runs: list[Run]) -> int:
    """Into how many parts the neighbour relation of running nodes falls."""
    nodes = {run.peer: run for run in runs if run.running and run.options.role is Role.NODE}
    seen: dict[str, None] = {}
    count = 0
    for peer in nodes:
        if peer in seen:
            continue
        count += 1
        waiting = [peer]
        while waiting:
            each = waiting.pop()
            if each not in seen:
                seen[each] = None
                waiting += [entry.peer for entry in nodes[each].state.membership.neighbours() if entry.peer in nodes]
    return count


def contraction_ratio(samples: list[tuple[int, float]], nodes: int, floor: float) -> float | None:
    """How fast the squared spread fell, as a share of what random pair averaging does.

    Averaging a random pair of N values multiplies the expected sum of squared deviations by
    1 - 1/(N-1). `samples`: (swaps so far, squared spread). Spreads under `floor` are rounding.
    None where too little happened to tell.
    """
    useful = [(swaps, spread) for swaps, spread in samples if spread > floor]
    if nodes < 3 or len(useful) < 2 or useful[-1][0] - useful[0][0] < 2 * nodes:
        return None
    (swaps_before, before), (swaps_after, after) = useful[0], useful[-1]
    expected = (swaps_after - swaps_before) * math.log1p(-1.0 / (nodes - 1))
    return math.log(after / before) / expected
