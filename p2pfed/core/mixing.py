"""How much of whose adapter to take. One rule today: the plain pairwise mean of A and B factors.

Both partners of a swap apply the same weight to the versions they exchanged, so with training
paused their sum is kept and their distance becomes zero. What learns more per byte (weights by
age, clipping) belongs here and nowhere else.
"""

from p2pfed.core.messages import Version

PAIR_WEIGHT = 0.5


def weight_of(own: Version, theirs: Version) -> float:
    """The share of `theirs` in the mix: adapter += weight * (theirs - adapter)."""
    return PAIR_WEIGHT
