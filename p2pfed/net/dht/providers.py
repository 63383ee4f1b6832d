"""Who provides which key: what a DHT server keeps for others. Pure, bounded, forgets by itself.

A provider registers itself only (`server` sees to it), so a flood costs its sender a peer id an entry, and a key's own
oldest entry goes first: one network cannot push out another.
"""

import random
from dataclasses import dataclass

from p2pfed.core.messages import PeerRecord
from p2pfed.ports import PeerId

PROVIDED_S = 2 * 3600.0
"""An entry not renewed for so long is forgotten: four times `rounds.PROVIDE_INTERVAL_S`, so that three may fail."""
KEYS_MAX = 256
"""Networks of one server, and then some of strangers."""
KEY_PROVIDERS_MAX = 512
"""Of one key: a random sample of them is told, more would not make it better."""
PROVIDERS_MAX = 4096
"""In all. With eight addresses of 60 characters each, 4 MB; at the very most, 10 MB."""
PEER_KEYS_MAX = 16
"""Keys one peer provides: devices are in a network or two."""


@dataclass(slots=True)
class _Provider:
    addresses: tuple[str, ...]
    renewed_at: float


class ProviderStore:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._keys: dict[bytes, dict[PeerId, _Provider]] = {}
        """The providers of a key in the order they were renewed, oldest first."""
        self._of_peer: dict[PeerId, list[bytes]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    def add(self, key: bytes, peer: PeerId, addresses: tuple[str, ...], now: float) -> bool:
        """False where the peer provides too many keys, or the store holds too many."""
        self.expire(now)
        providers = self._keys.get(key, {})
        if peer in providers:
            del providers[peer]  # to the end of the order
            providers[peer] = _Provider(addresses, now)
            return True
        if len(self._of_peer.get(peer, ())) >= PEER_KEYS_MAX or (not providers and len(self._keys) >= KEYS_MAX):
            return False
        if len(providers) >= KEY_PROVIDERS_MAX:
            self._remove(key, next(iter(providers)))
        elif len(self) >= PROVIDERS_MAX:
            largest = max(self._keys, key=lambda each: len(self._keys[each]))
            self._remove(largest, next(iter(self._keys[largest])))
        self._keys.setdefault(key, {})[peer] = _Provider(addresses, now)
        self._of_peer.setdefault(peer, []).append(key)
        return True

    def of(self, key: bytes, count: int, now: float) -> list[PeerRecord]:
        """A random sample: who asks again hears of others."""
        fresh = [(peer, each) for peer, each in self._keys.get(key, {}).items() if now - each.renewed_at < PROVIDED_S]
        chosen = self._rng.sample(fresh, min(count, len(fresh)))
        return [PeerRecord(peer, each.addresses) for peer, each in chosen]

    def find(self, peer: PeerId, now: float) -> PeerRecord | None:
        """Where a provider of anything is."""
        for key in self._of_peer.get(peer, ()):
            each = self._keys[key][peer]
            if now - each.renewed_at < PROVIDED_S:
                return PeerRecord(peer, each.addresses)
        return None

    def expire(self, now: float) -> None:
        for key in list(self._keys):
            for peer, each in list(self._keys[key].items()):
                if now - each.renewed_at < PROVIDED_S:
                    break  # the rest is younger
                self._remove(key, peer)

    def _remove(self, key: bytes, peer: PeerId) -> None:
        del self._keys[key][peer]
        if not self._keys[key]:
            del self._keys[key]
        self._of_peer[peer].remove(key)
        if not self._of_peer[peer]:
            del self._of_peer[peer]
