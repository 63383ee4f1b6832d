"""The bounded partial view: what this node knows of other peers. Data and bounds only, no messages.

Hearsay is worth an entry, never a claim: only peers this node has itself been linked to are told to others.
"""

import math
import random
from dataclasses import dataclass

from p2pfed.core.deadline import Pace
from p2pfed.core.events import FoundBy, LinkId
from p2pfed.core.messages import ADDRESSES_MAX, PeerRecord, Role
from p2pfed.ports import Encoding, PeerId

VIEW_MAX = 128
"""Peers known at once: ten times the neighbours anyone needs, a few tens of KB; more would reward address flooding."""
DIAL_BACKOFF_FIRST_S = 1.0
DIAL_BACKOFF_MAX_S = 60.0
"""A peer that comes back is found again within a minute; a dead one costs one dial a minute."""
DIAL_BACKOFF_MISSING_MAX_S = 8.0
"""The same for a peer on the other side of a suspected cut: the halves meet again soon after it ends."""
FAILURES_MAX = 6
"""Dials in a row without an answer after which hearsay is forgotten (about two minutes); kept if it was once linked."""
TOLD_AGE_MAX_S = 600.0
"""A peer not linked for ten minutes is not told to others: most homes re-address within hours, not minutes."""


HEARSAY = (FoundBy.PEERS, FoundBy.DHT)
"""Others said so, and may have made it up."""


@dataclass(slots=True)
class PeerEntry:
    """What is known of one peer. Owned and changed by `Membership` alone."""

    peer: PeerId
    addresses: tuple[str, ...]
    found_by: FoundBy
    role: Role | None = None
    name: str = ""
    encoding: Encoding = Encoding.FLOAT32
    """The finest form it wants on its links."""
    instance: int | None = None
    link: LinkId | None = None
    outbound: bool = False
    dialling: bool = False
    failures: int = 0
    dial_at: float = 0.0
    linked_at: float | None = None
    heard_at: float = 0.0
    pinged_at: float = 0.0
    """Of the last ping; nothing was heard since where it is later than `heard_at`."""
    asked_at: float = 0.0
    """Of the first ping of those that wait for an answer, all with the same nonce."""
    nonce: int | None = None
    misses: int = 0
    """Pings in a row whose time was over before anything was heard: above 0, the peer is suspected."""
    bulk_at: float = -math.inf
    """When parts of adapters, or what announces them, last went over the link."""
    pace: Pace | None = None
    """Of its answers to pings; None before the first link."""
    rtt_s: float | None = None
    """Of the last answered ping."""
    left: bool = False
    """Its last link ended in good faith, by either side's goodbye."""
    refusal: str | None = None
    last_failure: str | None = None

    @property
    def addresses_afar(self) -> tuple[str, ...]:
        """Without those that are good on one of this device's links only: IPv6 link-local ones have a zone."""
        return tuple(address for address in self.addresses if "%" not in address)

    def can_dial(self, now: float) -> bool:
        """There is a use in dialling it, and enough time since the last dial."""
        return self.link is None and not self.dialling and self.dial_at <= now and bool(self.addresses)


class View:
    """Entries by peer id, at most VIEW_MAX. Insertion order is the iteration order: stable for a given history."""

    def __init__(self, own: PeerId, rng: random.Random, size_max: int = VIEW_MAX) -> None:
        self._own = own
        self._rng = rng
        self._size_max = size_max
        self._entries: dict[PeerId, PeerEntry] = {}
        self._linked: dict[PeerId, PeerEntry] = {}
        self._met: dict[PeerId, PeerEntry] = {}
        """Linked once, in this run or in one before: few, where hearsay may be many."""
        self.nodes_linked = 0
        self.knows_bootstrap = False
        """A bootstrap peer was among the entries at some time."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, peer: PeerId) -> PeerEntry | None:
        return self._entries.get(peer)

    def entries(self) -> list[PeerEntry]:
        return list(self._entries.values())

    def met(self) -> list[PeerEntry]:
        """Entries that were linked in this run or in one before."""
        return list(self._met.values())

    def linked(self) -> list[PeerEntry]:
        """Entries with a link, in the order they were linked."""
        return list(self._linked.values())

    def link(self, entry: PeerEntry, link: LinkId, role: Role) -> None:
        entry.link, entry.role = link, role
        self.knows_bootstrap |= role is Role.BOOTSTRAP
        entry.pace = entry.pace or Pace()
        entry.misses, entry.nonce, entry.bulk_at, entry.left = 0, None, -math.inf, False
        self._linked[entry.peer] = self._met[entry.peer] = entry
        self.nodes_linked += role is Role.NODE

    def unlink(self, entry: PeerEntry) -> None:
        if self._linked.pop(entry.peer, None) is not None:
            self.nodes_linked -= entry.role is Role.NODE
        entry.link = None

    def found(self, peer: PeerId, addresses: tuple[str, ...], found_by: FoundBy) -> PeerEntry | None:
        """The entry, new or refreshed; None for oneself and where the view is full of better ones."""
        if peer == self._own:
            return None
        entry = self._entries.get(peer)
        if entry is None:
            if len(self._entries) >= self._size_max and not self._evict(found_by is not FoundBy.INBOUND):
                return None
            entry = PeerEntry(peer, (), found_by)
            self._entries[peer] = entry
            if found_by is FoundBy.REMEMBERED:
                self._met[peer] = entry
            self.knows_bootstrap |= found_by is FoundBy.BOOTSTRAP
        elif found_by in (FoundBy.MDNS, FoundBy.BOOTSTRAP) and entry.found_by in HEARSAY:
            entry.found_by = found_by
            self.knows_bootstrap |= found_by is FoundBy.BOOTSTRAP
        proven = entry.linked_at is not None and found_by in HEARSAY
        both = entry.addresses + addresses if proven else addresses + entry.addresses
        fresh = tuple(dict.fromkeys(both))[:ADDRESSES_MAX]  # hearsay pushes out nothing that once worked
        if fresh != entry.addresses:
            entry.addresses = fresh
            if entry.link is None and found_by is FoundBy.MDNS:
                entry.dial_at = 0.0  # a new address on the LAN is worth a dial at once
        return entry

    def drop(self, peer: PeerId) -> None:
        self._entries.pop(peer, None)
        self._met.pop(peer, None)

    def failed(self, entry: PeerEntry, reason: str, now: float, backoff_max_s: float = DIAL_BACKOFF_MAX_S) -> None:
        """One more dial without an answer: back off, forget mere hearsay in the end."""
        entry.dialling = False
        entry.failures += 1
        entry.last_failure = reason
        backoff_s = min(backoff_max_s, DIAL_BACKOFF_FIRST_S * 2.0 ** min(entry.failures - 1, FAILURES_MAX))
        entry.dial_at = now + backoff_s * self._rng.uniform(0.5, 1.0)
        proven = entry.linked_at is not None or entry.found_by in (FoundBy.BOOTSTRAP, FoundBy.REMEMBERED)
        if entry.failures >= FAILURES_MAX and not proven:
            self.drop(entry.peer)

    def tellable(self, asker: PeerId, count: int, now: float) -> tuple[PeerRecord, ...]:
        """A random sample of peers this node was itself linked to of late, for an answer to PeersAsk."""
        known = [
            entry
            for entry in self._entries.values()
            if entry.peer != asker
            and entry.addresses_afar
            and entry.role is Role.NODE
            and entry.refusal is None
            and (entry.link is not None or now - entry.heard_at <= TOLD_AGE_MAX_S)
        ]
        chosen = self._rng.sample(known, min(count, len(known)))
        return tuple(PeerRecord(entry.peer, entry.addresses_afar) for entry in chosen)

    def worth_remembering(self) -> tuple[PeerRecord, ...]:
        """Peers once linked, in this run or in one before, last heard first: what a restart dials."""
        known = sorted((entry for entry in self._met.values() if entry.addresses), key=lambda entry: -entry.heard_at)
        return tuple(PeerRecord(entry.peer, entry.addresses) for entry in known)

    def _evict(self, hearsay: bool) -> bool:
        """Make room: never a linked, dialled or bootstrap peer. A flood of hearsay evicts hearsay.

        Peers once linked give way, the longest unheard first, where they take more than half of the view, or to one
        that has just shaken hands.
        """
        idle = [
            entry
            for entry in self._entries.values()
            if entry.link is None and not entry.dialling and entry.found_by is not FoundBy.BOOTSTRAP
        ]
        met = [entry for entry in idle if entry.linked_at is not None]
        rumours = [entry for entry in idle if entry.linked_at is None]
        if met and (2 * len(met) > self._size_max or not (rumours or hearsay)):
            self.drop(min(met, key=lambda entry: entry.heard_at).peer)
        elif rumours:
            self.drop(self._rng.choice(rumours).peer)
        return len(self._entries) < self._size_max
