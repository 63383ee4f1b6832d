"""How long the partner of a swap is waited for: learned from its own times, within bounds.

A partner may be silent for a while and go on: its device sleeps, its disk is busy, its network is gone for a moment.
What was fetched by then is lost if the swap is given up too early; given up too late, a dead partner keeps this node
from all others. So each neighbour is held to the times between its parts and between its asks, and a lost link is
waited for as long as the swap had lasted, which is about what it would take to fetch again.
"""

from collections import OrderedDict

from p2pfed.core.deadline import Pace
from p2pfed.core.messages import RETRY_AFTER_S_MAX
from p2pfed.ports import PeerId

STALL_S = 55.0
"""Longest wait for the next part or answer, and that for a neighbour whose times are not known: one part at
64 kbit/s takes 33 s, and it may stall for 20 s besides."""
SERVE_STALL_S = 120.0
"""The same where this side holds all and its partner fetches its last parts, of which nothing is heard before all
have come: two take 66 s at 64 kbit/s, and twice as long where something else shares the line."""
STALL_MIN_S = 30.0
"""Shortest wait while a link stands: over a stall of 20 s, and over the 20 s (idle: 22 s were measured) after which
the transport itself ends a link that carries nothing, so that a swap goes on over the next link instead of ending."""
LOST_MIN_S = 8.0
"""Shortest wait for a new link after one was lost: it is dialled again within 1 s, and a dial over a bad line that
loses two packets takes 4 s."""
PATIENCE = 3.0
"""Times of what is usual, deviation included: the last two parts come without a word between them."""
FLAPS_MAX = 3
"""Links lost or replaced in a row, without any progress, that begin the wait anew: else links that come and go would
hold a swap for ever."""
SERVE_RATE_MIN = 4000.0
"""Bytes a second: with all held here, a partner that takes its parts more slowly than that is given up even if it
goes on, for it may be one that only wants to hold this node. A session cuts a link that is slower still."""
AVOIDED_TIMES_MAX = 16.0
"""A partner that stalled is left alone for as long as it held this node, twice as long with each stall in a row, up to
so many times: a device that slept is soon back, and one that never answers costs a sixteenth of this node's time."""
PARTNERS_KEPT = 64
"""Neighbours whose times are remembered, those met last: more than a node has at once."""


class Partner:
    """What was learned of one neighbour."""

    __slots__ = ("avoided_until", "giving", "stalls", "taking")

    def __init__(self) -> None:
        self.taking = Pace()
        """Between two parts that come from it."""
        self.giving = Pace()
        """Between two asks of it for parts."""
        self.stalls = 0
        """In a row."""
        self.avoided_until = 0.0


class Partners:
    """Neighbours by the swaps this node had with them."""

    def __init__(self) -> None:
        self._known: OrderedDict[PeerId, Partner] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def begin(self, peer: PeerId, now: float) -> "Patience":
        """A swap with this neighbour begins."""
        partner = self._known.setdefault(peer, Partner())
        self._known.move_to_end(peer)
        while len(self._known) > PARTNERS_KEPT:
            self._known.popitem(last=False)
        return Patience(partner, now)

    def avoided_s(self, peer: PeerId, now: float) -> float:
        """How long it is still left alone; 0 for almost all."""
        partner = self._known.get(peer)
        return max(0.0, partner.avoided_until - now) if partner is not None else 0.0


class Patience:
    """With the partner of one swap. `since`: when it last made progress, or when a wait for it began anew."""

    __slots__ = ("_begun", "_flaps", "_given_at", "_held_at", "_linked", "_partner", "_size", "_taken_at", "since")

    def __init__(self, partner: Partner, now: float) -> None:
        self._partner = partner
        self._begun = now
        self.since = now
        self._linked = True
        self._flaps = 0
        self._taken_at: float | None = None
        self._given_at: float | None = None
        self._held_at: float | None = None
        self._size = 0

    def progressed(self, now: float) -> None:
        """It did or said something it had not before."""
        self.since, self._flaps = now, 0

    def asked(self, now: float) -> None:
        """Parts were asked of it, over a link that carried none before."""
        self._taken_at = now

    def took(self, now: float) -> None:
        """A new part came."""
        if self._taken_at is not None:
            self._partner.taking.observe(now - self._taken_at)
        self._taken_at = now
        self.progressed(now)

    def gave(self, now: float) -> None:
        """It asked for parts it had not asked for before."""
        if self._given_at is not None:
            self._partner.giving.observe(now - self._given_at)
        self._given_at = now
        self.progressed(now)

    def held(self, size: int, now: float) -> None:
        """This side needs no more of it; the partner may still need parts of `size` bytes."""
        self._held_at, self._size = now, size
        self.progressed(now)

    def lost(self, now: float) -> None:
        """The link is gone."""
        if self._linked:
            self._linked = False
            self._flap(now)

    def back(self, now: float) -> None:
        """A link stands again: what passed between says nothing of the partner's pace."""
        self._taken_at = self._given_at = None
        if self._linked:  # in place of one whose end was not told
            self._flap(now)
        elif self._flaps <= FLAPS_MAX:
            self.since = now
        self._linked = True

    def until(self, serving: bool) -> float:
        """When to give up. `serving`: this side holds all and its partner does not say so yet."""
        if not self._linked:
            return self.since + min(STALL_S, max(LOST_MIN_S, self.since - self._begun))
        most_s = (SERVE_STALL_S if serving else STALL_S) / PATIENCE
        pace = self._partner.giving if serving else self._partner.taking
        at = self.since + PATIENCE * pace.limit_s(most_s, STALL_MIN_S / PATIENCE, most_s)
        if serving and self._held_at is not None:
            at = min(at, self._held_at + SERVE_STALL_S + self._size / SERVE_RATE_MIN)
        return at

    def blame(self, serving: bool, now: float) -> float:
        """It was given up. Over a standing link: its times tell nothing any more, and it is left alone for so long."""
        if not self._linked:
            return 0.0
        partner = self._partner
        held_s = now - (self._held_at if serving and self._held_at is not None else self.since)
        avoided_s = min(RETRY_AFTER_S_MAX, held_s * min(AVOIDED_TIMES_MAX, 2.0**partner.stalls))
        partner.taking, partner.giving = Pace(), Pace()
        partner.stalls += 1
        partner.avoided_until = now + avoided_s
        return avoided_s

    def rewarded(self) -> None:
        """The swap came to its end."""
        self._partner.stalls = 0

    def _flap(self, now: float) -> None:
        self._flaps += 1
        if self._flaps <= FLAPS_MAX:
            self.since = now
