"""Whom to dial and when: neighbours and a bootstrap peer where they are wanting, lost peers, now and then a stranger.

A node that is content with its neighbours still exchanges one of them for a stranger every ROTATE_SWAPS swaps, so that
links, like the view, stay a random sample of the network (as in Epidemic Learning, de Vos et al. 2023, but slower: a
link costs a handshake).
"""

import math
import random
from collections.abc import Callable, Iterable

from p2pfed.core.events import Dial, Effect, FoundBy
from p2pfed.core.messages import Role
from p2pfed.core.partition import PartitionWatch
from p2pfed.core.view import DIAL_BACKOFF_MAX_S, DIAL_BACKOFF_MISSING_MAX_S, PeerEntry, View
from p2pfed.ports import PeerId

DIALS_AT_ONCE = 4
REACH_OUT_INTERVAL_S = 60.0
"""Between two dials of lost peers by a node with neighbours enough: the halves of a cut network meet again."""
REACH_OUT_URGENT_S = 5.0
"""The same while a cut is suspected. Of a network's half each node does it, so the first bridge stands at once."""
ROTATE_SWAPS = 32
"""Swaps between two strangers: eight neighbours have had four turns each. Every 8 swaps mixed no better in simulation,
and young links are pinged more often: a third more messages."""
BOOTSTRAP_AWAY_MIN_S = 600.0
BOOTSTRAP_AWAY_MAX_S = 21_600.0
"""A node content with its neighbours that lost its bootstrap peer, or its place there, comes back after ten minutes,
then each time twice as late: 20,000 nodes are one visit a second to it."""


class Dialling:
    """Chooses among the entries of a view. Marks those it dials; whoever carries the dial out reports its end."""

    def __init__(self, view: View, target: int, links_max: int, watch: PartitionWatch, rng: random.Random) -> None:
        self._view = view
        self._target = target
        self._links_max = links_max
        self._watch = watch
        self._rng = rng
        self._reached_out_at = 0.0
        self._rotated_at_swap = 0
        self._stranger: PeerId | None = None
        """Dialled last in exchange for a neighbour."""
        self._visit_at = 0.0
        self._away_s = BOOTSTRAP_AWAY_MIN_S

    @property
    def seeking(self) -> bool:
        return self._view.nodes_linked < self._target

    def wanted(self, now: float) -> bool:
        """Neighbours are wanting, or a bootstrap peer, where one is known and it is time to visit it."""
        return self._target > 0 and (self.seeking or self._visits(now))

    def dial(self, candidates: Callable[[], Iterable[PeerEntry]], now: float) -> list[Effect]:
        """Dial due candidates while neighbours are wanting; one bootstrap peer is enough."""
        if not self.wanted(now):
            return []
        under_way = sum(entry.dialling for entry in self._view.entries())
        room = self._target - self._view.nodes_linked - under_way
        wants_bootstrap = self._lacks_bootstrap()
        due = [entry for entry in candidates() if entry.can_dial(now)]
        self._rng.shuffle(due)
        effects: list[Effect] = []
        for entry in due:
            bootstrap = is_bootstrap(entry)
            wanted = wants_bootstrap if bootstrap else room > 0
            if not wanted or under_way >= DIALS_AT_ONCE:
                continue
            effects.append(self._begin(entry))
            under_way += 1
            room -= 0 if bootstrap else 1
        return effects

    def reach_out(self, now: float) -> list[Effect]:
        """Content with its neighbours, a node still dials a peer it lost now and then: it may be behind a cut."""
        interval_s = REACH_OUT_URGENT_S if self._watch.urgent(now) else REACH_OUT_INTERVAL_S
        if now - self._reached_out_at < interval_s or not self._content():
            return []
        self._reached_out_at = now
        lost = [e for e in self._view.met() if e.role is Role.NODE and not e.left and e.can_dial(now)]
        missing = [entry for entry in lost if self._watch.missing(entry.peer)]
        return [self._begin(self._rng.choice(missing or lost))] if lost else []

    def rotate(self, swaps: int, now: float) -> list[Effect]:
        """After so many swaps of this node: dial a peer it was never linked to."""
        if swaps - self._rotated_at_swap < ROTATE_SWAPS or not self._content():
            return []
        self._rotated_at_swap = swaps
        strangers = [
            entry
            for entry in self._view.entries()
            if entry.linked_at is None and not is_bootstrap(entry) and entry.can_dial(now)
        ]
        if not strangers:
            return []
        chosen = self._rng.choice(strangers)
        self._stranger = chosen.peer
        return [self._begin(chosen)]

    def exchanged(self, newest: PeerEntry, spared: PeerId | None) -> PeerEntry | None:
        """The neighbour to part with, now that the stranger dialled for it is linked; `spared` is in a swap."""
        if newest.peer != self._stranger:
            return None
        self._stranger = None
        if self._view.nodes_linked <= self._target:
            return None
        kept = (newest.peer, spared)
        others = [entry for entry in self._view.linked() if entry.role is Role.NODE and entry.peer not in kept]
        return self._rng.choice(others) if others else None

    def failed(self, entry: PeerEntry, reason: str, now: float) -> None:
        missing = self._watch.missing(entry.peer) and self._watch.urgent(now)
        self._view.failed(entry, reason, now, DIAL_BACKOFF_MISSING_MAX_S if missing else DIAL_BACKOFF_MAX_S)
        if is_bootstrap(entry):
            self.stay_away(now)

    def lost_bootstrap(self, entry: PeerEntry, now: float) -> None:
        """Its link is over; one that has stood for long is worth a visit sooner."""
        if now - (entry.linked_at or now) >= BOOTSTRAP_AWAY_MIN_S:
            self._away_s = BOOTSTRAP_AWAY_MIN_S
        self.stay_away(now)

    def stay_away(self, now: float) -> None:
        """From bootstrap peers, as long as neighbours are there."""
        self._visit_at = now + self._away_s * self._rng.uniform(0.5, 1.0)
        self._away_s = min(BOOTSTRAP_AWAY_MAX_S, 2.0 * self._away_s)

    def next_at(self, now: float) -> float:
        """When somebody is to be dialled next, if nothing happens before."""
        if self.wanted(now):
            return min((entry.dial_at for entry in self._view.entries() if entry.can_dial(math.inf)), default=math.inf)
        return self._visit_at if self._target > 0 and self._lacks_bootstrap() else math.inf

    def next_reach_at(self, now: float) -> float:
        """When a content node dials the other side of a suspected cut again."""
        return self._reached_out_at + REACH_OUT_URGENT_S if self._watch.urgent(now) else math.inf

    def _content(self) -> bool:
        links = len(self._view.linked())
        return self._target > 0 and not self.seeking and links < self._links_max

    def _visits(self, now: float) -> bool:
        return now >= self._visit_at and self._lacks_bootstrap()

    def _lacks_bootstrap(self) -> bool:
        return self._view.knows_bootstrap and not any(entry.role is Role.BOOTSTRAP for entry in self._view.linked())

    def _begin(self, entry: PeerEntry) -> Dial:
        entry.dialling = True
        return Dial(entry.peer, entry.addresses)


def is_bootstrap(entry: PeerEntry) -> bool:
    return entry.found_by is FoundBy.BOOTSTRAP or entry.role is Role.BOOTSTRAP
