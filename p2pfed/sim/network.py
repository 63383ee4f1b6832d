"""The simulated network: virtual time, links, dials and faults around many `Run`s of the real core.

A heap of (time, sequence, action); one seeded generator drives all chance; every message goes
through the real codec. The same options and seed give the same history, down to the digest of it.
"""

import hashlib
import heapq
import random
from collections.abc import Callable
from functools import partial
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
from p2pfed.core.messages import PeerRecord, Role
from p2pfed.ports import PeerId
from p2pfed.sim.learner import ToyMixer
from p2pfed.sim.options import NetworkOptions, NodeOptions
from p2pfed.sim.process import End, Run, hello_of
from p2pfed.wire.codec import decode, encode

START_SPREAD = 1.0
"""Standard deviation of each start value among nodes that start apart."""
NETWORK_FIELDS = (("name", '"simulated"'),)


class Watcher(Protocol):
    """Sees everything that happens; may not change anything."""

    def handled(self, run: Run, event: Event, effects: list[Effect], now: float) -> None: ...

    def mixed(self, run: Run, swap: int, before: list[float]) -> None: ...

    def adopted(self, run: Run, before: list[float]) -> None: ...

    def restarted(self, run: Run, before: list[float]) -> None: ...

    def ended_run(self, run: Run) -> None: ...


class Network:
    """All runs and all links. Fault methods may be called at any virtual time, through `at`."""

    def __init__(self, options: NetworkOptions, seed: int, watcher: Watcher) -> None:
        self.options = options
        self.now = 0.0
        self.events = 0
        self.runs: dict[str, Run] = {}
        """The current or last run of every node, by name."""
        self._seed = seed
        self._rng = random.Random(f"{seed}/wires")
        self._watcher = watcher
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._starts: dict[str, int] = {}
        self._addresses: dict[str, str] = {}
        self._by_address: dict[str, str] = {}
        self._groups: dict[str, int] = {}
        self._links: dict[int, tuple[End, End]] = {}
        self._links_made = 0
        self._history = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Of the whole history so far: every event of every node, with its time."""
        return self._history.hexdigest()

    def at(self, when: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, action))

    def run_until(self, end: float) -> None:
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heapq.heappop(self._heap)
            action()
        self.now = end

    # Nodes

    def add(self, options: NodeOptions) -> None:
        """A new node, started at its time."""
        number = len(self._addresses) + 1
        self._addresses[options.name] = f"/ip4/10.0.{number >> 8}.{number & 255}/tcp/4001"
        self._by_address[self._addresses[options.name]] = options.name
        self.at(options.start_s, partial(self._begin, options))

    def address(self, name: str) -> str:
        return self._addresses[name]

    def start_values(self, options: NodeOptions) -> list[float]:
        rng = random.Random(f"{self._seed}/{options.name}/start")
        return [rng.gauss(0.0, START_SPREAD) for _ in range(options.values)]

    def _begin(self, options: NodeOptions) -> None:
        self._start(options, None, ())

    def _start(self, options: NodeOptions, checkpoint: bytes | None, remembered: tuple[PeerRecord, ...]) -> Run:
        count = self._starts[options.name] = self._starts.get(options.name, 0) + 1
        rng = random.Random(f"{self._seed}/{options.name}/{count}")
        mixer: ToyMixer | None = None
        if options.role is Role.NODE:
            best = random.Random(f"{self._seed}/{options.name}/optimum")
            optimum = [best.gauss(0.0, START_SPREAD) for _ in range(options.values)] if options.trains else None
            mixer = ToyMixer(self.start_values(options), optimum, options.learning_rate)
            if checkpoint is not None:
                mixer.load(checkpoint)
        own = hello_of(options, NETWORK_FIELDS, self.address(options.name), rng.getrandbits(53))
        run = Run(options, own, self, rng, mixer)
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
        if run.running and run.mixer is not None:
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
        for key, ends in list(self._links.items()):
            if run in (ends[0].run, ends[1].run):
                self._break(key, told=not power_loss)

    def restart(self, name: str, keep: bool = True) -> None:
        """Start again from the last checkpoint and the remembered peers, or (`keep` False) as new."""
        old = self.runs[name]
        if old.running:
            return
        run = self._start(old.options, old.checkpoint if keep else None, old.remembered if keep else ())
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
        for key, ends in list(self._links.items()):
            if name in (ends[0].run.name, ends[1].run.name):
                self._break(key, told=True)

    def _is_cut(self, one: Run, other: Run) -> bool:
        return self._groups.get(one.name, -1) != self._groups.get(other.name, -1)

    def _break(self, key: int, told: bool) -> None:
        ends = self._links.pop(key, None)
        for end in ends or ():
            end.dead = True
            if told:
                wait_s = self._rng.uniform(0.0, self.options.notice_s)
                self.at(self.now + wait_s, partial(end.run.lose, end, "broken"))

    # Links

    def dial(self, run: Run, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Addresses in turn; the time of each failure adds up."""
        wait_s = 0.0
        for address in addresses:
            name = self._by_address.get(address)
            target = self.runs.get(name) if name is not None else None
            trip_s = self._trip(run, target)
            if target is not None and self._is_cut(run, target):
                wait_s += self.options.dial_timeout_s
            elif target is None or not target.running or target.peer != peer:
                wait_s += 2.0 * trip_s
            elif self._rng.random() < self.options.dial_failure_share:
                wait_s += self.options.dial_timeout_s
            else:
                self.at(self.now + wait_s + 3.0 * trip_s, partial(self._connect, run, target, address))
                return
        run.later(wait_s, lambda: run.handle(DialFailed(peer, "nobody answers")))

    def _connect(self, run: Run, target: Run, address: str) -> None:
        if not run.running:
            return
        if not target.running or self._is_cut(run, target):
            run.later(self.options.dial_timeout_s, lambda: run.handle(DialFailed(target.peer, "handshake broke off")))
            return
        own, theirs = decode(encode(run.hello)), decode(encode(target.hello))
        assert isinstance(own, type(run.hello)) and isinstance(theirs, type(run.hello))
        why, why_there = difference(own, theirs), difference(theirs, own)
        trip_s = self._trip(run, target)
        if own.network_id != theirs.network_id:
            assert why is not None and why_there is not None
            target.handle(PeerRefused(run.peer, why_there))
            run.later(trip_s, lambda: run.handle(PeerRefused(target.peer, why)))
            return
        near, far = run.new_end(), target.new_end()
        near.other, far.other = far, near
        self._links_made += 1
        near.key = far.key = key = self._links_made
        self._links[key] = (near, far)
        if self.options.break_interval_s > 0.0:
            life_s = self._rng.expovariate(1.0 / self.options.break_interval_s)
            self.at(self.now + life_s, lambda: self._break(key, told=True))
        far.last_arrival_at = near.last_arrival_at = self.now + trip_s
        self.at(self.now + trip_s, lambda: self._link_up(near, LinkUp(near.link, target.peer, theirs, True, address)))
        remote = self.address(run.name)
        self._link_up(far, LinkUp(far.link, run.peer, own, False, remote))

    def _link_up(self, end: End, event: LinkUp) -> None:
        if end.run.running:
            end.told = True
            end.run.ends[end.link] = end
            end.run.handle(event)
            if end.dead:  # it broke while this end was still shaking hands
                end.run.later(self.options.notice_s, lambda: end.run.lose(end, "broken"))

    def transmit(self, end: End, frame: bytes) -> None:
        """The last byte has left: it arrives after the delay, in order, or is lost."""
        if end.dead or self._rng.random() < self.options.drop_share:
            return
        other = end.other
        arrival = max(self.now + self._trip(end.run, other.run), end.last_arrival_at)
        end.last_arrival_at = arrival
        self.at(arrival, lambda: self._arrive(other, frame))

    def _arrive(self, end: End, frame: bytes) -> None:
        if not end.dead and not end.closing and end.told and end.run.running:
            self._history.update(frame)
            end.run.handle(MessageReceived(end.link, decode(frame)))

    def hang_up(self, end: End, reason: str) -> None:
        """The closing end's queue is empty: the other one learns it after the last message."""
        if end.dead:
            return
        other = end.other
        self._links.pop(end.key, None)
        arrival = max(self.now + self._trip(end.run, other.run), end.last_arrival_at)
        self.at(arrival, lambda: other.run.lose(other, f"closed: {reason}"))

    def _trip(self, one: Run, other: Run | None) -> float:
        ends_s = one.options.delay_s + (other.options.delay_s if other is not None else 0.0)
        return self.options.delay_s + ends_s + self._rng.uniform(0.0, self.options.jitter_s)

    # What runs tell

    def handled(self, run: Run, event: Event, effects: list[Effect]) -> None:
        self.events += 1
        self._history.update(f"{self.now!r} {run.name} {type(event).__name__} {len(effects)}".encode())
        self._watcher.handled(run, event, effects, self.now)

    def mixed(self, run: Run, swap: int, before: list[float]) -> None:
        self._watcher.mixed(run, swap, before)

    def adopted(self, run: Run, before: list[float]) -> None:
        self._watcher.adopted(run, before)
