"""What a node counts of its own swaps, and what it can infer from them alone (`core.estimate` asks the others).

For two nodes drawn at random, the expected squared distance of their adapters is twice the
mean squared distance to the consensus (times N/(N-1)). So the root of half the mean squared
swap distance estimates the consensus distance, to the accuracy that few samples allow.
"""

import math
from collections import deque

DISTANCES_KEPT = 16
"""Recent swap distances in the estimate: enough to smooth, few enough to follow a network that contracts."""


class SwapStatistics:
    """Counters of one node since its start."""

    def __init__(self) -> None:
        self.begun = 0
        self.answered = 0
        self.finished = 0
        self.declined = 0
        self.aborted = 0
        self.half_done = 0
        self.adopted = 0
        self.clipped = 0
        self.faults = 0
        self._distances: deque[float] = deque(maxlen=DISTANCES_KEPT)
        self.norm: float | None = None

    def mixed(self, distance: float, norm: float, kept: float) -> None:
        self._distances.append(distance)
        self.norm = norm
        self.clipped += kept < 1.0

    def square_distance(self) -> float | None:
        """Mean squared distance of recent swaps' versions; None before the first swap."""
        if not self._distances:
            return None
        return sum(distance * distance for distance in self._distances) / len(self._distances)

    def consensus_distance(self) -> float | None:
        """Estimated root mean square distance of a node to the mean of all; None before the first swap."""
        square = self.square_distance()
        return math.sqrt(square / 2.0) if square is not None else None

    def as_fields(self) -> dict[str, int | float | None]:
        return {
            "begun": self.begun,
            "answered": self.answered,
            "finished": self.finished,
            "declined": self.declined,
            "aborted": self.aborted,
            "half_done": self.half_done,
            "adopted": self.adopted,
            "clipped": self.clipped,
            "faults": self.faults,
            "consensus_distance": self.consensus_distance(),
            "norm": self.norm,
        }
