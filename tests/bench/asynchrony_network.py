"""A network in virtual time for comparing asynchronous mixing rules: one heap of events, flat adapters, any learner.

The production core holds one rule; here are its rivals too. What is as in the product unless a `Rule` says otherwise:
a node makes H steps for each swap it takes part in (credit between -1 and 1), asks in random order whoever is free,
sends the version it published after its last round or mix, and mixes between two steps. A swap takes the same
`delay_s` whoever takes part. Differences to the start travel in the product's int4, or as they are.
"""

import heapq
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from p2pfed.core.pacing import CREDIT_MAX, CREDIT_MIN
from p2pfed.core.sampling import Sampler
from p2pfed.ports import Encoding, PeerId
from p2pfed.wire.quantize import Quantiser

Flat = npt.NDArray[np.float64]

CLIP = 2.0
"""`gossip.clip`."""
CLIPPED = 0.999
"""A share kept below this counts as clipped."""


class FlatLearner(Protocol):
    """Differences to the network's start, all in one vector."""

    def step(self) -> None: ...

    def value(self) -> Flat: ...

    def move(self, by: Flat) -> None: ...


@dataclass(frozen=True, slots=True)
class Rule:
    """How nodes mix. The defaults are the product's, without clipping."""

    name: str
    current: bool = False
    """Towards what arrived from the adapter as it is now; else by the difference of both as they were sent."""
    flights: int = 1
    """Swaps a node may have under way."""
    weight: float = 0.5
    damped: bool = False
    """weight / (1 + age): rounds made since the own version was sent; the longer of both for sent differences."""
    waits: bool = False
    """No steps while a swap is under way."""
    fresh: bool = False
    """Sends its adapter as it is when the swap begins, not what it published last."""
    spends_first: bool = False
    """A swap costs its credit when it begins, not when it is mixed."""
    clip: str = ""
    """"round": at CLIP own rounds of H steps; "swap": at CLIP times the own steps since the version sent before, or
    the last round where those are fewer."""
    changes: bool = False
    """Neither asks nor accepts whom it swapped with last (with `bag`, the product's sampler sees to it)."""
    bag: bool = False
    """Asks in the order of the product's sampler, with its rests; else whoever is free, at random."""
    shared: bool = False
    """Swaps under way share one link: each takes `flights` times as long."""
    by_step_time: bool = False
    """Weighs nodes by their seconds a step, so that each moves the consensus alike."""
    int4: bool = True


@dataclass(slots=True)
class _Version:
    """`sent` is what a partner reads of `raw`; worked out when the version is first sent."""

    raw: Flat
    sent: Flat | None = None

    @property
    def error(self) -> float:
        return float(np.linalg.norm(self.sent - self.raw)) if self.sent is not None else 0.0


@dataclass(slots=True)
class _Swap:
    nodes: tuple[int, int]
    versions: tuple[_Version, _Version]
    steps: tuple[int, int]
    ages: tuple[float, float] = (0.0, 0.0)


@dataclass(slots=True)
class Node:
    learner: FlatLearner
    step_s: float
    steps: int = 0
    credit: int = CREDIT_MAX
    stepping: bool = False
    flying: list[int] = field(default_factory=list)
    """Partners of the swaps under way."""
    inbox: list[_Swap] = field(default_factory=list)
    """Arrived during a step."""
    version: _Version | None = None
    mark: Flat | None = None
    """Where the own steps that the clipping radius is made of began; mixes move it."""
    mark_steps: int = 0
    stride: float = 0.0
    pulled: Flat | float = 0.0
    """Sum of all that mixes moved."""
    mixes: int = 0
    begun: int = 0
    last: int = -1
    """The partner of the last swap begun."""
    repeats: int = 0
    """Swaps with the same partner as the one before."""
    clipped: int = 0
    declines: int = 0


class Network:
    def __init__(
        self,
        learners: Sequence[FlatLearner],
        step_s: Sequence[float],
        rule: Rule,
        delay_s: float,
        rng: random.Random,
        round_steps: int = 4,
    ) -> None:
        self.nodes = [Node(learner, each) for learner, each in zip(learners, step_s, strict=True)]
        self.rule, self.rng, self.round_steps = rule, rng, round_steps
        self.delay_s = delay_s * (rule.flights if rule.shared else 1)
        self.now = 0.0
        self.steps = 0
        self._samplers = [Sampler(rng) for _ in self.nodes]
        self._quantiser = Quantiser(Encoding.INT4)
        self._heap: list[tuple[float, int, int | _Swap]] = []
        self._events = 0

    def run(self, marks: Iterable[int], look: Callable[["Network"], None], at_s: float = math.inf) -> None:
        """Calls `look` at so many steps of all nodes together, until the last of `marks`, and once at time `at_s`."""
        for index, node in enumerate(self.nodes):
            node.version = _Version(node.learner.value())
            node.mark = node.version.raw
            self._go_on(index)
        for mark in marks:
            while self.steps < mark:
                self.now, _, event = heapq.heappop(self._heap)
                if isinstance(event, int):
                    self._on_step(event)
                else:
                    self._on_arrival(event)
                if self.now >= at_s:
                    look(self)
                    at_s = math.inf
            look(self)

    def _at(self, time: float, event: "int | _Swap") -> None:
        self._events += 1
        heapq.heappush(self._heap, (time, self._events, event))

    def _go_on(self, index: int) -> None:
        node = self.nodes[index]
        if node.stepping or (self.rule.waits and node.flying):
            return
        node.stepping = True
        self._at(self.now + node.step_s, index)

    def _on_step(self, index: int) -> None:
        node = self.nodes[index]
        node.learner.step()
        node.stepping = False
        node.steps += 1
        self.steps += 1
        for swap in node.inbox:
            self._mix(index, swap)
        node.inbox.clear()
        if node.steps % self.round_steps == 0:
            node.version = _Version(node.learner.value())
            node.credit = min(node.credit + 1, CREDIT_MAX)
            if self.rule.clip == "round":
                self._stride(node, node.version.raw)
        self._try_swap(index)
        self._go_on(index)

    def _try_swap(self, index: int) -> None:
        node = self.nodes[index]
        if node.credit < CREDIT_MAX or len(node.flying) >= self.rule.flights:
            return
        others = [other for other in range(len(self.nodes)) if other != index and other not in node.flying]
        if self.rule.changes:
            others = [other for other in others if index != self.nodes[other].last and other != node.last]
        self.rng.shuffle(others)
        if self.rule.bag:
            return self._draw(index, others)
        for other in others:
            if len(self.nodes[other].flying) < self.rule.flights:
                return self._begin(index, other)
            node.declines += 1

    def _draw(self, index: int, others: list[int]) -> None:
        """As `core.peer` does, but that whoever finds nobody looks again after its next step or mix."""
        sampler, names = self._samplers[index], [PeerId(str(other)) for other in others]
        while (name := sampler.draw(names, self.now)) is not None:
            other = self.nodes[int(name)]
            if len(other.flying) < self.rule.flights:
                return self._begin(index, int(name))
            self.nodes[index].declines += 1
            # A busy node tells how long its swaps usually take: the delay, and half a step until the mix.
            sampler.refused(name, self.delay_s + other.step_s / 2, self.now)

    def _begin(self, *pair: int) -> None:
        self.nodes[pair[0]].begun += 1
        one, other = (self.nodes[index] for index in pair)
        versions = []
        for node, partner in ((one, pair[1]), (other, pair[0])):
            if self.rule.fresh:
                node.version = _Version(node.learner.value())
            assert node.version is not None
            self._encode(node.version)
            if self.rule.clip == "swap":
                self._stride(node, node.version.raw)
            versions.append(node.version)
            node.flying.append(partner)
            node.repeats += node.last == partner
            node.last = partner
            if self.rule.spends_first:
                node.credit = max(node.credit - 1, CREDIT_MIN)
        swap = _Swap((pair[0], pair[1]), (versions[0], versions[1]), (one.steps, other.steps))
        if self.delay_s > 0.0:
            self._at(self.now + self.delay_s, swap)
        else:
            self._on_arrival(swap)

    def _on_arrival(self, swap: _Swap) -> None:
        made = [self.nodes[index].steps - then for index, then in zip(swap.nodes, swap.steps, strict=True)]
        swap.ages = (made[0] / self.round_steps, made[1] / self.round_steps)
        for index in swap.nodes:
            node = self.nodes[index]
            if not self.rule.spends_first:
                node.credit = max(node.credit - 1, CREDIT_MIN)
            if node.stepping:
                node.inbox.append(swap)
                continue
            self._mix(index, swap)
            self._try_swap(index)
            if self.rule.waits:
                self._go_on(index)

    def _mix(self, index: int, swap: _Swap) -> None:
        node, side = self.nodes[index], swap.nodes.index(index)
        own, theirs = swap.versions[side], swap.versions[1 - side]
        weight = self._weight(swap, side)
        assert own.sent is not None and theirs.sent is not None  # both were encoded when the swap began
        by = theirs.sent - (node.learner.value() if self.rule.current else own.sent)
        if self.rule.clip and node.stride > 0.0:
            radius = CLIP * math.hypot(node.stride, own.error)
            kept = min(1.0, radius / max(float(np.linalg.norm(by)), 1e-300))
            node.clipped += kept < CLIPPED
            weight *= kept
        by *= weight
        node.learner.move(by)
        if node.mark is not None:
            node.mark = node.mark + by
        node.pulled = node.pulled + by
        node.mixes += 1
        self._samplers[index].swapped(PeerId(str(swap.nodes[1 - side])))
        node.flying.remove(swap.nodes[1 - side])
        node.version = _Version(node.learner.value())

    def _weight(self, swap: _Swap, side: int) -> float:
        weight = self.rule.weight
        if self.rule.by_step_time:
            own, theirs = (self.nodes[swap.nodes[each]].step_s for each in (side, 1 - side))
            weight *= 2.0 * theirs / (own + theirs)
        if self.rule.damped:
            weight /= 1.0 + (swap.ages[side] if self.rule.current else max(swap.ages))
        return weight

    def _stride(self, node: Node, value: Flat) -> None:
        """A round is over, or a version is sent: how far did the own steps go?"""
        if node.mark is not None and node.steps - node.mark_steps >= self.round_steps:
            node.stride = float(np.linalg.norm(value - node.mark))
            node.mark, node.mark_steps = value, node.steps

    def _encode(self, version: _Version) -> None:
        if not self.rule.int4:
            version.sent = version.raw
        elif version.sent is None:
            # As one tensor, without the header of a payload: encoding is most of the time with quadratics.
            wire = self._quantiser.encode("x", version.raw.astype(np.float32))
            version.sent = self._quantiser.decode("x", wire, version.raw.size).astype(np.float64)
