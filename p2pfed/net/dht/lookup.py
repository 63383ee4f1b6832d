"""One iterative search for the servers nearest to a key. Pure: says whom to ask next, is told what they said.

Ends when the nearest NEAREST it knows have all answered or failed, or after QUERIES_MAX.
"""

from dataclasses import dataclass
from enum import StrEnum

from p2pfed.core.messages import PeerRecord
from p2pfed.net.binary_address import ADDRESSES_KEPT_MAX
from p2pfed.net.dht.key import place_of_peer
from p2pfed.net.dht.table import BUCKET_PEERS_MAX
from p2pfed.ports import PeerId

NEAREST = BUCKET_PEERS_MAX
"""Servers that keep a key."""
AT_ONCE = 3
"""Kademlia's alpha: one dead server in three does not hold up the search."""
QUERIES_MAX = 48
"""Of one search: NEAREST, and as many again for the way there and the dead."""
CANDIDATES_MAX = 256
"""Known at once; the farthest go first, whatever servers tell."""


class _State(StrEnum):
    KNOWN = "known"
    ASKED = "asked"
    ANSWERED = "answered"
    FAILED = "failed"


@dataclass(slots=True)
class _Candidate:
    record: PeerRecord
    distance: int
    state: _State = _State.KNOWN


class Lookup:
    def __init__(self, own: PeerId, place: int, known: list[PeerRecord]) -> None:
        self._own = own
        self._place = place
        self._queries = 0
        self._candidates: dict[PeerId, _Candidate] = {}
        self._add(known)

    def next(self) -> PeerRecord | None:
        """Whom to ask now; None while AT_ONCE are asked, or for good once `over`."""
        waiting = sum(each.state is _State.ASKED for each in self._candidates.values())
        if waiting >= AT_ONCE or self._queries >= QUERIES_MAX:
            return None
        for each in self._nearest():
            if each.state is _State.KNOWN:
                each.state = _State.ASKED
                self._queries += 1
                return each.record
        return None

    def answered(self, peer: PeerId, closer: list[PeerRecord]) -> None:
        if (each := self._candidates.get(peer)) is not None:
            each.state = _State.ANSWERED
        self._add(closer)

    def failed(self, peer: PeerId) -> None:
        if (each := self._candidates.get(peer)) is not None:
            each.state = _State.FAILED

    @property
    def over(self) -> bool:
        if any(each.state is _State.ASKED for each in self._candidates.values()):
            return False
        return self._queries >= QUERIES_MAX or all(each.state is not _State.KNOWN for each in self._nearest())

    def found(self) -> list[PeerRecord]:
        """The nearest that answered, nearest first."""
        return [each.record for each in self._nearest() if each.state is _State.ANSWERED]

    def _nearest(self) -> list[_Candidate]:
        alive = [each for each in self._candidates.values() if each.state is not _State.FAILED]
        return sorted(alive, key=lambda each: each.distance)[:NEAREST]

    def _add(self, records: list[PeerRecord]) -> None:
        for record in records:
            if record.peer == self._own or not record.addresses or record.peer in self._candidates:
                continue
            addresses = record.addresses[:ADDRESSES_KEPT_MAX]
            distance = place_of_peer(record.peer) ^ self._place
            self._candidates[record.peer] = _Candidate(PeerRecord(record.peer, addresses), distance)
        if len(self._candidates) > CANDIDATES_MAX:
            known = [each for each in self._candidates.values() if each.state is _State.KNOWN]
            known.sort(key=lambda each: -each.distance)
            for each in known[: len(self._candidates) - CANDIDATES_MAX]:
                del self._candidates[each.record.peer]
