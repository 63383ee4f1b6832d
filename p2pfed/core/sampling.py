"""Which neighbour is next: the scheduled one, else from a shuffled bag, so that nobody is starved. The busy rest.

Nobody is drawn twice running while another may be free soon: where all are busy but the two that have just swapped,
they would meet again and bring each other nothing new (2 to 5 % of the loss gap: docs/lab-notes.md).
"""

import random
from typing import NamedTuple

from p2pfed.core.messages import RETRY_AFTER_S_MAX
from p2pfed.ports import PeerId

REST_MAX_S = 60.0
"""Longest rest of a neighbour that refuses again and again, unless it asks for a longer one itself."""
SCHEDULE_PATIENCE = 3
"""A scheduled partner is passed over for any other once it has refused for so many of this node's usual swaps, and as
often in a row: it may be stuck. Refusals alone come too fast while it is in its first, slow swap, and who leaves
the schedule too early takes a partner of others out of it."""


LAST_PATIENCE = 3
"""Others that refused so often in a row are not waited for instead of the last partner."""


class Refusals(NamedTuple):
    """In a row, by one neighbour."""

    times: int
    since: float


class Sampler:
    """Draws every eligible neighbour once before any comes twice; who could not take its turn keeps it."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._bag: list[PeerId] = []
        self._rests_until: dict[PeerId, float] = {}
        self._refusals: dict[PeerId, Refusals] = {}
        self._last: PeerId | None = None

    def refused(self, peer: PeerId, retry_after_s: float, now: float) -> None:
        """It is busy: rest it for what it asked, doubled with each refusal in a row."""
        before = self._refused(peer, now)
        times = before.times + 1
        self._refusals[peer] = Refusals(times, before.since)
        longest_s = max(REST_MAX_S, min(retry_after_s, RETRY_AFTER_S_MAX))
        self.rest(peer, now + min(longest_s, retry_after_s * 2.0 ** min(times - 1, 10)) * self._rng.uniform(0.5, 1.0))

    def rest(self, peer: PeerId, until: float) -> None:
        self._rests_until[peer] = until
        if peer not in self._bag:
            self._bag.insert(0, peer)  # else two nodes that are asked a lot would hardly ever meet

    def swapped(self, peer: PeerId) -> None:
        """It was not busy after all; and who has just been met, by its own offer, needs no turn of ours."""
        self._refusals.pop(peer, None)
        self._last = peer
        if peer in self._bag:
            self._bag.remove(peer)

    def draw(
        self, neighbours: list[PeerId], now: float, scheduled: PeerId | None = None, usual_s: float = 0.0
    ) -> PeerId | None:
        """The next partner among `neighbours`; None where all rest, or the scheduled one does for a moment.

        `usual_s`: how long a swap of this node usually takes.
        """
        self._rests_until = {peer: until for peer, until in self._rests_until.items() if until > now}
        self._refusals = {peer: refusals for peer, refusals in self._refusals.items() if peer in neighbours}
        if scheduled is not None and scheduled in neighbours:
            if scheduled not in self._rests_until:
                return scheduled
            if self._waits_for(scheduled, now, usual_s):
                return None
        eligible = [peer for peer in neighbours if peer not in self._rests_until]
        if self._last in eligible and any(self._free_soon(peer, now) for peer in neighbours if peer != self._last):
            eligible.remove(self._last)
        if not eligible:
            return None
        if not any(peer in eligible for peer in self._bag):
            self._bag = list(neighbours)
            self._rng.shuffle(self._bag)
        for place, peer in enumerate(self._bag):
            if peer in eligible:
                return self._bag.pop(place)
        return None

    def wakes_at(self, neighbours: list[PeerId]) -> float | None:
        """When the first resting neighbour may be asked again."""
        return min((until for peer, until in self._rests_until.items() if peer in neighbours), default=None)

    def _free_soon(self, peer: PeerId, now: float) -> bool:
        return self._back_soon(peer, now) and self._refused(peer, now).times < LAST_PATIENCE

    def _waits_for(self, scheduled: PeerId, now: float, usual_s: float) -> bool:
        """Whether it is worth resting along with this one."""
        if not self._back_soon(scheduled, now):
            return False
        refusals = self._refused(scheduled, now)
        return refusals.times < SCHEDULE_PATIENCE or now - refusals.since < SCHEDULE_PATIENCE * usual_s

    def _back_soon(self, peer: PeerId, now: float) -> bool:
        """Who rests for longer is out of bytes for today."""
        return self._rests_until.get(peer, now) <= now + REST_MAX_S

    def _refused(self, peer: PeerId, now: float) -> Refusals:
        return self._refusals.get(peer, Refusals(0, now))
