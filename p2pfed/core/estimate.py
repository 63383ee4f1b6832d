"""Network-wide figures that ride along with swaps: size, mean loss, examples, consensus distance.

Every node holds a share of one mass and of the sums of everybody's own values; each swap averages two
partners' shares, so all tend to the mean, and mass / N tells N. Rules:
- A counting is an epoch and a leader, who puts in the mass of 1. All begin as leaders; of two countings the later
  epoch stays, then the smaller leader. The other node joins with mass 0 and its own values, which both know.
- A share moves by what was *sent*, not by what is held when the swap commits, and by each change of the own
  values: the sum of shares stays the sum of own values. A share below 0 (an own value fell) is sent as 0.
- After EPOCH_SWAPS swaps in one counting a node opens the next epoch, and all follow as they meet it. So mass
  lost with crashed nodes, and made or lost in half-done swaps, is forgotten.
- Shown is the last estimate whose partners hardly differed. So while a new epoch settles, about 30 swaps, the end
  of the one before is shown.
"""

import math
import random
import statistics
from collections import deque
from dataclasses import dataclass

from p2pfed.core.messages import OWN_VALUES, Tally

EPOCH_SWAPS = 64
"""Swaps after which a node opens the next epoch. Whoever swaps most opens it, when the mean node of 1,000 or of 20,000
is at 40 to 45; by then all are within 10 % of the truth (1,000: 99 of 100 nodes after 30 swaps each, 20,000: after 36).
"""
EPOCHS = 2**32
"""Epochs are counted modulo this; the later of two is less than half of it ahead. So no lie can use them up."""
LEADER_BITS = 53
VALUE_MAX = 1e18
"""Larger values are taken as this. No honest one comes near, and no sum of such shares overflows."""
SIZE_MAX = 1e9
"""A smaller mass than that of so many nodes is a lie or a leader's shadow."""
MEMORY = 0.5
"""Share of the past in the running mean of squared differences of partners: about the last two swaps count."""
ERROR_FACTOR = 1.5
"""Stated error over the root of that mean: the median stated error was then about the true one's 95th percentile, and
96 to 98 of 100 nodes were within what they stated (100 and 1,000 nodes, after 24 to 42 swaps each)."""
ERROR_SHOWN_MAX = 0.05
"""An estimate with a larger spread is shown only while no better one is at most EPOCH_SWAPS swaps old."""
SIZES_KEPT = 3
"""Epochs whose final sizes' scatter is part of the stated error: half-done swaps bias each epoch anew, which the
differences of partners do not show."""
SCATTER_FACTOR = 2.0
"""Stated error over the standard deviation of these sizes and the running one. A guess from few samples: with 1 % of
swaps half done, 67 to 100 of 100 shown sizes were within it from the third epoch on, but 20 to 42 in the first."""

_LOSS, _LOSSES, _EXAMPLES, _NORM, _DISTANCE = range(OWN_VALUES)


@dataclass(frozen=True, slots=True)
class Figures:
    """The whole network as one node estimates it."""

    size: float
    """Nodes, at least 1."""
    error: float
    """Of `size`, relative: the truth lies within size * (1 - error) to size * (1 + error) in most cases. 1: unknown.

    Too small in a first epoch with half-done swaps: what they did to the mass shows only from epoch to epoch.
    """
    loss: float | None
    """Mean over the nodes that have one."""
    examples: float
    """Sum over all nodes."""
    consensus_distance: float
    """Root mean square distance of a node to the mean adapter, as far as recent swaps tell."""
    relative_distance: float | None
    """The same over the norm of the mean adapter's difference to the start; None where that is not above 0."""


class NetworkEstimate:
    """One node's share. `put` own values as they change, send `tally()`, `merge` both tallies when a swap commits."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._own = [0.0] * OWN_VALUES
        self._epoch = 0
        self._sizes: deque[float] = deque(maxlen=SIZES_KEPT)
        self._good: Figures | None = None
        self._swaps_since_good = 0
        self._swaps = 0
        self._shares: list[float] = []
        self._leader = 0
        self._difference = 1.0
        self._open_epoch()

    def put(
        self,
        loss: float | None = None,
        examples: float | None = None,
        square_norm: float | None = None,
        square_distance: float | None = None,
    ) -> None:
        """Own values as they are now. None: as before; so is one that is not finite."""
        if loss is not None and math.isfinite(loss):
            self._set(_LOSS, loss)
            self._set(_LOSSES, 1.0)
        for index, value in ((_EXAMPLES, examples), (_NORM, square_norm), (_DISTANCE, square_distance)):
            if value is not None and math.isfinite(value):
                self._set(index, value)

    def tally(self) -> Tally:
        """To be sent, and kept by the sender for `merge`."""
        return Tally(self._epoch, self._leader, _bounded(self._shares), tuple(self._own))

    def merge(self, mine: Tally, theirs: Tally) -> None:
        """The swap that carried these two committed. Its partner does the same with the two exchanged."""
        if (mine.epoch, mine.leader) != (self._epoch, self._leader):
            return  # sent before this node went over to another counting
        sent, told = mine.shares, _bounded(theirs.shares)
        if _gives_way(mine, theirs):
            self._leave()
            self._epoch, self._leader = theirs.epoch, theirs.leader
            sent = (0.0, *mine.own)
            self._shares = [0.0, *self._own]
        elif (theirs.epoch, theirs.leader) != (mine.epoch, mine.leader):
            told = _bounded((0.0, *theirs.own))
        self._shares = [share + (b - a) / 2.0 for share, a, b in zip(self._shares, sent, told, strict=True)]
        self._swapped(sent[0], told[0])

    def figures(self) -> Figures | None:
        """None before the first swap."""
        if self._good is not None:
            return self._good
        return self._running() if self._swaps else None

    def _set(self, index: int, value: float) -> None:
        value = float(min(max(value, 0.0), VALUE_MAX))
        self._shares[1 + index] += value - self._own[index]
        self._own[index] = value

    def _swapped(self, mine: float, theirs: float) -> None:
        difference = abs(mine - theirs) / (mine + theirs) if mine + theirs > 0.0 else 1.0
        self._difference = MEMORY * self._difference + (1.0 - MEMORY) * difference * difference
        self._swaps += 1
        self._swaps_since_good += 1
        if self._spread() <= ERROR_SHOWN_MAX:
            self._good, self._swaps_since_good = self._running(), 0
        elif self._swaps_since_good > EPOCH_SWAPS:
            self._good = None
        if self._swaps >= EPOCH_SWAPS:
            self._leave()
            self._open_epoch()

    def _leave(self) -> None:
        if self._swaps > 0 and self._good is not None and self._swaps_since_good < self._swaps:
            self._sizes.append(self._good.size)
        self._swaps, self._difference = 0, 1.0

    def _open_epoch(self) -> None:
        self._epoch = (self._epoch + 1) % EPOCHS
        self._leader = self._rng.getrandbits(LEADER_BITS)
        self._shares = [1.0, *self._own]

    def _spread(self) -> float:
        return min(1.0, ERROR_FACTOR * math.sqrt(self._difference))

    def _running(self) -> Figures:
        mass, *sums = (max(share, 0.0) for share in self._shares)
        size = 1.0 / min(max(mass, 1.0 / SIZE_MAX), 1.0)
        square = sums[_DISTANCE] / 2.0
        mean_square = sums[_NORM] - square
        return Figures(
            size=size,
            error=min(1.0, math.hypot(self._spread(), self._scatter(size))),
            loss=sums[_LOSS] / sums[_LOSSES] if sums[_LOSSES] * size > 0.5 else None,
            examples=sums[_EXAMPLES] * size,
            consensus_distance=math.sqrt(square),
            relative_distance=math.sqrt(square / mean_square) if mean_square > 0.0 else None,
        )

    def _scatter(self, size: float) -> float:
        return SCATTER_FACTOR * statistics.stdev([*self._sizes, size]) / size if self._sizes else 0.0


def _gives_way(one: Tally, other: Tally) -> bool:
    """Does the node of `one` go over to the counting of `other`?"""
    if one.epoch != other.epoch:
        return 0 < (other.epoch - one.epoch) % EPOCHS < EPOCHS // 2
    return other.leader < one.leader


def _bounded(shares: list[float] | tuple[float, ...]) -> tuple[float, ...]:
    mass, *sums = shares
    return (min(max(mass, 0.0), 1.0), *(min(max(value, 0.0), VALUE_MAX) for value in sums))
