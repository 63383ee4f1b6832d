"""PeerState: one peer of the network. Composes membership, turns, exchange, library and statistics.

`handle(event, now)` is the whole interface. It never fails for what a stranger says: a RemoteError
from below closes that link, is counted, and changes nothing else.
"""

import random
from dataclasses import dataclass, field

from p2pfed.core.estimate import NetworkEstimate
from p2pfed.core.events import (
    Admitted,
    CloseLink,
    DialFailed,
    Effect,
    Event,
    Finish,
    FoundBy,
    LinkDown,
    LinkId,
    LinkUp,
    MessageReceived,
    Mixed,
    PeerFound,
    PeerRefused,
    Published,
    Report,
    Send,
    SendPart,
    SetTimer,
    Started,
    StepSkipped,
    StopAsked,
    Timer,
    TimerFired,
    TimerKind,
    Train,
    Trained,
)
from p2pfed.core.exchange import Exchange
from p2pfed.core.library import Library
from p2pfed.core.membership import Membership, MembershipSettings
from p2pfed.core.messages import (
    RETRY_AFTER_S_MAX,
    DeclineReason,
    Goodbye,
    Hello,
    Message,
    Part,
    PartAsk,
    PartMissing,
    Role,
    SwapAbort,
    SwapAccept,
    SwapCommit,
    SwapDecline,
    SwapDone,
    SwapOffer,
    SwapReady,
    Version,
    VersionAsk,
    VersionTold,
)
from p2pfed.core.statistics import SwapStatistics
from p2pfed.core.turns import Turns
from p2pfed.core.version import part_length
from p2pfed.errors import RemoteError
from p2pfed.ports import Encoding, PeerId

IDLE = "idle"
"""Key of the timer that paces swaps once training is over."""
BULK = (SwapOffer, SwapAccept, PartAsk, Part, VersionAsk, VersionTold)
"""Messages that parts of adapters follow or precede: until these are through, nothing else may be heard."""
PUBLISH_WAIT_S = 0.2
"""A neighbour rests so long while the learner encodes a version for its link."""


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """A node takes part in one swap for every `steps_between_swaps` local steps; `steps_max` 0: train for ever."""

    steps_between_swaps: int = 4
    steps_max: int = 0
    swap_interval_s: float = 10.0
    weight: int = 1
    """Rows of data, where the network weighs by examples."""
    members: tuple[PeerId, ...] = ()
    """A fixed membership, which swaps by a schedule drawn from `schedule_seed`; empty: random neighbours."""
    schedule_seed: str = ""
    swap_day_bytes: int = 0
    link_day_bytes: int = 0
    """Bytes of adapters a day, both ways, with all and with each neighbour; 0: no limit."""
    membership: MembershipSettings = field(default_factory=MembershipSettings)


class PeerState:
    """State of one node or bootstrap peer (its role is in `own`)."""

    def __init__(self, own: Hello, peer: PeerId, settings: PeerSettings, rng: random.Random) -> None:
        self.own = own
        self.peer = peer
        self.settings = settings
        self._rng = rng
        self.statistics = SwapStatistics()
        self.estimate = NetworkEstimate(rng)
        self.membership = Membership(own, peer, settings.membership, rng)
        self.turns = Turns(
            peer,
            settings.members,
            settings.schedule_seed,
            settings.swap_day_bytes,
            settings.link_day_bytes,
            rng,
        )
        self.exchange = Exchange(peer, settings.weight, self.statistics, self.estimate, self.turns, rng)
        self.library = Library()
        self._retry_pending = False
        self._stopping = False
        self.steps = 0
        self.examples = 0
        self.loss: float | None = None
        self.last_swap_at: float | None = None

    @property
    def training_over(self) -> bool:
        return 0 < self.settings.steps_max <= self.steps

    def handle(self, event: Event, now: float) -> list[Effect]:
        match event:  # the frequent ones first
            case MessageReceived(link=link, message=message):
                return self._on_message(link, message, now)
            case TimerFired(timer=timer):
                return self._on_timer(timer, now)
            case Started():
                return self._on_started(event, now)
            case PeerFound():
                return self.membership.on_found(event, now)
            case DialFailed(peer=peer, reason=reason):
                return self.membership.on_dial_failed(peer, reason, now)
            case PeerRefused(peer=peer, difference=difference):
                return self.membership.on_refused(peer, difference, now)
            case LinkUp():
                return self._on_link_up(event, now)
            case LinkDown(link=link, reason=reason, fault=fault):
                self.statistics.faults += fault
                lost = self.membership.peer_of(link)
                effects = self.membership.on_link_down(link, reason, fault, now)
                return effects + self._restarted(lost, now)
            case Trained():
                return self._on_trained(event, now)
            case StepSkipped(reason=reason):
                return [Report("step-skipped", {"reason": reason})]
            case Admitted():
                return self._on_admitted(event, now)
            case Mixed():
                return self._on_mixed(event, now)
            case Published(version=version):
                return self._on_published(version, now)
            case StopAsked(reason=reason):
                return self._on_stop(reason, now)

    def _on_started(self, event: Started, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for record in event.peers:
            effects += self.membership.on_found(PeerFound(record.peer, record.addresses, FoundBy.REMEMBERED), now)
        effects += self.membership.start(now)
        if self.own.role is Role.NODE:
            effects.append(Train(0))  # publish the start, so that a neighbour's first offer finds something
        return effects

    def _on_link_up(self, event: LinkUp, now: float) -> list[Effect]:
        known = self.membership.view.get(event.peer)
        instance_before = known.instance if known is not None else None
        effects = self.membership.on_link_up(event, now)
        if self.membership.link_of(event.peer) != event.link:
            return effects
        effects += self.membership.part(event.peer, self._swap_peer(), now)
        if instance_before not in (None, event.hello.instance) and self._swap_peer() == event.peer:
            effects += self.exchange.abort("partner restarted", None, now)
        return effects + self.exchange.resume(event.peer, event.link, now) + self._try_swap(now)

    def _on_message(self, link: LinkId, message: Message, now: float) -> list[Effect]:
        peer = self.membership.peer_of(link)
        if peer is None:
            return []  # said before the link was closed
        leaving = isinstance(message, Goodbye)
        effects = [] if leaving else self.membership.on_heard(link, isinstance(message, BULK), now)
        if leaving and self._swap_peer() == peer:
            effects += self.exchange.abort("partner left", None, now)
        try:
            answered = self.membership.on_message(link, message, now)
            if answered is None:
                answered = self._on_swap_message(peer, link, message, now)
        except RemoteError as error:
            answered = self._drop(peer, link, str(error), now)
        return effects + answered + self._try_swap(now)

    def _restarted(self, peer: PeerId | None, now: float) -> list[Effect]:
        """After a loss: where a doubted link took the lost one's place at once, the partner is a new instance."""
        if peer is None or self._swap_peer() != peer:
            return []
        if self.membership.link_of(peer) is None:
            return self.exchange.on_link_lost(now)
        return self.exchange.abort("partner restarted", None, now) + self._try_swap(now)

    def _drop(self, peer: PeerId, link: LinkId | None, reason: str, now: float) -> list[Effect]:
        """The peer is at fault: its swap is given up, its link closed, and it is refused for a while."""
        self.statistics.faults += 1
        effects: list[Effect] = [Report("peer-fault", {"peer": peer, "reason": reason})]
        if self._swap_peer() == peer:
            effects += self.exchange.abort(reason, link, now)
        if link is not None:
            effects += [CloseLink(link, reason), *self.membership.on_link_down(link, reason, True, now)]
        return effects

    def _on_admitted(self, event: Admitted, now: float) -> list[Effect]:
        peer, link = self._swap_peer(), self._swap_link()
        if event.problem is not None and peer is not None and self.exchange.awaits(event.digest):
            return self._drop(peer, link, f"version refused: {event.problem}", now) + self._try_swap(now)
        return self.exchange.on_admitted(event.digest, link, now) + self._try_swap(now)

    def _on_swap_message(self, peer: PeerId, link: LinkId, message: Message, now: float) -> list[Effect]:
        match message:
            case SwapOffer():
                return self._on_offer(peer, link, message, now)
            case SwapAccept():
                return self.exchange.on_accept(peer, link, message, now)
            case SwapDecline():
                return self._on_declined(peer, message, now)
            case Part():
                effects = self.exchange.on_part(peer, link, message, now)
                if effects:
                    self.turns.moved(peer, len(message.data), now)
                return effects
            case SwapReady():
                return self.exchange.on_ready(peer, link, message, now)
            case SwapCommit():
                return self.exchange.on_commit(peer, link, message, now)
            case SwapDone():
                done = self.exchange.on_done(peer, message, now)
                return done + self.membership.swapped(link, self.statistics.finished, now) if done else []
            case SwapAbort():
                return self.exchange.on_aborted(peer, message, now)
            case VersionAsk(encoding=encoding):
                return self._on_version_asked(link, encoding, now)
            case PartAsk():
                return self._on_part_asked(peer, link, message, now)
            case PartMissing():
                return self.exchange.on_part_missing(peer, message, link, now)
        raise RemoteError(f"{type(message).__name__} is out of place here")

    def _on_offer(self, peer: PeerId, link: LinkId, offer: SwapOffer, now: float) -> list[Effect]:
        encoding = self.link_encoding(peer)
        if offer.version.encoding is not encoding:
            raise RemoteError(f"offer in {offer.version.encoding.value}, this link is for {encoding.value}")
        if self._stopping:
            return [Send(link, SwapDecline(offer.swap, DeclineReason.STOPPING, 60.0))]
        wait_s = self.turns.wait_s(peer, offer.version.size, now)
        if wait_s > 0.0:
            return [Send(link, SwapDecline(offer.swap, DeclineReason.BUDGET, min(wait_s, RETRY_AFTER_S_MAX)))]
        own = self.library.current(encoding)
        effects = self.exchange.on_offer(peer, link, offer, own, now)
        return effects if own is not None else [*effects, *self.library.ask(encoding)]

    def _on_part_asked(self, peer: PeerId, link: LinkId, ask: PartAsk, now: float) -> list[Effect]:
        version = self.library.serves(ask.digest, ask.indexes)
        if version is None:
            return [Send(link, PartMissing(ask.digest))]
        if ask.digest != self._swap_digest():
            self.library.pin(ask.digest, now)
        self.exchange.on_part_asked(peer, ask.digest, ask.indexes, now)
        self.turns.moved(peer, sum(part_length(version, index) for index in ask.indexes), now)
        return [SendPart(link, ask.digest, index) for index in ask.indexes]

    def _on_version_asked(self, link: LinkId, encoding: Encoding, now: float) -> list[Effect]:
        """Told at once where it is there; else the learner is asked, and whoever waits is told then."""
        version = self.library.current(encoding)
        if version is None and self.library.current(self.own.encoding) is not None:
            return self.library.ask(encoding, link)
        if version is not None:
            self.library.pin(version.digest, now)
        return [Send(link, VersionTold(version))]

    def _on_published(self, version: Version, now: float) -> list[Effect]:
        waiting = self.library.waiting(version.encoding)
        effects = self.library.add(version, self._swap_digest(), now)
        for link in waiting:
            if self.membership.peer_of(link) is not None:
                self.library.pin(version.digest, now)
                effects.append(Send(link, VersionTold(version)))
        return effects + self._try_swap(now)

    def _on_declined(self, peer: PeerId, message: SwapDecline, now: float) -> list[Effect]:
        if not self.exchange.on_declined(peer, message):
            return []
        self.turns.refused(peer, message.retry_after_s, now)
        kind = "swap-size" if message.reason is DeclineReason.SIZE else "swap-declined"
        return [Report(kind, {"peer": peer, "reason": message.reason.value})]

    def _on_trained(self, event: Trained, now: float) -> list[Effect]:
        stepped = event.loss is not None and event.steps > self.steps
        over_before = self.training_over
        self.steps, self.examples = event.steps, event.examples
        if stepped:
            self.loss = event.loss
        effects = self.library.renew(event.version, self._swap_digest(), now)
        if stepped:
            self.turns.pacing.earn()
            self.estimate.put(loss=event.loss, examples=float(event.examples))
            effects.append(Report("trained", {"steps": event.steps, "loss": event.loss, "examples": event.examples}))
        if self._stopping:
            return effects
        if not self.training_over:
            todo = self.settings.steps_between_swaps
            if self.settings.steps_max:
                todo = min(todo, self.settings.steps_max - self.steps)
            effects.append(Train(todo))
        elif not over_before or not stepped:
            effects += [Report("training-over", {"steps": self.steps}), self._swap_timer(now)]
        return effects + self._try_swap(now)

    def _on_mixed(self, event: Mixed, now: float) -> list[Effect]:
        self.exchange.on_mixed(event.swap, event.distance, event.norm, event.kept, now)
        self.estimate.put(square_distance=self.statistics.square_distance(), square_norm=event.norm**2)
        self.last_swap_at = now
        effects = self.library.renew(event.version, self._swap_digest(), now)
        effects += self.membership.sized(self.estimate.figures(), now)
        fields = {"distance": event.distance, "norm": event.norm, "kept": event.kept}
        return [*effects, Report("mixed", {**fields}), *self._try_swap(now)]

    def _on_timer(self, timer: Timer, now: float) -> list[Effect]:
        match timer.kind:
            case TimerKind.MAINTAIN:
                return [] if self._stopping else self.membership.maintain(now)
            case TimerKind.PROBE:
                peer = self.membership.peer_of(int(timer.key))
                effects = self.membership.on_probe_over(int(timer.key), now)
                return effects + (self._restarted(peer, now) if effects else [])
            case TimerKind.SWAP_STALL:
                effects = self.exchange.on_stall_timer(self._swap_link(), now)
                return effects + self._try_swap(now)
            case TimerKind.SWAP if timer.key == IDLE:
                self.turns.pacing.earn()
                return [self._swap_timer(now), *self._try_swap(now)]
            case TimerKind.SWAP:
                self._retry_pending = False
                return self._try_swap(now)
        return []

    def _on_stop(self, reason: str, now: float) -> list[Effect]:
        """Stop cleanly: the swap under way is given up (half done, where it was committed), goodbyes go out."""
        if self._stopping:
            return []
        self._stopping = True
        effects = self.exchange.abort("stopping", self._swap_link(), now)
        return [*effects, *self.membership.goodbyes(reason), Report("stopping", {"reason": reason}), Finish()]

    def _try_swap(self, now: float) -> list[Effect]:
        """Begin the swap that is due where nothing stands in its way; else a later event tries again."""
        if not self.turns.pacing.due or self.exchange.busy or self._stopping:
            return []
        latest = self.library.current(self.own.encoding)
        if latest is None:
            return []
        neighbours = [entry.peer for entry in self.membership.neighbours()]
        if not neighbours:
            return []
        effects: list[Effect] = []
        peer = self.turns.draw(neighbours, self.statistics.finished, latest.size, self.exchange.usual_s, now)
        if peer is not None:
            encoding = self.link_encoding(peer)
            own, link = self.library.current(encoding), self.membership.link_of(peer)
            if own is not None and link is not None:
                return self.exchange.begin(peer, link, own, now)
            self.turns.rest(peer, now + PUBLISH_WAIT_S)
            effects += self.library.ask(encoding)
        if self._retry_pending:
            return effects
        self._retry_pending = True
        return [*effects, SetTimer(Timer(TimerKind.SWAP), self.turns.retry_at(neighbours, now))]

    def link_encoding(self, peer: PeerId) -> Encoding:
        """The coarser of both ends' wishes."""
        entry = self.membership.view.get(peer)
        wish = entry.encoding if entry is not None else self.own.encoding
        return self.own.encoding.coarser(wish)

    def _swap_timer(self, now: float) -> SetTimer:
        delay_s = self.settings.swap_interval_s * self._rng.uniform(0.5, 1.5)
        return SetTimer(Timer(TimerKind.SWAP, IDLE), now + delay_s)

    def _swap_peer(self) -> PeerId | None:
        return self.exchange.swap.peer if self.exchange.swap is not None else None

    def _swap_link(self) -> LinkId | None:
        peer = self._swap_peer()
        return self.membership.link_of(peer) if peer is not None else None

    def _swap_digest(self) -> bytes | None:
        return self.exchange.swap.own.digest if self.exchange.swap is not None else None
