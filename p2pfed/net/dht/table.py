"""The routing table: DHT servers by their nearness to oneself. Pure, bounded.

A bucket holds those whose places share equally many first bits with the own one. Kademlia's rule: who has answered
long stays, a newcomer waits until somebody fails; so a flood of new peers displaces nobody.
"""

from dataclasses import dataclass

from p2pfed.core.messages import PeerRecord
from p2pfed.net.binary_address import ADDRESSES_KEPT_MAX
from p2pfed.net.dht.key import PLACE_BITS, place_of_peer
from p2pfed.ports import PeerId

BUCKET_PEERS_MAX = 20
"""Kademlia's k, and libp2p's."""
TABLE_PEERS_MAX = 256
"""All buckets: a network of thousands has tens of servers. With eight addresses each, under 200 KB."""
FAILURES_MAX = 3
"""In a row, after which a server is forgotten."""


@dataclass(slots=True)
class Server:
    """One entry. Owned and changed by `RoutingTable` alone."""

    peer: PeerId
    place: int
    addresses: tuple[str, ...]
    answered_at: float | None = None
    """None: hearsay."""
    failures: int = 0


class RoutingTable:
    def __init__(self, own: PeerId) -> None:
        self._own = own
        self._place = place_of_peer(own)
        self._servers: dict[PeerId, Server] = {}
        self._fixed: dict[PeerId, Server] = {}
        """Those a person named: never forgotten. Not in buckets."""

    def __len__(self) -> int:
        return len(self.servers())

    def servers(self) -> list[Server]:
        return [*self._fixed.values(), *(each for peer, each in self._servers.items() if peer not in self._fixed)]

    def get(self, peer: PeerId) -> Server | None:
        return self._fixed.get(peer) or self._servers.get(peer)

    def name(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """A server that a person named (seeds, bounded by whoever reads them)."""
        if peer != self._own:
            known = self._fixed.setdefault(peer, Server(peer, place_of_peer(peer), ()))
            known.addresses = _merged(addresses, known.addresses)

    def hear(self, peer: PeerId, addresses: tuple[str, ...]) -> bool:
        """Hearsay of a server: True where it is, or was, worth an entry."""
        if peer == self._own or not addresses:
            return False
        if (known := self.get(peer)) is not None:
            if known.answered_at is None:  # hearsay pushes out nothing that once worked
                known.addresses = _merged(addresses, known.addresses)
            return True
        place = place_of_peer(peer)
        if not self._make_room(self._bucket(place)):
            return False
        self._servers[peer] = Server(peer, place, addresses[:ADDRESSES_KEPT_MAX])
        return True

    def answered(self, peer: PeerId, address: str | None, now: float) -> None:
        """`address` is the one that worked: it comes first."""
        if (known := self.get(peer)) is not None:
            known.answered_at, known.failures = now, 0
            if address is not None:
                known.addresses = _merged((address,), known.addresses)

    def failed(self, peer: PeerId) -> None:
        known = self.get(peer)
        if known is None:
            return
        known.failures += 1
        if known.failures >= FAILURES_MAX and peer not in self._fixed:
            del self._servers[peer]

    def closest(self, place: int, count: int) -> list[PeerRecord]:
        """Nearest first. Those that fail come after all that do not."""
        ranked = sorted(self.servers(), key=lambda each: (each.failures > 0, each.place ^ place))
        return [PeerRecord(each.peer, each.addresses) for each in ranked[:count] if each.addresses]

    def proven(self, place: int, count: int) -> list[PeerRecord]:
        """The same of those that answered this peer itself: what is told to others."""
        ranked = sorted(
            (each for each in self.servers() if each.answered_at is not None and not each.failures),
            key=lambda each: each.place ^ place,
        )
        return [PeerRecord(each.peer, each.addresses) for each in ranked[:count]]

    def unheard(self, since: float) -> list[PeerRecord]:
        """Servers that have not answered since."""
        return [
            PeerRecord(each.peer, each.addresses)
            for each in self.servers()
            if each.answered_at is None or each.answered_at < since
        ]

    def _bucket(self, place: int) -> int:
        return PLACE_BITS - (place ^ self._place).bit_length()

    def _make_room(self, bucket: int) -> bool:
        inside = [each for each in self._servers.values() if self._bucket(each.place) == bucket]
        full_bucket = len(inside) >= BUCKET_PEERS_MAX
        if not full_bucket and len(self._servers) < TABLE_PEERS_MAX:
            return True
        candidates = inside if full_bucket else list(self._servers.values())
        worst = max(candidates, key=lambda each: (each.failures, each.answered_at is None))
        if worst.failures == 0 and worst.answered_at is not None:
            return False
        del self._servers[worst.peer]
        return True


def _merged(first: tuple[str, ...], then: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *then)))[:ADDRESSES_KEPT_MAX]
