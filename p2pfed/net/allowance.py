"""How often somebody may ask for something: so many at once, and so many a minute on average, each peer and all."""

from collections import OrderedDict
from dataclasses import dataclass

from p2pfed.ports import PeerId

PEERS_KEPT_MAX = 1024
"""Buckets kept; the one longest untouched goes, and by then is most likely full again."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class Allowance:
    """Token buckets. `allows` takes one of the peer's and one of all."""

    def __init__(self, *, burst: int, per_minute: float, burst_all: int, per_minute_all: float) -> None:
        self._burst, self._per_minute = burst, per_minute
        self._burst_all, self._per_minute_all = burst_all, per_minute_all
        self._all = _Bucket(burst_all, 0.0)
        self._peers: OrderedDict[PeerId, _Bucket] = OrderedDict()

    def allows(self, peer: PeerId, now: float) -> bool:
        bucket = self._peers.pop(peer, None) or _Bucket(self._burst, now)
        self._peers[peer] = bucket
        while len(self._peers) > PEERS_KEPT_MAX:
            self._peers.popitem(last=False)
        _fill(bucket, self._burst, self._per_minute, now)
        _fill(self._all, self._burst_all, self._per_minute_all, now)
        if bucket.tokens < 1.0 or self._all.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        self._all.tokens -= 1.0
        return True


def _fill(bucket: _Bucket, burst: int, per_minute: float, now: float) -> None:
    bucket.tokens = min(burst, bucket.tokens + (now - bucket.filled_at) * per_minute / 60.0)
    bucket.filled_at = now
