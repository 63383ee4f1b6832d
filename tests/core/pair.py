"""Two PeerStates wired back to back: every message through the codec, delivered when the test says so."""

import random
from collections import deque

from p2pfed.core.events import (
    Admit,
    Admitted,
    Adopt,
    CloseLink,
    Dial,
    Effect,
    Event,
    Forget,
    KeepPart,
    LinkDown,
    LinkUp,
    MessageReceived,
    Mix,
    Mixed,
    Publish,
    Published,
    Report,
    Retire,
    Send,
    SendPart,
    SetTimer,
    Started,
    TimerFired,
    TimerKind,
    Train,
    Trained,
)
from p2pfed.core.messages import (
    OWN_VALUES,
    PROTOCOL_VERSION,
    Hello,
    Message,
    Part,
    PartMissing,
    Role,
    Tally,
    Terms,
    Version,
)
from p2pfed.core.peer import PeerSettings, PeerState
from p2pfed.core.version import part_of, version_of
from p2pfed.ports import Encoding, PeerId
from p2pfed.sim.learner import ToyMixer
from p2pfed.wire.codec import decode, encode

PART_BYTES = 8
"""Two values a part, so that four values make two parts and a swap has every kind of message."""
TERMS = Terms(True, 1, Tally(1, 5, (1.0,) * (OWN_VALUES + 1), (1.0,) * OWN_VALUES))
"""What a stranger may say with an offer."""


def hello(
    name: str,
    instance: int = 1,
    role: Role = Role.NODE,
    network_id: str = "abc",
    encoding: Encoding = Encoding.FLOAT32,
) -> Hello:
    network = (("name", '"pair"'),)
    addresses = (f"/dns4/{name}/tcp/1",)
    return Hello(PROTOCOL_VERSION, network_id, network, (), role, encoding, instance, name, addresses, 0.0)


class Side:
    """One PeerState with its learner; Train is noted and never done, unless the test says `trained`."""

    def __init__(
        self,
        name: str,
        values: list[float],
        instance: int = 1,
        settings: PeerSettings | None = None,
        seed: int = 0,
        encoding: Encoding = Encoding.FLOAT32,
    ) -> None:
        self.name = name
        self.peer = PeerId(name)
        self.hello = hello(name, instance, encoding=encoding)
        self.mixer = ToyMixer(values)
        chance = random.Random(f"{name}/{instance}/{seed}")
        self.state = PeerState(self.hello, self.peer, settings or PeerSettings(), chance)
        self.effects: list[Effect] = []
        self.timers: list[SetTimer] = []
        self.published: dict[bytes, bytes] = {}
        self.inbox: dict[bytes, bytearray] = {}
        self.mixed: list[int] = []
        self.problem: str | None = None
        """What the learner says of every version."""
        self.slow = False
        """True: mixes wait for `mix_now`."""
        self.waiting: deque[tuple[Mix | Adopt, bytes, bytes, Encoding]] = deque()
        self.encodings: dict[bytes, Encoding] = {}
        self.outgoing: deque[tuple[int, Message]] = deque()

    @property
    def reports(self) -> list[str]:
        return [effect.kind for effect in self.effects if isinstance(effect, Report)]

    @property
    def dials(self) -> list[Dial]:
        return [effect for effect in self.effects if isinstance(effect, Dial)]

    @property
    def sent(self) -> list[Message]:
        return [effect.message for effect in self.effects if isinstance(effect, Send)]

    @property
    def closed(self) -> list[int]:
        return [effect.link for effect in self.effects if isinstance(effect, CloseLink)]

    @property
    def counts(self) -> dict[str, int | float | None]:
        return self.state.statistics.as_fields()

    def handle(self, event: Event, now: float) -> list[Effect]:
        effects = self.state.handle(event, now)
        self.effects += effects
        for effect in effects:
            self._carry_out(effect, now)
        return effects

    def start(self, now: float = 0.0, eager: bool = False) -> None:
        """Unless `eager`, without the swap that every node asks for at first."""
        if not eager:
            self.state.turns.pacing.spend()
        self.handle(Started(), now)

    def trained(self, now: float, steps: int = 8) -> None:
        """A round of local steps is over (they changed nothing): the core wants a swap."""
        total = self.state.steps + steps
        self.handle(Trained(self.publish(), total, 2 * total, 1.0), now)

    def publish(self, encoding: Encoding | None = None) -> Version:
        encoding = encoding or self.hello.encoding
        payload, mixes = self.mixer.export(encoding), self.mixer.progress().mixes
        version = version_of(payload, encoding, self.state.steps, self.state.examples, mixes, PART_BYTES)
        self.published[version.digest] = payload
        return version

    def mix_now(self, now: float) -> None:
        while self.waiting:
            effect, own, theirs, encoding = self.waiting.popleft()
            if isinstance(effect, Adopt):
                report = self.mixer.adopt(theirs, encoding, effect.mixes)
            else:
                report = self.mixer.mix(own, theirs, encoding, effect.weight)
            self.mixed.append(effect.swap)
            self.handle(Mixed(effect.swap, report.distance, report.norm, report.kept, self.publish()), now)

    def fire(self, now: float, kind: TimerKind | None = None) -> None:
        """Every timer (of one kind) that is due, once."""
        due = [timer for timer in self.timers if timer.at <= now and kind in (None, timer.timer.kind)]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in sorted(due, key=lambda timer: timer.at):
            self.handle(TimerFired(timer.timer), now)

    def _carry_out(self, effect: Effect, now: float) -> None:
        match effect:
            case Send(link=link, message=message):
                self.outgoing.append((link, message))
            case SendPart(link=link, digest=digest, index=index):
                payload = self.published.get(digest)
                part = Part(digest, index, part_of(payload, index, PART_BYTES)) if payload else PartMissing(digest)
                self.outgoing.append((link, part))
            case SetTimer():
                self.timers.append(effect)
            case KeepPart(version=version, index=index, data=data):
                payload = self.inbox.setdefault(version.digest, bytearray(version.size))
                payload[index * version.part_size : index * version.part_size + len(data)] = data
                self.encodings[version.digest] = version.encoding
            case Admit(digest=digest):
                self.handle(Admitted(digest, self.problem), now)
            case Mix(digest=digest) | Adopt(digest=digest):
                own = self.published[effect.own] if isinstance(effect, Mix) else b""
                self.waiting.append((effect, own, bytes(self.inbox.pop(digest)), self.encodings[digest]))
                if not self.slow:
                    self.mix_now(now)
            case Forget(digest=digest):
                self.inbox.pop(digest, None)
            case Retire(digest=digest):
                self.published.pop(digest, None)
            case Publish(encoding=encoding):
                self.handle(Published(self.publish(encoding)), now)
            case Train(steps=0):
                self.handle(Trained(self.publish(), self.state.steps, 0, None), now)


class Pair:
    """`a` has the smaller peer id. One link at a time; `order` draws which side's message goes next."""

    def __init__(self, a: Side | None = None, b: Side | None = None, seed: int = 0) -> None:
        self.a = a or Side("a", [1.0, 2.0, 3.0, 4.0])
        self.b = b or Side("b", [5.0, 6.0, 7.0, -8.0])
        self.now = 0.0
        self.link = 0
        self.up = False
        self.delivered: list[str] = []
        self._order = random.Random(seed)

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.a, self.b

    @property
    def sums(self) -> list[float]:
        return [x + y for x, y in zip(self.a.mixer.values, self.b.mixer.values, strict=True)]

    def start(self, eager: bool = False) -> "Pair":
        for side in self.sides:
            side.start(self.now, eager)
        self.relink()
        self.deliver()
        return self

    def relink(self, outbound: str = "a") -> None:
        """A new link; what the core closes or what `break_link` cuts is gone."""
        self.link += 1
        self.up = True
        for side, other in (self.sides, self.sides[::-1]):
            side.outgoing = deque(item for item in side.outgoing if item[0] != self.link)
            event = LinkUp(self.link, other.peer, other.hello, side.name == outbound, other.hello.addresses[0])
            side.handle(event, self.now)

    def break_link(self) -> None:
        """In-flight messages are lost; both ends learn it."""
        self.up = False
        for side in self.sides:
            side.outgoing.clear()
        for side in self.sides:
            side.handle(LinkDown(self.link, "broken"), self.now)
            side.outgoing.clear()

    def deliver(self, most: int = 10_000) -> int:
        """Up to so many messages, in order for each side; gives how many there were."""
        for count in range(most):
            ready = [side for side in self.sides if side.outgoing]
            if not ready or not self.up:
                return count
            side = self._order.choice(ready)
            link, message = side.outgoing.popleft()
            other = self.b if side is self.a else self.a
            if link == self.link:
                self.delivered.append(type(message).__name__)
                other.handle(MessageReceived(link, decode(encode(message))), self.now)
        return most

    def wait(self, seconds: float, step_s: float = 1.0) -> None:
        """Time passes, timers fire, messages are delivered while the link stands."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step_s)
            for side in self.sides:
                side.fire(self.now)
            self.deliver()
