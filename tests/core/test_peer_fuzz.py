"""Arbitrary histories: whatever strangers say, in whatever order, a peer goes on and stays within its bounds.

The interpreter's side of the contract is kept (it answers Dial, Admit, Mix and Train, and fires each
timer once); everything that comes over a link is up to the adversary.
"""

import random
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pfed.core.events import (
    Admit,
    Admitted,
    Adopt,
    CloseLink,
    Dial,
    DialFailed,
    Effect,
    Event,
    Finish,
    Forget,
    FoundBy,
    KeepPart,
    LinkDown,
    LinkUp,
    MessageReceived,
    Mix,
    Mixed,
    PeerFound,
    PeerRefused,
    Publish,
    Published,
    Retire,
    Send,
    SendPart,
    SetTimer,
    Started,
    StopAsked,
    TimerFired,
    TimerKind,
    Train,
    Trained,
)
from p2pfed.core.exchange import ENDED_KEPT, Swap
from p2pfed.core.library import PINS_MAX
from p2pfed.core.membership import MembershipSettings
from p2pfed.core.messages import (
    DeclineReason,
    Goodbye,
    IdentityInUse,
    Message,
    Part,
    PartAsk,
    PartMissing,
    PeerRecord,
    PeersAsk,
    PeersTold,
    Ping,
    Pong,
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
from p2pfed.core.patience import SERVE_STALL_S
from p2pfed.core.peer import PeerSettings, PeerState
from p2pfed.core.version import part_of, version_of
from p2pfed.core.view import VIEW_MAX
from p2pfed.ports import Encoding, PeerId
from p2pfed.wire.codec import encode
from tests.core.pair import TERMS as COMMON_TERMS
from tests.core.pair import hello

OWN = "m"
STRANGERS = ("a", "b", "z")
SIZE = 40
PART_BYTES = 16
LINKS_MAX = 4
PAYLOADS = tuple(bytes([number]) * SIZE for number in range(4))
OTHER_SIZE = bytes(SIZE + 1)
VERSIONS = tuple(
    version_of(payload, Encoding.FLOAT32, 1, 2, 9 * number, PART_BYTES)
    for number, payload in enumerate((*PAYLOADS, OTHER_SIZE))
)
"""Mixes far enough apart that an unsettled node would adopt the later ones."""
TERMS = (COMMON_TERMS, replace(COMMON_TERMS, settled=False))
TIMERS_MAX = 8

peers = st.sampled_from(STRANGERS)
links = st.integers(0, 5)
"""Mostly one of those that are up, by place; 5: any number, often a link of the past."""
small = st.integers(0, 3)
seconds = st.sampled_from([0.0, 0.1, 1.0, 5.0, 11.0, 30.0, 46.0, 130.0])


class AnyHistory(RuleBasedStateMachine):
    """Rules are events; `handle` checks the effects of each; invariants check the state after each."""

    @initialize(seed=st.integers(0, 3), steps_max=st.sampled_from([0, 8]), neighbours=st.lists(peers, max_size=2))
    def start(self, seed: int, steps_max: int, neighbours: list[str]) -> None:
        membership = MembershipSettings(3, LINKS_MAX)
        self.state = PeerState(
            hello(OWN), PeerId(OWN), PeerSettings(8, steps_max, membership=membership), random.Random(seed)
        )
        self.now = 0.0
        self.up: dict[int, PeerId] = {}
        self.used_links = 0
        self.timers: list[SetTimer] = []
        self.dials: list[PeerId] = []
        self.admits: list[bytes] = []
        self.admitted: set[bytes] = set()
        self.kept: dict[bytes, dict[int, bytes]] = {}
        self.mixes: list[Mix | Adopt] = []
        self.publications: list[Encoding] = []
        self.mixed: list[int] = []
        self.mixed_serials: list[int] = []
        self.trains: list[int] = []
        self.steps = 0
        self.published: dict[bytes, Version] = {}
        self.numbers: list[int] = [7]
        self.over = False
        self.handle(Started())
        for _ in range(2):
            self.trained(skipped=False)
        for peer in neighbours:
            self.link_up(peer, 1)

    def handle(self, event: Event) -> None:
        if self.over:
            return
        if isinstance(event, LinkUp):
            self.up[event.link] = event.peer
        if isinstance(event, LinkDown):
            self.up.pop(event.link, None)
        for effect in self.state.handle(event, self.now):
            self.carry_out(effect)

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(link=link, message=message):
                assert link in self.up, "sends over a link that is not up"
                encode(message)  # raises for what no peer would take
                if isinstance(message, SwapOffer):
                    self.numbers.append(message.swap)
            case SendPart(link=link, digest=digest, index=index):
                assert link in self.up and index < len(self.published[digest].parts)
            case CloseLink(link=link):
                assert self.up.pop(link, None) is not None, "closes a link that is not up"
            case SetTimer(at=at):
                assert at >= self.now
                self.timers.append(effect)
            case Dial(peer=peer, addresses=addresses):
                assert addresses and peer not in self.dials and peer not in self.up.values()
                self.dials.append(peer)
            case KeepPart(version=version, index=index, data=data):
                assert len(data) <= PART_BYTES
                self.kept.setdefault(version.digest, {})[index] = data
            case Admit(digest=digest):
                assert b"".join(data for _, data in sorted(self.kept[digest].items())) in PAYLOADS
                self.admits.append(digest)
            case Mix(digest=digest) | Adopt(digest=digest):
                if isinstance(effect, Mix):
                    assert effect.own in self.published and 0.0 < effect.weight < 1.0
                serial = self.state.statistics.begun + self.state.statistics.answered
                assert serial not in self.mixed_serials, "mixes twice in one swap"
                self.mixed_serials.append(serial)
                assert digest in self.admitted, "mixes what was not admitted"
                assert not self.mixes, "two mixes at once"
                self.mixes.append(effect)
            case Forget(digest=digest):
                self.kept.pop(digest, None)
                self.admitted.discard(digest)
            case Retire(digest=digest):
                del self.published[digest]
            case Publish(encoding=encoding):
                assert encoding not in self.publications, "asked for the same version twice"
                self.publications.append(encoding)
            case Train(steps=steps):
                assert not self.trains, "two rounds of training at once"
                self.trains.append(steps)
            case Finish():
                self.over = True

    def publish(self, encoding: Encoding = Encoding.FLOAT32) -> Version:
        content = random.Random(self.steps + len(self.mixed)).randrange(256)
        version = version_of(bytes([content]) * SIZE, encoding, 1, 2, len(self.mixed), 16)
        self.published[version.digest] = version
        return version

    # What the interpreter answers

    @rule(wait_s=seconds)
    def time_passes(self, wait_s: float) -> None:
        self.now += wait_s
        due = sorted((timer for timer in self.timers if timer.at <= self.now), key=lambda timer: timer.at)
        self.timers = [timer for timer in self.timers if timer.at > self.now]
        for timer in due:
            self.handle(TimerFired(timer.timer))

    @rule(slow=st.booleans(), more=st.integers(0, 6), again=st.booleans())
    def learner_works(self, slow: bool, more: int, again: bool) -> None:
        """A mix (unless `slow`), a round of steps, then as much of a swap as `more` says."""
        if not slow:
            self.mix()
        self.trained(skipped=False)
        self.swap_goes_on(more, again)

    @rule(skipped=st.booleans())
    def trained(self, skipped: bool) -> None:
        if not self.trains:
            return
        steps = self.trains.pop()
        self.steps += steps
        loss = 1.0 if steps and not skipped else None
        self.handle(Trained(self.publish(), self.steps, 2 * self.steps, loss))

    @precondition(lambda self: self.admits)
    @rule(problem=st.sampled_from([None, None, None, "holds a value that is not finite"]))
    def admit(self, problem: str | None) -> None:
        digest = self.admits.pop(0)
        if problem is None:
            self.admitted.add(digest)
        self.handle(Admitted(digest, problem))

    @rule()
    def mix(self) -> None:
        if not self.mixes:
            return
        mix = self.mixes.pop()
        self.mixed.append(mix.swap)
        self.handle(Mixed(mix.swap, 1.0, 2.0, 1.0, self.publish()))

    @precondition(lambda self: self.publications)
    @rule()
    def published_in_another_encoding(self) -> None:
        self.handle(Published(self.publish(self.publications.pop(0))))

    @precondition(lambda self: self.dials)
    @rule(refused=st.booleans())
    def dial_fails(self, refused: bool) -> None:
        peer = self.dials.pop(0)
        self.handle(PeerRefused(peer, "rank is 8 there and 16 here") if refused else DialFailed(peer, "no answer"))

    @precondition(lambda self: self.dials)
    @rule(instance=small)
    def dial_succeeds(self, instance: int) -> None:
        self.link_up(self.dials.pop(0), instance, outbound=True)

    # What the world does

    @rule(peer=st.sampled_from((*STRANGERS, OWN)), instance=small, role=st.sampled_from([Role.NODE, Role.NODE, *Role]))
    def dialled_by(self, peer: str, instance: int, role: Role) -> None:
        self.link_up(peer, instance, role=role)

    @rule(peer=peers, instance=small, encoding=st.sampled_from(Encoding))
    def dialled_by_one_with_a_wish(self, peer: str, instance: int, encoding: Encoding) -> None:
        self.link_up(peer, instance, encoding=encoding)

    @rule(peer=peers, network_id=st.sampled_from(["def", "0"]))
    def dialled_by_another_network(self, peer: str, network_id: str) -> None:
        self.link_up(peer, 1, network_id=network_id)

    def link_up(
        self,
        peer: str,
        instance: int,
        outbound: bool = False,
        role: Role = Role.NODE,
        network_id: str = "abc",
        encoding: Encoding = Encoding.FLOAT32,
    ) -> None:
        self.used_links += 1
        greeting = hello(peer, instance, role, network_id, encoding)
        self.handle(LinkUp(self.used_links, PeerId(peer), greeting, outbound, "/dns4/x/tcp/1"))

    @rule(link=links, fault=st.booleans())
    def link_down(self, link: int, fault: bool) -> None:
        self.handle(LinkDown(self.some_link(link), "gone", fault))

    @rule(peer=st.sampled_from((*STRANGERS, OWN, "q", "r")), found_by=st.sampled_from(FoundBy), instance=small)
    def found(self, peer: str, found_by: FoundBy, instance: int) -> None:
        self.handle(PeerFound(PeerId(peer), (f"/dns4/{peer}/tcp/1",), found_by, instance))

    @rule(start=st.integers(0, 10_000))
    def flood_of_hearsay(self, start: int) -> None:
        for number in range(start, start + 40):
            self.handle(PeerFound(PeerId(f"flood{number}"), ("/dns4/f/tcp/1",), FoundBy.PEERS))

    @precondition(lambda self: len(self.mixed) > 3)
    @rule()
    def stop(self) -> None:
        self.handle(StopAsked("test"))

    def some_link(self, place: int) -> int:
        return list(self.up)[place % len(self.up)] if self.up and place < 5 else 1 + place % 3

    def hear(self, place: int, message: Message) -> None:
        self.handle(MessageReceived(self.some_link(place), message))

    def partner_says(self, swap: Swap) -> list[Message]:
        """What an honest partner would say next."""
        if swap.theirs is None:
            return [SwapAccept(swap.number, VERSIONS[swap.number % 4], TERMS[swap.number % 2])]
        if swap.fetch is not None and not swap.fetch.complete and swap.fetch.version in VERSIONS[:4]:
            payload = PAYLOADS[VERSIONS.index(swap.fetch.version)]
            return [Part(swap.fetch.version.digest, index, part_of(payload, index, PART_BYTES)) for index in range(3)]
        if swap.initiator and not swap.peer_ready:
            return [SwapReady(swap.number)]
        return [SwapDone(swap.number) if swap.initiator else SwapCommit(swap.number)]

    @rule(more=st.integers(1, 6), again=st.booleans())
    def swap_goes_on(self, more: int, again: bool) -> None:
        """An honest partner; with `again` it says everything twice."""
        for _ in range(more):
            swap = self.state.exchange.swap
            link = self.state.membership.link_of(swap.peer) if swap is not None else None
            if swap is None or link is None:
                return
            for message in self.partner_says(swap) * (1 + again):
                self.handle(MessageReceived(link, message))
            if self.admits:
                self.admitted.add(self.admits[0])
                self.handle(Admitted(self.admits.pop(0), None))

    @rule(link=links, choice=st.integers(0, 8), number=small)
    def hears_small_talk(self, link: int, choice: int, number: int) -> None:
        known = PeerRecord(PeerId(("a", "b", "z", OWN)[number]), ("/dns4/x/tcp/1", "/dns4/y/tcp/1"))
        talk: list[Message] = [
            Ping(number),
            Pong(number),
            PeersAsk(1 + number),
            PeersTold((known,)),
            Goodbye("bye"),
            IdentityInUse(number),
            VersionAsk(list(Encoding)[number]),
            VersionTold(None),
            hello("a"),
        ]
        self.hear(link, talk[choice])

    def some_number(self, newest: int) -> int:
        swap = self.state.exchange.swap
        return swap.number if swap is not None and newest < 3 else self.numbers[-1 - newest % len(self.numbers)]

    @rule(link=links, which=st.integers(0, 4), number=st.integers(0, 5))
    def hears_an_offer(self, link: int, which: int, number: int) -> None:
        self.hear(
            link, SwapOffer(self.some_number(number) if number < 3 else number, VERSIONS[which], TERMS[number % 2])
        )

    @rule(link=links, which=st.integers(0, 4), number=st.integers(0, 3))
    def hears_an_accept(self, link: int, which: int, number: int) -> None:
        self.hear(link, SwapAccept(self.some_number(number), VERSIONS[which], TERMS[number % 2]))

    @rule(link=links, choice=st.integers(0, 5), number=st.integers(0, 3))
    def hears_of_a_swap(self, link: int, choice: int, number: int) -> None:
        swap = self.some_number(number)
        words: list[Message] = [
            SwapReady(swap),
            SwapCommit(swap),
            SwapDone(swap),
            SwapReady(swap),
            SwapAbort(swap, "tired"),
            SwapDecline(swap, DeclineReason.BUSY, 1.0),
        ]
        self.hear(link, words[choice])

    @rule(link=links, which=st.integers(0, 3), index=st.integers(0, 5), lie=st.sampled_from([0, 0, 0, 0, 1]))
    def hears_a_part(self, link: int, which: int, index: int, lie: int) -> None:
        payload = PAYLOADS[(which + lie) % len(PAYLOADS)]
        data = part_of(payload, index, PART_BYTES) if index < 3 else bytes(PART_BYTES)
        self.hear(link, Part(VERSIONS[which].digest, index, data))

    @rule(link=links, own=st.booleans(), indexes=st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True))
    def is_asked_for_parts(self, link: int, own: bool, indexes: list[int]) -> None:
        current = self.state.library.current(Encoding.FLOAT32)
        digest = current.digest if own and current is not None else VERSIONS[0].digest
        self.hear(link, PartAsk(digest, tuple(indexes)))

    @rule(link=links, which=st.integers(0, 3))
    def hears_that_a_part_is_missing(self, link: int, which: int) -> None:
        self.hear(link, PartMissing(VERSIONS[which].digest))

    # What always holds

    @invariant()
    def bounded(self) -> None:
        state = self.state
        linked = {entry.link: entry.peer for entry in state.membership.view.linked()}
        assert linked == state.membership.links and len(linked) <= LINKS_MAX
        assert len(dict.fromkeys(linked.values())) == len(linked), "one link a peer counts"
        assert all(link in self.up for link in linked) or self.over
        assert len(state.membership.view) <= VIEW_MAX
        assert state.exchange.ended_kept <= ENDED_KEPT and state.library.pins <= PINS_MAX
        probes = sum(timer.timer.kind is TimerKind.PROBE for timer in self.timers)
        assert len(self.timers) - probes <= TIMERS_MAX
        assert len(self.published) <= PINS_MAX + 3 + len(Encoding)
        swap = state.exchange.swap
        assert swap is None or swap.admitting or self.now - swap.patience.since <= SERVE_STALL_S
        counts = state.statistics
        ended = counts.finished + counts.declined + counts.aborted
        assert counts.begun + counts.answered == ended + (swap is not None)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=300, stateful_step_count=40, deadline=None, derandomize=True)
