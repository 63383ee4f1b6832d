"""One push-pull swap at a time: offer, accept, parts both ways, ready both ways, commit, done.

Both partners mix or neither does, up to the last acknowledgement. The initiator commits once both
hold and have admitted the other's version; a commit without its done is counted as half done. A swap belongs to a
peer, not to a link: when a link breaks and another comes up in time, both go on where they were.
One at a time, because a node that mixes with two partners from one version would count itself twice.
"""

import random
from collections import OrderedDict
from dataclasses import dataclass, field

from p2pfed.core.estimate import NetworkEstimate
from p2pfed.core.events import Admit, Adopt, Effect, Forget, LinkId, Mix, Report, Send, SetTimer, Timer, TimerKind
from p2pfed.core.messages import (
    RETRY_AFTER_S_MAX,
    DeclineReason,
    Part,
    PartMissing,
    SwapAbort,
    SwapAccept,
    SwapCommit,
    SwapDecline,
    SwapDone,
    SwapOffer,
    SwapReady,
    Terms,
    Version,
)
from p2pfed.core.mixing import Outcome, outcome_of, weight_of
from p2pfed.core.patience import STALL_MIN_S, Partners, Patience
from p2pfed.core.statistics import SwapStatistics
from p2pfed.core.transfer import Fetch
from p2pfed.core.turns import Turns
from p2pfed.ports import PeerId

RETRY_AFTER_FIRST_S = 0.2
"""Told to an asker while busy, before this node knows how long its swaps take."""
RETRY_AFTER_MAX_S = 60.0
ABORTED_REST_S = 1.0
"""Rest of a neighbour whose swap was given up, doubled with each in a row."""
BUSY_SMOOTHING = 0.7
"""Weight of the past in the time a swap keeps this node busy: about three swaps."""
ENDED_KEPT = 32
"""Swaps remembered after their end, so that a repeated commit is answered with done."""


@dataclass(slots=True)
class Swap:
    """State of the swap under way. Owned by Exchange."""

    number: int
    peer: PeerId
    initiator: bool
    own: Version
    terms: Terms
    patience: Patience
    theirs: Version | None = None
    their_terms: Terms | None = None
    outcome: Outcome | None = None
    fetch: Fetch | None = None
    """None until both versions are known, and where the partner's is not needed."""
    admitting: bool = False
    admitted: bool = False
    peer_ready: bool = False
    committed: bool = False
    asked: dict[int, None] = field(default_factory=dict)
    """Parts of the own version that the partner has asked for."""

    @property
    def serving(self) -> bool:
        """This side holds all it needs, and its partner may still fetch."""
        return self.admitted and not self.peer_ready


class Exchange:
    """Owns the current swap. `busy` until the protocol is over and the mix is applied."""

    def __init__(
        self,
        peer: PeerId,
        weight: int,
        statistics: SwapStatistics,
        estimate: NetworkEstimate,
        turns: Turns,
        rng: random.Random,
    ) -> None:
        self._peer = peer
        self._weight = weight
        self._statistics = statistics
        self._estimate = estimate
        self._turns = turns
        self._rng = rng
        self.swap: Swap | None = None
        self.settled = False
        """Whether this run has taken part in a mix."""
        self._mixing: int | None = None
        self._adopting = False
        self._busy_since = 0.0
        self._busy_s: float | None = None
        self._ended: OrderedDict[tuple[PeerId, int], bool] = OrderedDict()
        self._partners = Partners()
        self._stall_timer_at: float | None = None

    @property
    def busy(self) -> bool:
        return self.swap is not None or self._mixing is not None

    @property
    def retry_after_s(self) -> float:
        """How long to leave this node alone while it is busy: as long as it usually is."""
        return min(RETRY_AFTER_MAX_S, self._busy_s) if self._busy_s is not None else RETRY_AFTER_FIRST_S

    @property
    def usual_s(self) -> float:
        """How long a swap and its mix usually keep this node busy; 0 before the first."""
        return self._busy_s if self._busy_s is not None else 0.0

    @property
    def ended_kept(self) -> int:
        """How many ended swaps are remembered."""
        return len(self._ended)

    def begin(self, peer: PeerId, link: LinkId, own: Version, now: float) -> list[Effect]:
        assert not self.busy
        patience = self._partners.begin(peer, now)
        self.swap = Swap(self._rng.getrandbits(53), peer, True, own, self._terms(), patience)
        self._busy_since = now
        self._statistics.begun += 1
        return [
            Send(link, SwapOffer(self.swap.number, own, self.swap.terms)),
            *self._stall_timer(now),
            Report("swap-begun", {"peer": peer}),
        ]

    def on_offer(self, peer: PeerId, link: LinkId, offer: SwapOffer, own: Version | None, now: float) -> list[Effect]:
        """Answer an offer. `own` None: nothing published yet."""
        swap = self.swap
        if swap is not None and swap.peer == peer and swap.number == offer.swap and not swap.initiator:
            return [Send(link, SwapAccept(swap.number, swap.own, swap.terms))]  # repeated over a new link
        if swap is not None and swap.peer == peer and swap.initiator and swap.theirs is None:
            if self._peer < peer:
                return []  # crossing offers: the smaller id's stands, they will accept ours
            self._statistics.declined += 1
            self.swap = swap = None
        if own is None:
            return [Send(link, SwapDecline(offer.swap, DeclineReason.NOT_READY, self.retry_after_s))]
        if self.busy or self._partners.avoided_s(peer, now) > 0.0:
            retry_after_s = max(self.retry_after_s, self._partners.avoided_s(peer, now))
            return [Send(link, SwapDecline(offer.swap, DeclineReason.BUSY, retry_after_s))]
        if offer.version.size != own.size:
            problem = Report("swap-size", {"peer": peer, "size": offer.version.size, "own_size": own.size})
            return [Send(link, SwapDecline(offer.swap, DeclineReason.SIZE, RETRY_AFTER_S_MAX)), problem]
        self.swap = Swap(offer.swap, peer, False, own, self._terms(), self._partners.begin(peer, now))
        self._busy_since = now
        self._statistics.answered += 1
        effects: list[Effect] = [Send(link, SwapAccept(offer.swap, own, self.swap.terms)), *self._stall_timer(now)]
        return effects + self._learnt(self.swap, offer.version, offer.terms, link, now)

    def on_accept(self, peer: PeerId, link: LinkId, accept: SwapAccept, now: float) -> list[Effect]:
        swap = self._current(peer, accept.swap)
        if swap is None:
            return [Send(link, SwapAbort(accept.swap, "no such swap"))]
        if not swap.initiator or swap.theirs is not None:
            return []
        if accept.version.size != swap.own.size or accept.version.encoding != swap.own.encoding:
            return self.abort(
                f"its version has {accept.version.size} bytes of {accept.version.encoding.value}, "
                f"ours {swap.own.size} of {swap.own.encoding.value}",
                link,
                now,
            )
        swap.patience.progressed(now)
        return self._learnt(swap, accept.version, accept.terms, link, now)

    def on_part(self, peer: PeerId, link: LinkId, part: Part, now: float) -> list[Effect]:
        swap = self.swap
        if swap is None or swap.peer != peer or swap.fetch is None or swap.fetch.version.digest != part.digest:
            return []  # late part of a swap given up
        effects = swap.fetch.on_part(link, part, now)
        if effects:
            swap.patience.took(now)  # a part that was held already is none
        return effects + self._admit_if_complete(swap)

    def on_part_asked(self, peer: PeerId, digest: bytes, indexes: tuple[int, ...], now: float) -> None:
        """The partner still fetches: progress, where it asks for parts it has not asked for before."""
        swap = self.swap
        if swap is None or swap.peer != peer or swap.own.digest != digest:
            return
        known = len(swap.asked)
        swap.asked.update(dict.fromkeys(indexes))
        if len(swap.asked) > known:
            swap.patience.gave(now)

    def on_part_missing(self, peer: PeerId, missing: PartMissing, link: LinkId, now: float) -> list[Effect]:
        swap = self.swap
        if swap is None or swap.peer != peer or swap.fetch is None or swap.fetch.version.digest != missing.digest:
            return []  # late word of a swap given up
        return self.abort("partner dropped its version", link, now)

    def awaits(self, digest: bytes) -> bool:
        """True while the learner looks at this version for the swap under way."""
        swap = self.swap
        return swap is not None and swap.admitting and swap.fetch is not None and swap.fetch.version.digest == digest

    def on_admitted(self, digest: bytes, link: LinkId | None, now: float) -> list[Effect]:
        """The learner found nothing wrong. `link` None: no link at present, `resume` will tell."""
        swap = self.swap
        if swap is None or not self.awaits(digest):
            return []
        swap.admitting, swap.admitted = False, True
        swap.patience.held(swap.own.size, now)
        effects: list[Effect] = [Send(link, SwapReady(swap.number))] if link is not None else []
        return effects + self._commit_if_ready(swap, link)

    def on_ready(self, peer: PeerId, link: LinkId, ready: SwapReady, now: float) -> list[Effect]:
        swap = self._current(peer, ready.swap)
        if swap is None:
            mixed = self._ended.get((peer, ready.swap), False)
            return [] if mixed else [Send(link, SwapAbort(ready.swap, "no such swap"))]
        if not swap.peer_ready:
            swap.peer_ready = True
            swap.patience.progressed(now)
        return self._commit_if_ready(swap, link)

    def on_commit(self, peer: PeerId, link: LinkId, commit: SwapCommit, now: float) -> list[Effect]:
        swap = self._current(peer, commit.swap)
        if swap is None or swap.initiator or not swap.admitted:
            mixed = self._ended.get((peer, commit.swap), False)
            return [Send(link, SwapDone(commit.swap) if mixed else SwapAbort(commit.swap, "given up"))]
        return [*self._mix(swap), Send(link, SwapDone(swap.number)), *self._end(swap, True, now)]

    def on_done(self, peer: PeerId, done: SwapDone, now: float) -> list[Effect]:
        swap = self._current(peer, done.swap)
        return self._end(swap, True, now) if swap is not None and swap.committed else []

    def on_declined(self, peer: PeerId, decline: SwapDecline) -> bool:
        """True where it ended the offer under way: its partner should rest for `retry_after_s`."""
        swap = self._current(peer, decline.swap)
        if swap is None or not swap.initiator or swap.theirs is not None:
            return False
        self.swap = None
        self._statistics.declined += 1
        return True

    def on_aborted(self, peer: PeerId, abort: SwapAbort, now: float) -> list[Effect]:
        swap = self._current(peer, abort.swap)
        return self._give_up(swap, f"peer: {abort.reason}", now) if swap is not None else []

    def on_mixed(self, number: int, distance: float, norm: float, kept: float, now: float) -> None:
        if self._mixing == number:
            self._mixing = None
            self._rested(now)
        if self._adopting:
            self._adopting = False
            self._statistics.adopted += 1
        else:
            self._statistics.mixed(distance, norm, kept)

    def on_link_lost(self, now: float) -> list[Effect]:
        """The partner is not reachable any more: it has a while to come back."""
        if self.swap is None:
            return []
        self.swap.patience.lost(now)
        return self._stall_timer(now)

    def resume(self, peer: PeerId, link: LinkId, now: float) -> list[Effect]:
        """A new link with the partner: say again what may have been lost."""
        swap = self.swap
        if swap is None or swap.peer != peer:
            return []
        swap.patience.back(now)
        if swap.initiator and swap.theirs is None:
            return [Send(link, SwapOffer(swap.number, swap.own, swap.terms))]
        if swap.committed:
            return [Send(link, SwapCommit(swap.number))]
        if swap.admitted:
            return [Send(link, SwapReady(swap.number))]
        if swap.fetch is None or swap.admitting:
            return []
        swap.patience.asked(now)
        return swap.fetch.resume(link, now)

    def on_stall_timer(self, link: LinkId | None, now: float) -> list[Effect]:
        """`link` None: the partner is not reachable at present."""
        if self._stall_timer_at is None or now < self._stall_timer_at:
            return []  # an earlier one has taken its place
        self._stall_timer_at = None
        swap = self.swap
        if swap is None:
            return []
        if swap.admitting:
            swap.patience.progressed(now)  # our own learner is at work, the peer is not to blame
        if link is None:
            swap.patience.lost(now)  # membership gave the link up
        if now < swap.patience.until(swap.serving):
            return self._stall_timer(now)
        waited_s = now - swap.patience.since
        rest_s = swap.patience.blame(swap.serving, now) or ABORTED_REST_S
        return self.abort(f"no progress for {waited_s:.0f} s", link, now, rest_s)

    def abort(self, reason: str, link: LinkId | None, now: float, rest_s: float = ABORTED_REST_S) -> list[Effect]:
        """Give the swap up and tell the partner where a link stands."""
        swap = self.swap
        if swap is None:
            return []
        tell: list[Effect] = [Send(link, SwapAbort(swap.number, reason[:200]))] if link is not None else []
        return tell + self._give_up(swap, reason, now, rest_s)

    def _current(self, peer: PeerId, number: int) -> Swap | None:
        swap = self.swap
        return swap if swap is not None and swap.peer == peer and swap.number == number else None

    def _terms(self) -> Terms:
        return Terms(self.settled, self._weight, self._estimate.tally())

    def _learnt(self, swap: Swap, theirs: Version, their_terms: Terms, link: LinkId, now: float) -> list[Effect]:
        """Both versions are known: fetch the partner's, or be ready at once where it is not needed."""
        swap.theirs, swap.their_terms = theirs, their_terms
        swap.outcome = outcome_of(swap.own, swap.terms, theirs, their_terms)
        if swap.outcome.fetches:
            swap.fetch = Fetch(theirs)
            swap.patience.asked(now)
            return swap.fetch.resume(link, now) + self._admit_if_complete(swap)
        swap.admitted = True
        swap.patience.held(swap.own.size, now)
        return [Send(link, SwapReady(swap.number)), *self._commit_if_ready(swap, link)]

    def _admit_if_complete(self, swap: Swap) -> list[Effect]:
        if swap.fetch is None or not swap.fetch.complete or swap.admitting or swap.admitted:
            return []
        swap.admitting = True
        return [Admit(swap.fetch.version.digest)]

    def _commit_if_ready(self, swap: Swap, link: LinkId | None) -> list[Effect]:
        if not (swap.initiator and swap.admitted and swap.peer_ready) or swap.committed or link is None:
            return []
        swap.committed = True
        return [*self._mix(swap), Send(link, SwapCommit(swap.number))]

    def _mix(self, swap: Swap) -> list[Effect]:
        """From here on the swap counts: whatever happens, this side has mixed."""
        theirs, their_terms = swap.theirs, swap.their_terms
        assert theirs is not None and their_terms is not None
        self.settled = True
        self._estimate.merge(swap.terms.tally, their_terms.tally)
        self._turns.swapped(swap.peer)
        if swap.outcome is Outcome.ADOPT:
            self._mixing, self._adopting = swap.number, True
            adopted = Report("adapter-adopted", {"peer": swap.peer, "mixes": theirs.mixes, "own_mixes": swap.own.mixes})
            return [Adopt(swap.number, theirs.digest, theirs.mixes), adopted]
        if swap.outcome is not Outcome.MIX:
            return []
        self._mixing = swap.number
        return [Mix(swap.number, swap.own.digest, theirs.digest, weight_of(swap.terms, their_terms))]

    def _end(self, swap: Swap, mixed: bool, now: float) -> list[Effect]:
        self.swap = None
        self._rested(now)
        self._ended[(swap.peer, swap.number)] = mixed
        while len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)
        if mixed:
            swap.patience.rewarded()
            self._statistics.finished += 1
        return [Report("swap-finished", {"peer": swap.peer, "initiator": swap.initiator})] if mixed else []

    def _rested(self, now: float) -> None:
        """The protocol or the mix is over; where both are, learn how long this node was busy."""
        if not self.busy:
            took_s = now - self._busy_since
            known_s = self._busy_s if self._busy_s is not None else took_s
            self._busy_s = BUSY_SMOOTHING * known_s + (1.0 - BUSY_SMOOTHING) * took_s

    def _give_up(self, swap: Swap, reason: str, now: float, rest_s: float = ABORTED_REST_S) -> list[Effect]:
        """After its commit the initiator has mixed and cannot take it back: that is the half-done case."""
        if swap.committed:
            self._statistics.half_done += 1
        else:
            self._statistics.aborted += 1
            self._turns.refused(swap.peer, rest_s, now)  # it is still due, but not with the same one at once
        kind = "swap-half-done" if swap.committed else "swap-aborted"
        effects: list[Effect] = [Report(kind, {"peer": swap.peer, "reason": reason})]
        if swap.fetch is not None and not swap.committed:
            effects.append(Forget(swap.fetch.version.digest))
        return effects + self._end(swap, swap.committed, now)

    def _stall_timer(self, now: float) -> list[Effect]:
        """The earliest counts, and looks at whichever swap is under way when it fires."""
        assert self.swap is not None
        at = min(self.swap.patience.until(self.swap.serving), now + STALL_MIN_S)
        if self._stall_timer_at is not None and self._stall_timer_at <= at:
            return []
        self._stall_timer_at = at
        return [SetTimer(Timer(TimerKind.SWAP_STALL), at)]
