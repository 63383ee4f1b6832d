"""A sample of a history that a person can watch: who swapped with whom, and when.

Small networks are shown whole. Of large ones: the node that swapped most and those nearest to it, by who swapped
with whom most; of very many swaps every n-th.
"""

from collections import Counter
from dataclasses import dataclass

from p2pfed.sim.report import Swaps

NODES_SHOWN_MAX = 48
"""More dots on a circle cannot be told apart on a phone."""
SWAPS_SHOWN_MAX = 4000
"""A tenth of a megabyte in the page."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Nodes by their numbers, in the order of the circle; swaps as (time, place, place)."""

    nodes: tuple[int, ...]
    swaps: tuple[tuple[float, int, int], ...]
    swaps_left_out: int


def replay_of(swaps: Swaps) -> Replay:
    pairs = Counter(zip(swaps.ones, swaps.others, strict=True))
    nodes = _nearest(pairs)
    places = {node: place for place, node in enumerate(nodes)}
    shown = [
        (round(when, 1), places[one], places[other])
        for when, one, other in zip(swaps.times, swaps.ones, swaps.others, strict=True)
        if one in places and other in places
    ]
    every = -(-len(shown) // SWAPS_SHOWN_MAX) or 1
    return Replay(nodes, tuple(shown[::every]), len(swaps) - len(shown[::every]))


def _nearest(pairs: Counter[tuple[int, int]]) -> tuple[int, ...]:
    near: dict[int, Counter[int]] = {}
    for (one, other), count in pairs.items():
        near.setdefault(one, Counter())[other] += count
        near.setdefault(other, Counter())[one] += count
    if len(near) <= NODES_SHOWN_MAX:
        return tuple(sorted(near))
    first = max(sorted(near), key=lambda node: near[node].total())
    chosen: dict[int, None] = {first: None}
    edge = [first]
    while edge and len(chosen) < NODES_SHOWN_MAX:
        node = edge.pop(0)
        for other, _ in sorted(near[node].items(), key=lambda each: (-each[1], each[0])):
            if other not in chosen and len(chosen) < NODES_SHOWN_MAX:
                chosen[other] = None
                edge.append(other)
    return tuple(chosen)
