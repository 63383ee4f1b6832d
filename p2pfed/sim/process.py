"""One run of a simulated peer, from start to stop or crash: carries out what the core asks for.

The same duties as `net.driver`, `net.session` and `net.worker`, in virtual time. A run that is over
ignores whatever was scheduled for it.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from p2pfed.core.events import (
    Admit,
    Admitted,
    Adopt,
    CloseLink,
    Dial,
    Effect,
    Event,
    Finish,
    Forget,
    KeepPart,
    LinkDown,
    LinkId,
    Mix,
    Mixed,
    Publish,
    Published,
    Remember,
    Report,
    Retire,
    Send,
    SendPart,
    SetTimer,
    Timer,
    TimerFired,
    Train,
    Trained,
)
from p2pfed.core.messages import Hello, Message, Part, PartMissing, PeerRecord, Version
from p2pfed.core.peer import PeerState
from p2pfed.core.version import part_of, version_of
from p2pfed.errors import RemoteError
from p2pfed.ports import Encoding, PeerId
from p2pfed.sim.mixers import SimMixer
from p2pfed.sim.options import NodeOptions
from p2pfed.sim.settings import settings_of
from p2pfed.sim.uplink import SEND_QUEUE_MAX, End, Hangup, Uplink, UplinkWires

FLUSH_S = 0.05
"""How often a run that is ending looks whether its last messages have left."""


class Wires(UplinkWires, Protocol):
    """What a run needs of the network around it."""

    def dial(self, run: "Run", peer: PeerId, addresses: tuple[str, ...]) -> None: ...

    @property
    def record(self) -> Callable[[float, int, Event, int], None]:
        """Takes every event into the history: when, whose, what, and how many effects it had."""

    watch_every: int
    """Of so many events of a run, `handled` is told one."""

    def handled(self, run: "Run", event: Event, effects: list[Effect]) -> None: ...

    def mixed(self, run: "Run", swap: int, before: Sequence[float]) -> None: ...

    def adopted(self, run: "Run", before: Sequence[float]) -> None: ...

    def finished(self, run: "Run") -> None: ...


class Run:
    """Owns a PeerState, its learner and its links. `number` is the node's, the same in all its runs."""

    __slots__ = (
        "_clock",
        "_links",
        "_publications",
        "_record",
        "_rng",
        "_saved_at",
        "_stepping",
        "_steps_todo",
        "_watch_every",
        "_wires",
        "bytes_sent",
        "checkpoint",
        "downlink_free_at",
        "encodings",
        "ends",
        "events",
        "hello",
        "inbox",
        "links",
        "loss",
        "mixer",
        "mixes",
        "name",
        "number",
        "options",
        "partners",
        "peer",
        "published",
        "remembered",
        "reports",
        "running",
        "state",
        "step_s",
        "timers_pending",
        "twist",
        "uplink",
        "uplink_bytes_s",
    )

    def __init__(
        self,
        options: NodeOptions,
        number: int,
        own: Hello,
        wires: Wires,
        rng: random.Random,
        mixer: SimMixer | None,
        step_s: float,
    ) -> None:
        self.options = options
        self.number = number
        self.name = options.name
        self.hello = own
        self.peer = PeerId(options.peer or f"sim-{options.name}")
        self.mixer = mixer
        self.step_s = step_s
        self.state = PeerState(own, self.peer, settings_of(options), rng)
        self.running = True
        self.ends: dict[LinkId, End] = {}
        self.links: dict[int, None] = {}
        """Keys of the network's, of links that this run is an end of."""
        self.twist: Callable[[Message], Message] | None = None
        """What an attacker says in place of the truth."""
        self.uplink = Uplink(self, wires)
        self.uplink_bytes_s = options.uplink_bytes_s
        self.downlink_free_at = 0.0
        self.timers_pending = 0
        self.bytes_sent = 0
        self.events = 0
        self.reports: dict[str, int] = {}
        self.partners: dict[PeerId, None] = {}
        self.remembered: tuple[PeerRecord, ...] = ()
        self.checkpoint: bytes | None = None
        self.loss: float | None = None
        self.mixes: deque[tuple[Mix | Adopt, bytes, bytes, Encoding]] = deque()
        self.published: dict[bytes, bytes] = {}
        self.inbox: dict[bytes, bytearray] = {}
        self.encodings: dict[bytes, Encoding] = {}
        """Of the versions in `inbox`."""
        self._wires = wires
        self._clock = wires.clock
        self._record = wires.record
        self._watch_every = wires.watch_every
        self._rng = rng
        self._links = 0
        self._publications: deque[Encoding] = deque()
        self._steps_todo: int | None = None
        self._stepping = False
        self._saved_at: float | None = None

    def handle(self, event: Event) -> None:
        if not self.running:
            return
        self.events += 1
        now = self._clock.now
        effects = self.state.handle(event, now)
        self._record(now, self.number, event, len(effects))
        if not self.events % self._watch_every:
            self._wires.handled(self, event, effects)
        for effect in effects:
            if type(effect) is Send:  # by far the most
                self._queue(effect.link, effect.message)
            else:
                self._carry_out(effect)

    def later(self, delay_s: float, action: Callable[..., None], *args: object) -> None:
        """Do something after a while, unless this run is over by then."""
        self._clock.at(self._clock.now + delay_s, self._if_running, action, *args)

    def _if_running(self, action: Callable[..., None], *args: object) -> None:
        if self.running:
            action(*args)

    def new_end(self) -> End:
        self._links += 1
        return End(self, self._links)

    def lose(self, end: End, reason: str) -> None:
        """This end learns that its link is gone."""
        end.dead = True
        if end.told and self.running:
            end.told = False
            del self.ends[end.link]
            self.handle(LinkDown(end.link, reason))

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case SetTimer(timer=timer, at=at):
                self.timers_pending += 1
                self._clock.at(max(at, self._clock.now), self._fire, timer)
            case Report(kind=kind, fields=fields):
                self.reports[kind] = self.reports.get(kind, 0) + 1
                if kind == "swap-finished":
                    self.partners[PeerId(str(fields["peer"]))] = None
            case SendPart(link=link):
                self._queue(link, effect)
            case Send(link=link, message=message):
                self._queue(link, message)
            case Dial(peer=peer, addresses=addresses):
                self._wires.dial(self, peer, addresses)
            case CloseLink(link=link, reason=reason):
                self._close(link, reason)
            case Remember(peers=peers):
                self.remembered = peers
            case Finish():
                for link in list(self.ends):
                    self._close(link, "stopped")
                self._finish()
            case _:
                self._carry_out_learning(effect)

    def _carry_out_learning(self, effect: Effect) -> None:
        match effect:
            case KeepPart(version=version, index=index, data=data):
                payload = self.inbox.setdefault(version.digest, bytearray(version.size))
                start = index * version.part_size
                payload[start : start + len(data)] = data
                self.encodings[version.digest] = version.encoding
            case Admit(digest=digest):
                self.later(self.options.admit_s, self._admit, digest)
            case Mix(own=own, digest=digest):
                self._queue_mix(effect, self.published[own], digest)
            case Adopt(digest=digest):
                self._queue_mix(effect, b"", digest)
            case Publish(encoding=encoding):
                self._publications.append(encoding)
                self._work()
            case Forget(digest=digest):
                self.inbox.pop(digest, None)
                self.encodings.pop(digest, None)
            case Retire(digest=digest):
                self.published.pop(digest, None)
            case Train(steps=steps):
                self._steps_todo = steps
                self._work()

    def _fire(self, timer: Timer) -> None:
        self.timers_pending -= 1
        self.handle(TimerFired(timer))

    # Sending

    def _queue(self, link: LinkId, item: Message | SendPart) -> None:
        end = self.ends.get(link)
        if end is None or end.closing:
            return
        if self.twist is not None and not isinstance(item, SendPart):
            item = self.twist(item)
        if not self.uplink.put(end, item):
            self._close(link, f"{SEND_QUEUE_MAX} messages wait for it, more than it takes")

    def _close(self, link: LinkId, reason: str) -> None:
        """What was said before still goes out, parts need not; this side is told at once."""
        end = self.ends.get(link)
        if end is None or end.closing:
            return
        end.closing = True
        self.uplink.drop_parts(end)
        self.later(0.0, self._closed, end, reason)
        self.uplink.put(end, Hangup(reason))

    def _closed(self, end: End, reason: str) -> None:
        if end.told:
            end.told = False
            del self.ends[end.link]
            self.handle(LinkDown(end.link, reason))

    def _finish(self) -> None:
        """Over once the last word is out."""
        idle_at = self.uplink.idle_at
        if idle_at is not None and idle_at <= self._clock.now:
            self._wires.finished(self)
        else:
            self._clock.at(idle_at if idle_at is not None else self._clock.now + FLUSH_S, self._finish)

    def load(self, item: SendPart) -> Message:
        """A part, read at the moment it is sent."""
        payload = self.published.get(item.digest)
        if payload is None:
            return PartMissing(item.digest)
        return Part(item.digest, item.index, part_of(payload, item.index, self.options.part_bytes))

    # Learning

    def _queue_mix(self, effect: Mix | Adopt, own: bytes, digest: bytes) -> None:
        self.mixes.append((effect, own, bytes(self.inbox.pop(digest)), self.encodings.pop(digest)))
        self._work()

    def _admit(self, digest: bytes) -> None:
        assert self.mixer is not None
        problem: str | None = None
        payload = self.inbox.get(digest)
        try:
            if payload is None:
                problem = "no longer held"
            else:
                self.mixer.admit(bytes(payload), self.encodings[digest])
        except RemoteError as error:
            problem = str(error)
        self.handle(Admitted(digest, problem))

    def _work(self) -> None:
        """The next duty of the learner: mixes between two steps, then steps, then the round's end."""
        if self._stepping or self.mixer is None:
            return
        if self.mixes:
            self._stepping = True
            self.later(0.0, self._mix)
        elif self._publications:
            version = self._publish(self._publications.popleft())
            self.later(0.0, self.handle, Published(version))
            self._work()
        elif self._steps_todo:
            self._stepping = True
            spread = self.options.step_jitter_share
            self.later(self.step_s * self._rng.uniform(1.0 - spread, 1.0 + spread), self._stepped)
        elif self._steps_todo == 0:
            self._steps_todo = None
            self._save_if_due()
            progress = self.mixer.progress()
            version = self._publish(self.options.encoding)
            self.handle(Trained(version, progress.steps, progress.examples, self.loss))
            self._work()

    def _mix(self) -> None:
        assert self.mixer is not None
        effect, own, theirs, encoding = self.mixes.popleft()
        before = self.mixer.values
        if isinstance(effect, Adopt):
            report = self.mixer.adopt(theirs, encoding, effect.mixes)
            self._wires.adopted(self, before)
        else:
            report = self.mixer.mix(own, theirs, encoding, effect.weight)
            self._wires.mixed(self, effect.swap, before)
        self._stepping = False
        version = self._publish(self.options.encoding)
        self.handle(Mixed(effect.swap, report.distance, report.norm, report.kept, version))
        self._work()

    def apply_last_mixes(self) -> None:
        """At a clean stop: what was agreed is applied before the last checkpoint."""
        while self.mixes:
            self._mix()

    def _stepped(self) -> None:
        assert self.mixer is not None
        assert self._steps_todo is not None
        self.loss = self.mixer.step().loss
        self._steps_todo -= 1
        self._stepping = False
        self._work()

    def _publish(self, encoding: Encoding) -> Version:
        mixer = self.mixer
        assert mixer is not None
        done, payload = mixer.progress(), mixer.export(encoding)
        version = version_of(payload, encoding, done.steps, done.examples, done.mixes, self.options.part_bytes)
        self.published[version.digest] = payload
        return version

    def _save_if_due(self) -> None:
        assert self.mixer is not None
        if self._saved_at is None:
            self._saved_at = self._clock.now
        elif self._clock.now - self._saved_at >= self.options.checkpoint_interval_s:
            self.checkpoint, self._saved_at = self.mixer.save(), self._clock.now
