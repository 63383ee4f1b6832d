"""Collector: an observer that reads every reachable node's current version, one after the other.

Never trains, never mixes into anybody. The interpreter's mixer is a running mean: a Mix with weight w
moves it by w towards the payload, so with w = n_i / (n_1 + ... + n_i) it ends as the weighted mean.
Versions are asked for in float32: the mean is of what the nodes hold, without an encoding's noise.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from p2pfed.core.deadline import Pace
from p2pfed.core.events import (
    Admit,
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
    Mix,
    Mixed,
    PeerFound,
    PeerRefused,
    Published,
    Report,
    Retire,
    Send,
    Started,
    StepSkipped,
    StopAsked,
    Timer,
    TimerFired,
    TimerKind,
    Trained,
)
from p2pfed.core.membership import Membership, MembershipSettings
from p2pfed.core.messages import (
    RETRY_AFTER_S_MAX,
    Hello,
    Part,
    PartMissing,
    SwapDecline,
    SwapOffer,
    Version,
    VersionAsk,
    VersionTold,
)
from p2pfed.core.messages import DeclineReason as Decline
from p2pfed.core.transfer import Fetch
from p2pfed.errors import RemoteError
from p2pfed.ports import Encoding, PeerId

ATTEMPTS_MAX = 3
"""Fetches of one node's version begun before it is listed as failed: its versions change while it trains."""
STALL_MIN_S = 20.0
STALL_S = 55.0
"""A node that gives no part for so long is put behind the others: learned from the time between its parts, and between
these two. One at 64 kbit/s takes 33 s for a part; 20 s also pass until a link comes back that carried nothing."""
TOLD_S = 120.0
"""The same for its version, which a node exports between two local steps; how long those take is a guess."""


@dataclass(frozen=True, slots=True)
class CollectionSettings:
    """`settle_s`: how long no new node must appear before it ends. `deadline_s`: the end in any case."""

    settle_s: float = 5.0
    deadline_s: float = 300.0
    size: int = 0
    """Bytes a version must have; 0: the first one collected decides."""
    encoding: Encoding = Encoding.FLOAT32
    membership: MembershipSettings = field(default_factory=lambda: MembershipSettings(64, 128, 1.0))


@dataclass(frozen=True, slots=True)
class Contribution:
    peer: PeerId
    name: str
    version: Version
    weight: float


class Collector:
    """State of one collection. `contributions` and `failures` are the result after Finish."""

    def __init__(
        self,
        own: Hello,
        peer: PeerId,
        settings: CollectionSettings,
        rng: random.Random,
        weigh: Callable[[Version], float],
    ) -> None:
        self.membership = Membership(own, peer, settings.membership, rng)
        self.contributions: list[Contribution] = []
        self.failures: dict[PeerId, str] = {}
        self.total_weight = 0.0
        self._settings = settings
        self._size = settings.size
        self._weigh = weigh
        self._attempts: dict[PeerId, int] = {}
        self._current: PeerId | None = None
        self._fetch: Fetch | None = None
        self._pace = Pace()
        """Between two parts of the node under way."""
        self._progress_at = 0.0
        self._news_at = 0.0
        self._started_at: float | None = None
        self._mixing = False
        self._over = False

    def handle(self, event: Event, now: float) -> list[Effect]:
        effects = self._handle(event, now)
        return effects if self._over else effects + self._next(now)

    def _handle(self, event: Event, now: float) -> list[Effect]:
        match event:
            case Started(peers=peers):
                self._started_at = self._news_at = now
                found = [PeerFound(record.peer, record.addresses, FoundBy.REMEMBERED) for record in peers]
                return [effect for one in found for effect in self.membership.on_found(one, now)] + (
                    self.membership.start(now)
                )
            case PeerFound():
                return self.membership.on_found(event, now)
            case DialFailed(peer=peer, reason=reason):
                self.failures.setdefault(peer, reason)
                return self.membership.on_dial_failed(peer, reason, now)
            case PeerRefused(peer=peer, difference=difference):
                self.failures[peer] = difference
                return self.membership.on_refused(peer, difference, now)
            case LinkUp():
                return self._on_link_up(event, now)
            case LinkDown(link=link, reason=reason, fault=fault):
                peer_down = self.membership.peer_of(link)
                effects = self.membership.on_link_down(link, reason, fault, now)
                lost = peer_down is not None and peer_down == self._current
                if lost and not fault and self._fetch is not None:
                    return effects  # another link goes on with this version, unless it comes too late
                return effects + (self._fail(reason) if lost else [])
            case MessageReceived(link=link):
                return self._on_message(link, event, now)
            case Admitted(digest=digest, problem=problem):
                return self._on_admitted(digest, problem)
            case Mixed(version=version):
                self._mixing = False
                return [Retire(version.digest)]
            case TimerFired(timer=timer):
                return self._on_timer(timer, now)
            case StopAsked():
                return self._finish("stopped")
            case Trained() | StepSkipped() | Published():
                return []

    def _on_link_up(self, event: LinkUp, now: float) -> list[Effect]:
        effects = self.membership.on_link_up(event, now)
        if self.membership.link_of(event.peer) == event.link:
            self.failures.pop(event.peer, None)
            self._news_at = now
            if self._current == event.peer and self._fetch is not None:
                self._progress_at = now
                effects += self._fetch.resume(event.link, now)
        return effects

    def _on_message(self, link: LinkId, event: MessageReceived, now: float) -> list[Effect]:
        peer = self.membership.peer_of(link)
        if peer is None:
            return []
        effects = self.membership.on_heard(link, isinstance(event.message, (VersionTold, Part)), now)
        try:
            answered = self.membership.on_message(link, event.message, now)
            if answered is not None:
                return effects + answered
            match event.message:
                case SwapOffer(swap=swap):
                    return [*effects, Send(link, SwapDecline(swap, Decline.NOT_READY, RETRY_AFTER_S_MAX))]
                case VersionTold(version=version) if peer == self._current and self._fetch is None:
                    return effects + self._on_told(link, version, now)
                case Part() if peer == self._current and self._fetch is not None:
                    return effects + self._on_part(link, event.message, now)
                case PartMissing() if peer == self._current:
                    return effects + self._fail("its version changed while it was read")
        except RemoteError as error:
            return [
                *effects,
                CloseLink(link, str(error)),
                *self.membership.on_link_down(link, str(error), True, now),
                *(self._fail(str(error), final=True) if peer == self._current else []),
            ]
        return effects

    def _on_told(self, link: LinkId, version: Version | None, now: float) -> list[Effect]:
        if version is None:
            return self._fail("has published nothing yet")
        if version.encoding is not self._settings.encoding:
            return self._fail(f"its version is in {version.encoding}, not in {self._settings.encoding}", final=True)
        if self._size and version.size != self._size:
            return self._fail(f"its version has {version.size} bytes, not {self._size}", final=True)
        self._size = version.size
        self._fetch, self._pace, self._progress_at = Fetch(version), Pace(), now
        return self._fetch.resume(link, now)

    def _on_part(self, link: LinkId, part: Part, now: float) -> list[Effect]:
        assert self._fetch is not None
        if part.digest != self._fetch.version.digest:
            return []
        effects = self._fetch.on_part(link, part, now)
        if effects:  # a part that was held already is no progress
            self._pace.observe(now - self._progress_at)
            self._progress_at = now
        return [*effects, Admit(part.digest)] if self._fetch.complete and effects else effects

    def _on_admitted(self, digest: bytes, problem: str | None) -> list[Effect]:
        fetch, peer = self._fetch, self._current
        if fetch is None or peer is None or fetch.version.digest != digest:
            return []
        if problem is not None:
            return self._fail(problem, final=True)
        entry = self.membership.view.get(peer)
        weight = self._weigh(fetch.version)
        self.total_weight += weight
        self.contributions.append(Contribution(peer, entry.name if entry else "", fetch.version, weight))
        self._current, self._fetch, self._mixing = None, None, True
        return [
            Mix(len(self.contributions), b"", digest, weight / self.total_weight),
            Report("collected", {"peer": peer, "steps": fetch.version.steps, "examples": fetch.version.examples}),
        ]

    def _on_timer(self, timer: Timer, now: float) -> list[Effect]:
        effects: list[Effect] = []
        stall_s = self._pace.limit_s(STALL_S, STALL_MIN_S, STALL_S) if self._fetch is not None else TOLD_S
        if self._current is not None and now - self._progress_at > stall_s:
            effects += self._fail(f"gave nothing for {stall_s:.0f} s")
        return effects + (self.membership.maintain(now) if timer.kind is TimerKind.MAINTAIN else [])

    def _next(self, now: float) -> list[Effect]:
        """Ask the next node; finish when there is none and none has appeared for a while."""
        if self._current is not None or self._mixing or self._started_at is None:
            return []
        done = [contribution.peer for contribution in self.contributions]
        for entry in self.membership.neighbours():
            if entry.peer in done or self._attempts.get(entry.peer, 0) >= ATTEMPTS_MAX or entry.link is None:
                continue
            self._current, self._fetch, self._progress_at = entry.peer, None, now
            self._attempts[entry.peer] = self._attempts.get(entry.peer, 0) + 1
            return [Send(entry.link, VersionAsk(self._settings.encoding))]
        quiet_s = now - max(self._news_at, self._progress_at)
        settled = quiet_s >= self._settings.settle_s and (bool(self.contributions) or not self._dialling())
        if settled or now - self._started_at >= self._settings.deadline_s:
            return self._finish("all reachable nodes were read")
        return []  # the maintain timer brings us back every second

    def _dialling(self) -> bool:
        """A first dial may take longer than the network needs to settle."""
        return any(entry.dialling for entry in self.membership.view.entries())

    def _fail(self, reason: str, final: bool = False) -> list[Effect]:
        """The node under way is left: tried again later, or listed for good."""
        peer = self._current
        if peer is None:
            return []
        self._current, self._fetch = None, None
        if final:
            self._attempts[peer] = ATTEMPTS_MAX
        self.failures[peer] = reason
        return [Report("collect-failed", {"peer": peer, "reason": reason})]

    def _finish(self, reason: str) -> list[Effect]:
        self._over = True
        for contribution in self.contributions:
            self.failures.pop(contribution.peer, None)
        return [*self.membership.goodbyes("snapshot taken"), Report("collection-over", {"reason": reason}), Finish()]
