"""Whose turn it is: when a swap is due, with which neighbour, and whether the day's bytes allow it.

One swap for every round of local steps, whoever initiates it; the busy rest, the metered wait, and nobody is starved.
"""

import random
from collections.abc import Sequence

from p2pfed.core.budget import Budget
from p2pfed.core.pacing import Pacing
from p2pfed.core.sampling import Sampler
from p2pfed.core.schedule import partner
from p2pfed.ports import PeerId

RETRY_MIN_S = 0.05
"""Shortest wait before another partner is tried when all are busy or resting."""
RETRY_MAX_S = 30.0
"""Longest: neighbours come and go meanwhile."""


class Turns:
    """Owns pacing, rests and budget. `members` empty: any neighbour, at random; else by the schedule of `seed`."""

    def __init__(
        self,
        peer: PeerId,
        members: Sequence[PeerId],
        seed: str,
        swap_day_bytes: int,
        link_day_bytes: int,
        rng: random.Random,
    ) -> None:
        self._peer = peer
        self._members = tuple(members)
        self._seed = seed
        self.pacing = Pacing()
        self.pacing.earn()  # a node that was away must not train a round before it asks
        self.budget = Budget(swap_day_bytes, link_day_bytes)
        self._sampler = Sampler(rng)

    def draw(self, neighbours: list[PeerId], swaps: int, size: int, usual_s: float, now: float) -> PeerId | None:
        """Whom to offer a version of `size` bytes where a swap is due, after so many finished swaps, which usually take
        `usual_s`. None: nobody yet.
        """
        scheduled = self._scheduled(neighbours, swaps)
        while (peer := self._sampler.draw(neighbours, now, scheduled, usual_s)) is not None:
            wait_s = self.wait_s(peer, size, now)
            if wait_s == 0.0:
                return peer
            self._sampler.rest(peer, now + wait_s)
        return None

    def wait_s(self, peer: PeerId, size: int, now: float) -> float:
        """Until the budget allows a swap of versions of `size` bytes with this peer."""
        return self.budget.wait_s(peer, 2 * size, now)

    def retry_at(self, neighbours: list[PeerId], now: float) -> float:
        """When to draw again after nobody was free."""
        wakes_at = self._sampler.wakes_at(neighbours)
        return min(max(wakes_at if wakes_at is not None else now, now + RETRY_MIN_S), now + RETRY_MAX_S)

    def rest(self, peer: PeerId, until: float) -> None:
        self._sampler.rest(peer, until)

    def refused(self, peer: PeerId, retry_after_s: float, now: float) -> None:
        self._sampler.refused(peer, retry_after_s, now)

    def swapped(self, peer: PeerId) -> None:
        """A swap with this peer was committed, by either side."""
        self.pacing.spend()
        self._sampler.swapped(peer)

    def moved(self, peer: PeerId, size: int, now: float) -> None:
        """Adapter bytes went to or came from this peer."""
        self.budget.spend(peer, size, now)

    def _scheduled(self, neighbours: list[PeerId], swaps: int) -> PeerId | None:
        """Over the members that are there now: a fixed index would leave gaps where somebody is away."""
        if not self._members:
            return None
        live = [member for member in self._members if member == self._peer or member in neighbours]
        return partner(live, self._peer, swaps, self._seed)
