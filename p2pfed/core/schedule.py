"""Who swaps with whom in a network whose file lists its members: a seeded matching, the same on every machine.

Rounds come in cycles of ceil(log2 N). Each cycle shuffles the members by (seed, cycle); in its round k a member at
place p meets the one at p XOR 2^k. With N a power of two the mean is exact after one cycle. Otherwise some places
have nobody across in some rounds, and rest; the next cycle's shuffle gives the rest to others.
"""

import random
from collections.abc import Sequence

from p2pfed.ports import PeerId


def cycle_rounds(count: int) -> int:
    """Rounds of one cycle of so many members."""
    return max(count - 1, 1).bit_length()


def partner(members: Sequence[PeerId], own: PeerId, round: int, seed: str) -> PeerId | None:
    """Whom `own` meets in this round; None: it rests. `members`: those alive, `own` among them or not, in any order."""
    places = sorted({*members, own})
    cycle, turn = divmod(round, cycle_rounds(len(places)))
    random.Random(f"{seed}/{cycle}").shuffle(places)  # a str seed is hashed by SHA-512, not by hash()
    across = places.index(own) ^ (1 << turn)
    return places[across] if across < len(places) else None
