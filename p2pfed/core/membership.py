"""Who the neighbours are: dialling, liveness, peer exchange, refusals, copied identities.

At most one link a peer counts. When two peers dial each other at once, both sides keep the link
that the smaller peer id opened; otherwise the newer link counts. A second link with another
`instance` is a restart or a copied identity: the older link is probed, and an answer on it proves the copy.

Upkeep happens when something can be due, not every second; `liveness` says when a link is pinged and given up.
"""

import math
import random
from dataclasses import dataclass

from p2pfed.core.compatibility import difference
from p2pfed.core.dialling import Dialling
from p2pfed.core.estimate import Figures
from p2pfed.core.events import (
    CloseLink,
    Effect,
    FoundBy,
    LinkId,
    LinkUp,
    PeerFound,
    Report,
    Send,
    SetTimer,
    Timer,
    TimerKind,
)
from p2pfed.core.introductions import Introductions
from p2pfed.core.liveness import Look, answered, look_at, ping
from p2pfed.core.messages import (
    PEERS_TOLD_MAX,
    Goodbye,
    Hello,
    IdentityInUse,
    PeersAsk,
    PeersTold,
    Ping,
    Pong,
    Role,
)
from p2pfed.core.partition import PartitionWatch, Suspicion
from p2pfed.core.view import DIAL_BACKOFF_MISSING_MAX_S, VIEW_MAX, PeerEntry, View
from p2pfed.ports import PeerId

UPKEEP_INTERVAL_MIN_S = 1.0
UPKEEP_INTERVAL_MAX_S = 30.0
INTRODUCED_S = 30.0
"""A newcomer keeps its place at a full bootstrap peer for so long: time to ask for peers and to dial them."""
RETIRED_FOR_S = 600.0
"""A neighbour that was exchanged for a stranger is not dialled for so long: it is to meet others, too."""
CROSSING_S = 5.0
"""Links opened from both ends within this time crossed; a later one means the first is dead for its opener."""
PROBE_S = 5.0
"""How long a doubted link has to answer a ping."""
REFUSED_FOR_S = 600.0
"""A peer of another network is not dialled again for ten minutes: somebody may be upgrading it."""


@dataclass(frozen=True, slots=True)
class MembershipSettings:
    """`neighbours_target`: links to nodes this peer seeks (0: it only answers). `links_max`: all it holds."""

    neighbours_target: int = 8
    links_max: int = 32
    interval_max_s: float = UPKEEP_INTERVAL_MAX_S  # less for owners with duties of their own on that timer


@dataclass(frozen=True, slots=True)
class Rivals:
    """Two live links claiming one peer id with different instances."""

    older: LinkId
    newer: LinkUp
    doubted_until: float


class Membership:
    """Owns the view and the links. Methods take `now` and give effects."""

    def __init__(self, own: Hello, peer: PeerId, settings: MembershipSettings, rng: random.Random) -> None:
        self._own = own
        self._peer = peer
        self._settings = settings
        self._rng = rng
        self.view = View(peer, rng, max(VIEW_MAX, 2 * settings.links_max))
        self.watch = PartitionWatch()
        self._dialling = Dialling(self.view, settings.neighbours_target, settings.links_max, self.watch, rng)
        self._by_link: dict[LinkId, PeerEntry] = {}
        self._rivals: dict[PeerId, Rivals] = {}
        self._introductions = Introductions(self.view, rng)
        self._upkeep_at = math.inf  # timers that fire before are stale
        self.identity_conflict: str | None = None

    def neighbours(self) -> list[PeerEntry]:
        """Linked peers that train, in the order they were met."""
        return [entry for entry in self.view.linked() if entry.role is Role.NODE]

    @property
    def links(self) -> dict[LinkId, PeerId]:
        """Those that count."""
        return {link: entry.peer for link, entry in self._by_link.items()}

    def peer_of(self, link: LinkId) -> PeerId | None:
        entry = self._by_link.get(link)
        return entry.peer if entry is not None else None

    def link_of(self, peer: PeerId) -> LinkId | None:
        entry = self.view.get(peer)
        return entry.link if entry is not None else None

    def start(self, now: float) -> list[Effect]:
        self._upkeep_at = now
        return self.maintain(now)

    def on_found(self, event: PeerFound, now: float) -> list[Effect]:
        if event.peer == self._peer:
            if event.instance is not None and event.instance != self._own.instance:
                return self._conflict(f"announced at {', '.join(event.addresses) or 'an unknown address'}")
            return []
        entry = self.view.found(event.peer, event.addresses, event.found_by)
        return self._dialling.dial(lambda: [entry], now) if entry is not None else []

    def on_dial_failed(self, peer: PeerId, reason: str, now: float) -> list[Effect]:
        entry = self.view.get(peer)
        if entry is not None:
            self._dialling.failed(entry, reason, now)
        return self._soon(now)

    def on_refused(self, peer: PeerId, why: str, now: float) -> list[Effect]:
        entry = self.view.found(peer, (), FoundBy.PEERS)  # worth no more than hearsay
        if entry is None:
            return []
        told_before = entry.refusal == why
        entry.dialling, entry.refusal, entry.dial_at = False, why, now + REFUSED_FOR_S
        return [] if told_before else [Report("peer-refused", {"peer": peer, "difference": why})]

    def on_link_up(self, event: LinkUp, now: float) -> list[Effect]:
        """Adopts the link, or closes it with the reason. Callers look at `link_of` afterwards."""
        if event.peer == self._peer:
            effects: list[Effect] = [CloseLink(event.link, "this is myself")]
            if event.hello.instance != self._own.instance:
                effects = [Send(event.link, IdentityInUse(self._own.instance)), *effects]
                effects += self._conflict(f"another device answered at {event.address}")
            return effects
        why = difference(self._own, event.hello)
        if why is not None:
            return [CloseLink(event.link, why), *self.on_refused(event.peer, why, now)]
        entry = self.view.found(event.peer, event.hello.addresses, FoundBy.INBOUND)
        if entry is None:
            return [CloseLink(event.link, "view full")]
        if event.outbound:
            entry.dialling = False  # a dial of ours under way answers by itself
        if entry.link is not None:
            return self._second_link(entry, event, now)
        room = self._make_room(now) if len(self._by_link) >= self._settings.links_max else []
        if len(self._by_link) >= self._settings.links_max:
            return [CloseLink(event.link, f"already {len(self._by_link)} links")]
        return [*room, *self._adopt(entry, event, now)]

    def _make_room(self, now: float) -> list[Effect]:
        """A full bootstrap peer parts with somebody who has been introduced: newcomers come first."""
        if self._own.role is not Role.BOOTSTRAP:
            return []
        settled = [entry for entry in self.view.linked() if now - (entry.linked_at or 0.0) >= INTRODUCED_S]
        return self._part(self._rng.choice(settled), "room for newcomers", now) if settled else []

    def _part(self, entry: PeerEntry, reason: str, now: float) -> list[Effect]:
        """End a link in good faith."""
        link = entry.link
        assert link is not None
        del self._by_link[link]
        self.view.unlink(entry)
        entry.dial_at, entry.left = now + RETIRED_FOR_S, True
        return [Send(link, Goodbye(reason)), CloseLink(link, reason)]

    def on_link_down(self, link: LinkId, reason: str, fault: bool, now: float) -> list[Effect]:
        entry = self._by_link.pop(link, None)
        for rival_peer, rivals in list(self._rivals.items()):
            if rivals.newer.link == link:
                del self._rivals[rival_peer]
        if entry is None or entry.link != link:
            return []
        self.view.unlink(entry)
        linked_at = entry.linked_at or 0.0
        if now - linked_at < CROSSING_S and entry.bulk_at < linked_at:
            self._dialling.failed(entry, reason, now)  # a link that dies at once is no better than a failed dial
        else:
            entry.failures, entry.last_failure = 0, reason
            entry.dial_at = now + self._rng.uniform(0.2, 1.0)
        self._introductions.hurry()
        if entry.role is Role.BOOTSTRAP:
            self._dialling.lost_bootstrap(entry, now)
        effects: list[Effect] = [Report("neighbour-lost", {"peer": entry.peer, "reason": reason, "fault": fault})]
        if fault:
            effects += self.on_refused(entry.peer, reason, now)
        elif self._own.role is Role.NODE is entry.role and now - (entry.linked_at or 0.0) >= CROSSING_S:
            effects += self._suspect(self.watch.lost(entry.peer, self.view.nodes_linked, now), now)
        waiting = self._rivals.pop(entry.peer, None)
        if waiting is not None:
            effects += self._adopt(entry, waiting.newer, now)
        return effects + self._soon(now)

    def on_heard(self, link: LinkId, bulk: bool, now: float) -> list[Effect]:
        """Any message proves its link alive; on a doubted link it proves a copied identity. `bulk`: parts travel."""
        entry = self._by_link.get(link)
        if entry is None:
            return []
        entry.heard_at = now
        entry.misses = 0
        if bulk:
            entry.bulk_at = now
        return self._copied(entry) if self._rivals else []

    def _copied(self, entry: PeerEntry) -> list[Effect]:
        """The doubted link is alive: two devices use this identity. Both are told, the newer has to go."""
        rivals = self._rivals.pop(entry.peer, None)
        if rivals is None:
            return []
        return [
            Send(rivals.older, IdentityInUse(rivals.newer.hello.instance)),
            Send(rivals.newer.link, IdentityInUse(entry.instance or 0)),
            CloseLink(rivals.newer.link, "this identity is in use by another device"),
            Report("identity-copied", {"peer": entry.peer, "address": rivals.newer.address}),
        ]

    def on_message(self, link: LinkId, message: object, now: float) -> list[Effect] | None:
        """Effects of a membership message; None where it is not one."""
        match message:
            case Ping(nonce=nonce):
                return [Send(link, Pong(nonce))]
            case Pong(nonce=nonce):
                answered(self._by_link[link], nonce, now)
                return []
            case PeersAsk(count=count):
                return self._introductions.answer(link, self._by_link[link].peer, count, now)
            case PeersTold(peers=peers):
                entries = [self.view.found(record.peer, record.addresses, FoundBy.PEERS) for record in peers]
                return self._dialling.dial(lambda: [entry for entry in entries if entry is not None], now)
            case Goodbye(reason=reason):
                return self._goodbye(self._by_link[link], link, reason, now)
            case IdentityInUse():
                return self._conflict(f"{self._by_link[link].peer} is linked to both")
        return None

    def on_probe_over(self, link: LinkId, now: float) -> list[Effect]:
        """The doubted link did not answer: it is dead, the newer one takes its place."""
        peer = self.peer_of(link)
        rivals = self._rivals.get(peer) if peer is not None else None
        if rivals is None or rivals.older != link or now < rivals.doubted_until:
            return []
        return [CloseLink(link, "silent after a restart"), *self.on_link_down(link, "restarted", False, now)]

    def maintain(self, now: float) -> list[Effect]:
        """The timer fired: upkeep, unless it was done earlier and the timer is stale."""
        if now < self._upkeep_at:
            return []
        self._upkeep_at = -math.inf  # under way: what it does brings nothing forward
        effects: list[Effect] = []
        due = self._check_links(now, effects)
        effects += [*self._dialling.dial(self.view.entries, now), *self._dialling.reach_out(now)]
        if self._dialling.seeking:
            effects += self._introductions.ask(list(self._by_link), now)
        effects += self._introductions.remember_in_time(now)
        self._upkeep_at = math.inf
        return effects + self._upkeep(min(due, self._next_dial(now)), now)

    def _check_links(self, now: float, effects: list[Effect]) -> float:
        """Pings, suspects and closes; gives when a link is to be looked at next."""
        due = now + self._settings.interval_max_s
        for entry in self.view.linked():
            assert entry.link is not None
            look, at = look_at(entry, now)
            if look is Look.LOST:
                silent_s = now - entry.heard_at
                effects.append(CloseLink(entry.link, f"silent for {silent_s:.0f} s"))
                effects += self.on_link_down(entry.link, f"silent for {silent_s:.0f} s", False, now)
                continue
            if look is not Look.WAIT:
                effects += ping(entry, None if look is Look.MISS else self._rng.getrandbits(32), now)
                at = look_at(entry, now)[1]
            due = min(due, at)
        return due

    def _next_dial(self, now: float) -> float:
        """When somebody is to be dialled or asked next, if nothing happens before."""
        asks_at = self._introductions.next_ask_at if self._by_link and self._dialling.seeking else math.inf
        return min(asks_at, self._dialling.next_at(now), self._dialling.next_reach_at(now))

    def _soon(self, now: float) -> list[Effect]:
        """Something may be due before the next upkeep."""
        return self._upkeep(now, now) if self._upkeep_at < math.inf else []

    def _upkeep(self, at: float, now: float) -> list[Effect]:
        at = max(at, now + UPKEEP_INTERVAL_MIN_S)
        if at >= self._upkeep_at:
            return []
        self._upkeep_at = at
        return [SetTimer(Timer(TimerKind.MAINTAIN), at)]

    def swapped(self, link: LinkId, swaps: int, now: float) -> list[Effect]:
        """A swap that this side began is over, its `swaps`-th: some peers are told and asked along with it."""
        entry = self._by_link.get(link)
        if entry is None:
            return []
        return [*self._introductions.shuffle(link, entry.peer, now), *self._dialling.rotate(swaps, now)]

    def sized(self, figures: Figures | None, now: float) -> list[Effect]:
        """What the network-wide counters say of a cut."""
        suspicion, over = self.watch.sized(figures, now)
        return self._suspect(suspicion, now) + ([_partition_over("the network has its size again")] if over else [])

    def _suspect(self, suspicion: Suspicion | None, now: float) -> list[Effect]:
        """A new suspicion: what is missing is dialled soon, whatever its back-off was."""
        if suspicion is None:
            return []
        for entry in self.view.met():
            if entry.link is None and self.watch.missing(entry.peer):
                entry.dial_at = min(entry.dial_at, now + self._rng.uniform(0.2, DIAL_BACKOFF_MISSING_MAX_S))
        return [Report("partition-suspected", {"why": suspicion.sentence}), *self._soon(now)]

    def part(self, newest: PeerId, spared: PeerId | None, now: float) -> list[Effect]:
        """Part with one neighbour where `newest` was dialled in exchange for it. `spared` is in a swap."""
        entry = self.view.get(newest)
        leaves = self._dialling.exchanged(entry, spared) if entry is not None else None
        if leaves is None:
            return []
        exchanged = Report("neighbour-exchanged", {"peer": leaves.peer, "by": newest})
        return [*self._part(leaves, "exchanged for another neighbour", now), exchanged]

    def goodbyes(self, reason: str) -> list[Effect]:
        return [*(Send(link, Goodbye(reason)) for link in self._by_link), *self._introductions.remember()]

    def _adopt(self, entry: PeerEntry, event: LinkUp, now: float) -> list[Effect]:
        self.view.link(entry, event.link, event.hello.role)
        entry.instance = event.hello.instance
        entry.name, entry.refusal, entry.outbound = event.hello.name, None, event.outbound
        entry.encoding = event.hello.encoding
        entry.linked_at = entry.heard_at = now
        self._by_link[event.link] = entry
        fields: dict[str, str | int | float | bool | None] = {
            "peer": entry.peer,
            "name": entry.name,
            "role": event.hello.role.value,
            "address": event.address,
            "found_by": entry.found_by.value,
            "clock_skew_s": round(event.clock_skew_s, 1),
        }
        over = [_partition_over(f"{entry.name or entry.peer} is back")] if self.watch.found(entry.peer) else []
        asked: list[Effect] = [
            Report("neighbour-linked", fields),
            *over,
            Send(event.link, PeersAsk(PEERS_TOLD_MAX)),
            *ping(entry, self._rng.getrandbits(32), now),  # how long its answers take is known from the start
            *self._introductions.first_remembered(now),
        ]
        return asked + self._soon(now) if self._dialling.wanted(now) else asked

    def _second_link(self, entry: PeerEntry, event: LinkUp, now: float) -> list[Effect]:
        assert entry.link is not None
        if event.hello.instance != entry.instance:
            if entry.peer in self._rivals:
                return [CloseLink(event.link, "one doubted link at a time")]
            self._rivals[entry.peer] = Rivals(entry.link, event, now + PROBE_S)
            return [
                Send(entry.link, Ping(self._rng.getrandbits(32))),
                SetTimer(Timer(TimerKind.PROBE, str(entry.link)), now + PROBE_S),
            ]
        copied = self._copied(entry)  # the old instance just shook hands again
        crossed = event.outbound != entry.outbound and now - (entry.linked_at or 0.0) < CROSSING_S
        if crossed and event.outbound != (self._peer < entry.peer):
            return [*copied, CloseLink(event.link, "a link with this peer stands")]
        old = entry.link
        del self._by_link[old]
        self.view.unlink(entry)
        return [*copied, CloseLink(old, "replaced by a newer link"), *self._adopt(entry, event, now)]

    def _goodbye(self, entry: PeerEntry, link: LinkId, reason: str, now: float) -> list[Effect]:
        del self._by_link[link]
        self.view.unlink(entry)
        entry.failures, entry.dial_at, entry.left = 3, now + 8.0, True  # it said goodbye: no hurry
        if entry.role is Role.BOOTSTRAP:
            self._dialling.lost_bootstrap(entry, now)
        left = Report("neighbour-left", {"peer": entry.peer, "reason": reason})
        effects: list[Effect] = [CloseLink(link, "goodbye"), left]
        waiting = self._rivals.pop(entry.peer, None)
        if waiting is not None:
            effects += self._adopt(entry, waiting.newer, now)  # it is back already, as a new instance
        return effects + self._soon(now)

    def _conflict(self, where: str) -> list[Effect]:
        """Somebody else runs with this identity: say so once per place."""
        told_before = self.identity_conflict == where
        self.identity_conflict = where
        return [] if told_before else [Report("identity-in-use", {"where": where})]


def _partition_over(why: str) -> Report:
    return Report("partition-over", {"why": why})
