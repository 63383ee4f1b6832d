"""How many bytes swaps may take: a token bucket for the node and one for each neighbour.

A bucket fills all day long at an even rate and holds an hour's worth: a node that was idle all night does not spend
the day's budget in one burst in the morning, which is what a metered or shared link minds. A swap larger than that
is let through by a full bucket, which then owes the rest and stays shut until it is paid. So in any time t no more
is spent than rate * t + max(an hour's worth, the largest swap). A swap larger than the day's budget never goes.
"""

import math
from collections import OrderedDict

from p2pfed.ports import PeerId

DAY_S = 86400.0
BURST_S = 3600.0
"""What a bucket holds, in seconds of its rate."""
LINKS_MAX = 1024
"""Neighbours with less than a full bucket that are remembered; beyond, the longest unused is forgotten, and so
forgiven. Far above any view, so it takes a thousand peer ids, and the node's own bucket still holds then."""


class Bucket:
    """Full at first. Below 0 it owes."""

    def __init__(self, day_bytes: int, now: float) -> None:
        self.day_bytes = day_bytes
        self._capacity = day_bytes * BURST_S / DAY_S
        self._level = self._capacity
        self._at = now

    def wait_s(self, size: int, now: float) -> float:
        if size > self.day_bytes:
            return math.inf
        missing = min(float(size), self._capacity) - self._refilled(now)
        if missing <= 0.0:
            return 0.0
        return missing * DAY_S / self.day_bytes + max(self._at - now, 0.0)

    def spend(self, size: int, now: float) -> None:
        self._level = self._refilled(now) - size
        self._at = max(now, self._at)

    def full(self, now: float) -> bool:
        return self._refilled(now) >= self._capacity

    def _refilled(self, now: float) -> float:
        gone_s = max(now - self._at, 0.0)  # a clock that went back fills nothing
        return min(self._capacity, self._level + gone_s * self.day_bytes / DAY_S)


class Budget:
    """`day_bytes` for all swaps together, `link_day_bytes` with each neighbour, both ways; 0: no limit."""

    def __init__(self, day_bytes: int, link_day_bytes: int) -> None:
        self._link_day_bytes = link_day_bytes
        self._node_day_bytes = day_bytes
        self._node: Bucket | None = None
        self._links: OrderedDict[PeerId, Bucket] = OrderedDict()

    @property
    def links_kept(self) -> int:
        return len(self._links)

    def wait_s(self, peer: PeerId, size: int, now: float) -> float:
        """Seconds until a swap of `size` bytes may begin. 0.0: now; infinite: never."""
        node = self._node or Bucket(self._node_day_bytes, now)
        link = self._links.get(peer) or Bucket(self._link_day_bytes, now)
        return max((bucket.wait_s(size, now) for bucket in (node, link) if bucket.day_bytes), default=0.0)

    def spend(self, peer: PeerId, size: int, now: float) -> None:
        """Bytes that went, whether they were waited for or not."""
        if self._node_day_bytes:
            self._node = self._node or Bucket(self._node_day_bytes, now)
            self._node.spend(size, now)
        if self._link_day_bytes:
            for full in [one for one, bucket in self._links.items() if bucket.full(now)]:
                del self._links[full]
            bucket = self._links.setdefault(peer, Bucket(self._link_day_bytes, now))
            bucket.spend(size, now)
            self._links.move_to_end(peer)
            if len(self._links) > LINKS_MAX:
                self._links.popitem(last=False)
