"""The simulated network: virtual time, links, dials and faults around many `Run`s of the real core.

An agenda of appointments; seeded generators drive all chance, one for the wires and others for
what runs are compared by; messages go through the real codec unless `codec` is off. The same options and seed give
the same history, down to the digest of it.
"""

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from p2pfed.core.compatibility import difference
from p2pfed.core.events import (
    DialFailed,
    Effect,
    Event,
    FoundBy,
    LinkUp,
    MessageReceived,
    PeerFound,
    PeerRefused,
    Started,
    StopAsked,
)
from p2pfed.core.messages import Message, PeerRecord, Role
from p2pfed.ports import PeerId
from p2pfed.sim.agenda import Agenda
from p2pfed.sim.attackers import Attacker
from p2pfed.sim.frames import Frames
from p2pfed.sim.history import History
from p2pfed.sim.mixers import MixerSource
from p2pfed.sim.options import Nat, NetworkOptions, NodeOptions
from p2pfed.sim.process import Run
from p2pfed.sim.settings import hello_of
from p2pfed.sim.uplink import End
from p2pfed.wire.codec import decode, encode

NETWORK_FIELDS = (("name", '"simulated"'),)


class Watcher(Protocol):
    """Sees everything that happens; may not change anything. `handled` may be called for a sample of events only."""

    def handled(self, run: Run, event: Event, effects: list[Effect], now: float) -> None: ...

    def mixed(self, run: Run, swap: int, before: Sequence[float], now: float) -> None: ...

    def adopted(self, run: Run, before: Sequence[float]) -> None: ...

    def restarted(self, run: Run, before: Sequence[float]) -> None: ...

    def ended_run(self, run: Run) -> None: ...


class Network:
    """All runs and all links. Fault methods may be called at any virtual time, through `at`."""

    def __init__(
        self, options: NetworkOptions, seed: int, mixers: MixerSource, watcher: Watcher, watch_every: int = 1
    ) -> None:
        """`watch_every`: of so many events of a run the watcher's `handled` sees one."""
        self.clock = Agenda()
        self.options = options
        self.history = History()
        self.watch_every = watch_every
        self.bytes_sent = 0
        self.messages: dict[type, int] = {}
        """Sent, by kind."""
        self.runs: dict[str, Run] = {}
        """The current or last run of every node, by name."""
        self._seed = seed
        self._rng = random.Random(f"{seed}/wires")
        self._mixers = mixers
        self._watcher = watcher
        self._frames = Frames(options.codec)
        self._sizes = self._frames.sizes
        self.record: Callable[[float, int, Event, int], None] = self.history.add
        self._starts: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._nodes: list[str] = []
        self._by_address: dict[str, str] = {}
        self._groups: dict[str, int] = {}
        self._links: dict[int, tuple[End, End]] = {}
        self._links_made = 0
        self._downlinks = False
        """Whether any node's is limited: asking each for each message is slow."""

    @property
    def now(self) -> float:
        return self.clock.now

    def at(self, when: float, action: Callable[..., None], *args: object) -> None:
        self.clock.at(when, action, *args)

    # Nodes

    def add(self, options: NodeOptions) -> None:
        """A new node, started at its time."""
        self._numbers[options.name] = len(self._numbers) + 1
        self._by_address[self.address(options.name)] = options.name
        self._downlinks |= options.downlink_bytes_s > 0.0
        if options.role is Role.NODE:
            self._nodes.append(options.name)
        self.clock.at(options.start_s, self._begin, options)

    def address(self, name: str) -> str:
        number = self._numbers[name]
        return f"/ip4/10.{number >> 16}.{number >> 8 & 255}.{number & 255}/tcp/4001"

    def _begin(self, options: NodeOptions) -> None:
        self._start(options, None, self._remembered(options))

    def _remembered(self, options: NodeOptions) -> tuple[PeerRecord, ...]:
        """Those it can link with, or some drawn from all that are to be there."""
        rng = random.Random(f"{self._seed}/{options.name}/remembers")
        names = options.links_only or rng.sample(self._nodes, min(options.remembers, len(self._nodes)))
        return tuple(PeerRecord(PeerId(f"sim-{name}"), (self.address(name),)) for name in names if name != options.name)

    def step_s(self, options: NodeOptions) -> float:
        """How fast this device is: drawn by its name alone."""
        rng = random.Random(f"{self._seed}/{options.name}/speed")
        spread: float = options.step_range ** rng.uniform(-0.5, 0.5)
        return options.step_s * spread * rng.lognormvariate(0.0, options.step_sigma)

    def _start(self, options: NodeOptions, checkpoint: bytes | None, remembered: tuple[PeerRecord, ...]) -> Run:
        count = self._starts[options.name] = self._starts.get(options.name, 0) + 1
        rng = random.Random(f"{self._seed}/{options.name}/{count}")
        mixer = self._mixers.mixer(options) if options.role is Role.NODE else None
        if mixer is not None and checkpoint is not None:
            mixer.load(checkpoint)
        own = hello_of(options, NETWORK_FIELDS, self.address(options.name), rng.getrandbits(53))
        run = Run(options, self._numbers[options.name], own, self, rng, mixer, self.step_s(options))
        run.twist = mixer.twist if isinstance(mixer, Attacker) else None
        run.checkpoint, run.remembered = checkpoint, remembered
        self.runs[options.name] = run
        run.handle(Started(remembered))
        for name in options.knows:
            known = self.runs[name].peer if name in self.runs else PeerId(f"sim-{name}")
            run.handle(PeerFound(known, (self.address(name),), FoundBy.BOOTSTRAP))
        return run

    def stop(self, name: str) -> None:
        """Ask for a clean stop; the run is over once its goodbyes are out."""
        self.runs[name].handle(StopAsked("scenario"))

    def finished(self, run: Run) -> None:
        if not run.running:
            return
        if run.mixer is not None:
            run.apply_last_mixes()
            run.checkpoint = run.mixer.save()
        run.running = False
        self._watcher.ended_run(run)

    def crash(self, name: str, power_loss: bool = False) -> None:
        """Without `power_loss` the operating system resets its links; with it they fall silent."""
        run = self.runs[name]
        if not run.running:
            return
        run.running = False
        self._watcher.ended_run(run)
        self._break_all(run, told=not power_loss)

    def restart(self, name: str, keep: bool = True) -> None:
        """Start again from the last checkpoint and the remembered peers, or (`keep` False) as new."""
        old = self.runs[name]
        if old.running:
            return
        remembered = old.remembered if keep else self._remembered(old.options)
        run = self._start(old.options, old.checkpoint if keep else None, remembered)
        if old.mixer is not None:
            self._watcher.restarted(run, old.mixer.values)

    # Faults of the wires

    def cut(self, groups: tuple[tuple[str, ...], ...], reset: bool = False) -> None:
        """Nothing passes between groups; nodes in none of them form one more. With `reset`, links end audibly."""
        self._groups = {name: number for number, names in enumerate(groups) for name in names}
        for key, ends in list(self._links.items()):
            if self._is_cut(ends[0].run, ends[1].run):
                self._break(key, told=reset)

    def heal(self) -> None:
        """New links may form; those that a cut silenced stay dead."""
        self._groups = {}

    def break_links(self, name: str) -> None:
        """Every link of one node breaks at once, as when it changes its network."""
        self._break_all(self.runs[name], told=True)

    def _is_cut(self, one: Run, other: Run) -> bool:
        return bool(self._groups) and self._groups.get(one.name, -1) != self._groups.get(other.name, -1)

    def _break_all(self, run: Run, told: bool) -> None:
        for key in list(run.links):
            self._break(key, told)

    def _break(self, key: int, told: bool) -> None:
        for end in self._unlink(key):
            end.dead = True
            if told:
                self.clock.at(
                    self.clock.now + self._rng.uniform(0.0, self.options.notice_s), end.run.lose, end, "broken"
                )

    def _unlink(self, key: int) -> tuple[End, ...]:
        ends: tuple[End, ...] = self._links.pop(key, ())
        for end in ends:
            end.run.links.pop(key, None)
        return ends

    # Links

    def dial(self, run: Run, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Addresses in turn; the time of each failure adds up."""
        wait_s = 0.0
        for address in addresses:
            name = self._by_address.get(address)
            target = self.runs.get(name) if name is not None else None
            if target is not None and not self._reaches(run, target):
                wait_s += self.options.dial_timeout_s
                continue
            trip_s = self._trip(run, target) + self._jitter()
            if target is None or not target.running or target.peer != peer:
                wait_s += 2.0 * trip_s
            elif self.options.dial_failure_share and self._rng.random() < self.options.dial_failure_share:
                wait_s += self.options.dial_timeout_s
            else:
                self.clock.at(self.clock.now + wait_s + 3.0 * trip_s, self._connect, run, target, address)
                return
        run.later(wait_s, run.handle, DialFailed(peer, "nobody answers"))

    def _reaches(self, run: Run, target: Run) -> bool:
        """Whether a dial can get through to it at all."""
        only, only_there = run.options.links_only, target.options.links_only
        if (only and target.name not in only) or (only_there and run.name not in only_there):
            return False
        if self._is_cut(run, target):
            return False
        if target.options.nat is Nat.PUBLIC:
            return True
        if not self.options.hole_punching:
            return False
        return not _both_symmetric(run, target) or self.options.relay_delay_s > 0.0

    def _connect(self, run: Run, target: Run, address: str) -> None:
        if not run.running:
            return
        if not target.running or self._is_cut(run, target):
            run.later(self.options.dial_timeout_s, run.handle, DialFailed(target.peer, "handshake broke off"))
            return
        own, theirs = run.hello, target.hello
        if self._frames.codec:
            own, theirs = decode(encode(own)), decode(encode(theirs))  # type: ignore[assignment]
        why, why_there = difference(own, theirs), difference(theirs, own)
        trip_s = self._trip(run, target)
        if own.network_id != theirs.network_id:
            target.handle(PeerRefused(run.peer, why_there or ""))
            run.later(trip_s, run.handle, PeerRefused(target.peer, why or ""))
            return
        near, far = run.new_end(), target.new_end()
        near.other, far.other = far, near
        near.trip_s = far.trip_s = trip_s
        self._links_made += 1
        near.key = far.key = key = self._links_made
        self._links[key] = (near, far)
        run.links[key] = target.links[key] = None
        if self.options.break_interval_s > 0.0:
            life_s = self._rng.expovariate(1.0 / self.options.break_interval_s)
            self.clock.at(self.clock.now + life_s, self._break, key, True)
        far.last_arrival_at = near.last_arrival_at = self.clock.now + trip_s
        up = LinkUp(near.link, target.peer, theirs, True, address)
        self.clock.at(self.clock.now + trip_s, self._link_up, near, up)
        self._link_up(far, LinkUp(far.link, run.peer, own, False, self.address(run.name)))

    def _link_up(self, end: End, event: LinkUp) -> None:
        run = end.run
        if run.running:
            end.told = True
            run.ends[end.link] = end
            run.handle(event)
            if end.dead:  # it broke while this end was still shaking hands
                run.later(self.options.notice_s, run.lose, end, "broken")

    def transmit(self, end: End, message: Message, starts_at: float) -> float:
        """It arrives after the delay, in order, or is lost."""
        run, other, options = end.run, end.other, self.options
        kind = type(message)
        self.messages[kind] = self.messages.get(kind, 0) + 1
        payload: Message | bytes = message
        size = self._sizes.get(kind)
        if size is None:
            payload, size = self._frames.load(message)
        run.bytes_sent += size
        self.bytes_sent += size
        leaves_at = starts_at + size / run.uplink_bytes_s
        if options.drop_share and self._rng.random() < options.drop_share:
            return leaves_at
        arrives_at = leaves_at + end.trip_s + options.jitter_s * self._rng.random()
        if arrives_at < end.last_arrival_at:
            arrives_at = end.last_arrival_at
        if self._downlinks and other.run.options.downlink_bytes_s:
            arrives_at = max(arrives_at, other.run.downlink_free_at) + size / other.run.options.downlink_bytes_s
            other.run.downlink_free_at = arrives_at
        end.last_arrival_at = arrives_at
        self.clock.at(arrives_at, self._arrive, other, payload)
        return leaves_at

    def _arrive(self, end: End, payload: Message | bytes) -> None:
        run = end.run
        if end.dead or end.closing or not end.told or not run.running:
            return
        if isinstance(payload, bytes):
            self.history.add_frame(payload)
            payload = self._frames.read(payload)
        run.handle(MessageReceived(end.link, payload))

    def hang_up(self, end: End, reason: str, leaves_at: float) -> None:
        """The closing end's queue is empty: the other one learns it after the last message."""
        self._unlink(end.key)
        arrives_at = max(leaves_at + end.trip_s + self._jitter(), end.last_arrival_at)
        self.clock.at(arrives_at, end.other.run.lose, end.other, f"closed: {reason}")

    def _trip(self, one: Run, other: Run | None) -> float:
        """One way, without jitter."""
        trip_s = self.options.delay_s + one.options.delay_s
        if other is None:
            return trip_s
        relayed = self.options.relay_delay_s if _both_symmetric(one, other) else 0.0
        return trip_s + other.options.delay_s + relayed

    def _jitter(self) -> float:
        return self.options.jitter_s * self._rng.random()

    # What runs tell

    def handled(self, run: Run, event: Event, effects: list[Effect]) -> None:
        self._watcher.handled(run, event, effects, self.clock.now)

    def mixed(self, run: Run, swap: int, before: Sequence[float]) -> None:
        self._watcher.mixed(run, swap, before, self.clock.now)

    def adopted(self, run: Run, before: Sequence[float]) -> None:
        self._watcher.adopted(run, before)


def _both_symmetric(one: Run, other: Run) -> bool:
    return one.options.nat is Nat.SYMMETRIC and other.options.nat is Nat.SYMMETRIC
