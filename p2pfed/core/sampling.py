"""Which neighbour to swap with next: a shuffled bag, so that nobody is starved, and rests for the busy."""

import random

from p2pfed.ports import PeerId


class Sampler:
    """Draws every eligible neighbour once before any comes twice; who could not take its turn keeps it."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._bag: list[PeerId] = []
        self._rests_until: dict[PeerId, float] = {}

    def rest(self, peer: PeerId, until: float) -> None:
        self._rests_until[peer] = until
        if peer not in self._bag:
            self._bag.insert(0, peer)  # else two nodes that are asked a lot would hardly ever meet

    def draw(self, neighbours: list[PeerId], now: float) -> PeerId | None:
        """The next partner among `neighbours`; None where all rest."""
        self._rests_until = {peer: until for peer, until in self._rests_until.items() if until > now}
        eligible = [peer for peer in neighbours if peer not in self._rests_until]
        if not eligible:
            return None
        if not any(peer in eligible for peer in self._bag):
            self._bag = list(neighbours)
            self._rng.shuffle(self._bag)
        for place, peer in enumerate(self._bag):
            if peer in eligible:
                return self._bag.pop(place)
        return None
