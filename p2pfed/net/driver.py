"""The one task that owns a state machine on a real network: events in, effects out (trio).

Never waits for a peer: sends go to bounded queues, dials and checks run in tasks of their own and
come back as events. The mixer has its own task (`worker`). What a peer sent is kept in memory
until it is mixed; disk is not touched for it. The machine hashes an arriving part itself: 0.27 ms for 256 KiB
were measured, and 0.41 ms with a thread for it.
"""

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import trio

from p2pfed.core.compatibility import difference
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
    KeepPart,
    LinkId,
    Mix,
    PeerRefused,
    Publish,
    Remember,
    Report,
    Retire,
    Send,
    SendPart,
    SetTimer,
    Timer,
    TimerFired,
    Train,
)
from p2pfed.core.messages import ADDRESSES_MAX, Hello, PeerRecord, Version
from p2pfed.errors import ProtocolMissing, RemoteError, TransportError
from p2pfed.net.address import is_circuit
from p2pfed.net.dial_order import dial_order
from p2pfed.net.hello_desk import HELLO_PROTOCOL, HelloDesk
from p2pfed.net.open_first import DIAL_S, open_first
from p2pfed.net.session import Session, exchange_hellos
from p2pfed.net.worker import MixerWorker, Received
from p2pfed.ports import Encoding, Link, Mixer, PeerId, Transport

EVENTS_QUEUED_MAX = 32
"""Events waiting for the state task; readers wait beyond it. With a 256 KiB part each, 8 MiB."""
INBOXES_MAX = 2
"""Received versions held at once: the one in a swap and one that a late mix still needs."""
HANDSHAKES_MAX = 32
"""Inbound links shaking hands at once: a flood waits outside the state machine."""
STOP_S = 3.0
"""Goodbyes and the last checkpoint get so long: Ctrl-C must end a node within 5 s."""


def gossip_protocol(network_id: str) -> str:
    return f"/p2pfed/{network_id}/gossip/2"


class Machine(Protocol):
    """`core.peer.PeerState` or `core.collection.Collector`."""

    def handle(self, event: Event, now: float) -> list[Effect]: ...


@dataclass(slots=True)
class _Incoming:
    """A version on its way: its parts as they came, then, once, the whole."""

    version: Version
    parts: dict[int, bytes] = field(default_factory=dict)
    whole: bytes = b""

    @property
    def complete(self) -> bool:
        return bool(self.whole) or len(self.parts) == len(self.version.parts)

    def received(self) -> Received:
        if not self.whole:
            self.whole = b"".join(self.parts[index] for index in range(len(self.version.parts)))
            self.parts.clear()
        return Received(self.whole, self.version.encoding)


class Driver:
    """Runs one machine. `on_report` takes event-log entries, `on_remember` the peers worth keeping."""

    def __init__(
        self,
        transport: Transport,
        network_id: str,
        *,
        on_report: Callable[[Report], None],
        on_remember: Callable[[tuple[PeerRecord, ...]], None],
        wall_clock: Callable[[], float],
        addresses: Callable[[], Sequence[str]] | None = None,
        desk: HelloDesk | None = None,
    ) -> None:
        """`addresses`: those to tell others, where they are not just the transport's. `desk`: of a transport that
        several drivers share."""
        self.transport = transport
        self._addresses = addresses or transport.addresses
        self.sessions: dict[LinkId, Session] = {}
        self.bytes_sent_before = 0
        self.bytes_received_before = 0
        self.worker: MixerWorker | None = None
        self._protocol = gossip_protocol(network_id)
        self._on_report = on_report
        self._on_remember = on_remember
        self._wall_clock = wall_clock
        self._hello: Hello | None = None
        self._ready = trio.Event()
        self._handshakes = trio.CapacityLimiter(HANDSHAKES_MAX)
        self._links = itertools.count(1)
        self._inbox: OrderedDict[bytes, _Incoming] = OrderedDict()
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_order = itertools.count()
        self._events_in, self._events_out = trio.open_memory_channel[Event](EVENTS_QUEUED_MAX)
        self._finished = False
        transport.serve(self._protocol, self._on_inbound)
        self._desk = desk if desk is not None else HelloDesk(transport)
        self._desk.add(self)

    @property
    def bytes_sent(self) -> int:
        return self.bytes_sent_before + sum(session.bytes_sent for session in self.sessions.values())

    @property
    def bytes_received(self) -> int:
        return self.bytes_received_before + sum(session.bytes_received for session in self.sessions.values())

    def attach(
        self,
        mixer: Mixer,
        encoding: Encoding,
        save: Callable[[int, bytes], None] | None,
        checkpoint_interval_s: float,
    ) -> None:
        self.worker = MixerWorker(mixer, encoding, self.tell, save, checkpoint_interval_s)

    async def tell(self, event: Event) -> None:
        """Hand an event to the machine; waits while the queue is full. After the end it goes nowhere."""
        with suppress(trio.BrokenResourceError):
            await self._events_in.send(event)

    def tell_nowait(self, event: Event) -> bool:
        """For callbacks that may not wait (discovery): False where the queue is full and the event is lost."""
        try:
            self._events_in.send_nowait(event)
        except (trio.WouldBlock, trio.BrokenResourceError):
            return False
        return True

    async def run(self, machine: Machine, hello: Hello, first: list[Event]) -> None:
        """Until the machine says Finish. Call inside `transport.running()`. `first` are handled before all else."""
        self._hello = hello
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            if self.worker is not None:
                nursery.start_soon(self.worker.run)
            try:
                for event in first:
                    self._carry_out(machine.handle(event, trio.current_time()))
                self._ready.set()
                while not self._finished:
                    event = await self._next_event()
                    self._carry_out(machine.handle(event, trio.current_time()))
                await self._shut_down()
            finally:
                # Sessions that are still ending must not wait for a reader that is gone.
                self._events_out.close()
            nursery.cancel_scope.cancel()

    async def _next_event(self) -> Event:
        """The next timer that is due, or the next event, whichever comes first."""
        while True:
            due = self._timers[0][0] if self._timers else float("inf")
            if due <= trio.current_time():
                return TimerFired(heapq.heappop(self._timers)[2])
            with trio.move_on_at(due):
                return await self._events_out.receive()

    async def _shut_down(self) -> None:
        """Let goodbyes out and the worker save, within STOP_S; what is not done by then is let go."""
        for session in list(self.sessions.values()):
            session.close("stopped")
        if self.worker is not None:
            self.worker.stop()
        with trio.move_on_after(STOP_S):
            while self.sessions or (self.worker is not None and not self.worker.over.is_set()):
                with trio.move_on_after(0.1):
                    await self._events_out.receive()  # readers may be waiting to hand over a last event

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._interpret(effect)

    def _interpret(self, effect: Effect) -> None:
        match effect:
            case Send(link=link, message=message):
                if session := self.sessions.get(link):
                    session.send(message)
            case SendPart(link=link):
                if session := self.sessions.get(link):
                    session.send(effect)
            case SetTimer(timer=timer, at=at):
                heapq.heappush(self._timers, (at, next(self._timer_order), timer))
            case KeepPart():
                self._keep(effect)
            case Admit(digest=digest):
                self._nursery.start_soon(self._admit, digest)
            case Mix(digest=digest):
                self._worker.mix(effect, self._inbox.pop(digest).received())
            case Adopt(digest=digest):
                self._worker.adopt(effect, self._inbox.pop(digest).received())
            case Forget(digest=digest):
                self._inbox.pop(digest, None)
            case Retire(digest=digest):
                self._worker.retire(digest)
            case Train(steps=steps):
                self._worker.train(steps)
            case Publish():
                self._worker.publish(effect)
            case Dial(peer=peer, addresses=addresses):
                self._nursery.start_soon(self._dial, peer, addresses)
            case CloseLink(link=link, reason=reason):
                if session := self.sessions.get(link):
                    session.close(reason)
            case Remember(peers=peers):
                self._on_remember(peers)
            case Report():
                self._on_report(effect)
            case Finish():
                self._finished = True

    @property
    def _worker(self) -> MixerWorker:
        assert self.worker is not None, "the machine asked for a learner that this role has not"
        return self.worker

    def _keep(self, effect: KeepPart) -> None:
        version = effect.version
        incoming = self._inbox.setdefault(version.digest, _Incoming(version))
        incoming.parts[effect.index] = effect.data
        while len(self._inbox) > INBOXES_MAX:
            self._inbox.popitem(last=False)

    async def _admit(self, digest: bytes) -> None:
        """The check needs no model, so it runs beside the training step."""
        incoming = self._inbox.get(digest)
        if incoming is None or not incoming.complete:
            await self.tell(Admitted(digest, "no longer held"))
            return
        theirs = incoming.received()
        problem: str | None = None
        try:
            await trio.to_thread.run_sync(self._worker.mixer.admit, theirs.payload, theirs.encoding)
        except RemoteError as error:
            problem = str(error)
        await self.tell(Admitted(digest, problem))

    async def _dial(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """The first address that gives a link; the reason of each failure is kept."""
        ordered = dial_order(addresses, self.transport.addresses())
        try:
            link = await open_first(self.transport, peer, ordered, self._protocol)
        except ProtocolMissing as error:
            await self._diagnose(peer, error.address)
        except TransportError as error:
            await self.tell(DialFailed(peer, str(error)))
        else:
            await self._serve(link)

    def leave_relay(self, peer: PeerId, address: str) -> None:
        """A direct connection stands: a link of ours that goes through a relay moves to it. A swap goes on there."""
        for session in self.sessions.values():
            if session.link.peer == peer and session.link.outbound and is_circuit(session.link.address):
                self._nursery.start_soon(self._move, peer, address)
                return

    async def _move(self, peer: PeerId, address: str) -> None:
        """The machine lets the newer of two links to one peer replace the older."""
        try:
            with trio.fail_after(DIAL_S):
                link = await self.transport.open(peer, address, self._protocol)
        except (TransportError, RemoteError, trio.TooSlowError):
            return  # the relayed link stays; once its connection is closed the peer is dialled anew
        await self._serve(link)

    async def _diagnose(self, peer: PeerId, address: str) -> None:
        """The peer speaks, but not our network's protocol: ask which field differs."""
        try:
            with trio.fail_after(DIAL_S):
                link = await self.transport.open(peer, address, HELLO_PROTOCOL)
                try:
                    theirs = await exchange_hellos(link, self.own_hello())
                finally:
                    await link.aclose()
        except (TransportError, RemoteError, trio.TooSlowError) as error:
            await self.tell(DialFailed(peer, f"{address}: speaks neither our network nor p2pfed's hello ({error})"))
            return
        why = difference(self.own_hello(), theirs)
        if why is None:
            await self.tell(DialFailed(peer, f"{address}: not listening for this network yet"))
        else:
            await self.tell(PeerRefused(peer, why))
        await self._disconnect(peer)

    async def ready(self) -> None:
        """Until the machine has begun."""
        await self._ready.wait()

    def uses(self, peer: PeerId) -> bool:
        """There is a session with that peer."""
        return any(session.link.peer == peer for session in self.sessions.values())

    async def greeted(self, peer: PeerId, theirs: Hello) -> None:
        """A peer said hello and was answered for this network."""
        why = difference(self.own_hello(), theirs)
        if why is not None:
            await self.tell(PeerRefused(peer, why))

    async def _disconnect(self, peer: PeerId) -> None:
        if not self._desk.uses(peer):
            await self.transport.disconnect(peer)

    async def _on_inbound(self, link: Link) -> None:
        await self._ready.wait()
        await self._serve(link)

    async def _serve(self, link: Link) -> None:
        """Handshake, then the session until its end."""
        try:
            async with self._handshakes:
                own = self.own_hello()
                hello = await exchange_hellos(link, own)
        except (TransportError, RemoteError) as error:
            await link.aclose()
            if link.outbound:
                await self.tell(DialFailed(link.peer, f"{link.address}: {error}"))
            return
        number = next(self._links)
        session = Session(number, link, hello, self._read_part)
        session.told_addresses = own.addresses
        self.sessions[number] = session
        try:
            await session.run(self.tell, self._wall_clock())
        finally:
            del self.sessions[number]
            self.bytes_sent_before += session.bytes_sent
            self.bytes_received_before += session.bytes_received
        await self._disconnect(link.peer)

    def _read_part(self, digest: bytes, index: int) -> bytes | None:
        return self.worker.part(digest, index) if self.worker is not None else None

    def own_hello(self) -> Hello:
        assert self._hello is not None
        return replace(self._hello, time_s=self._wall_clock(), addresses=tuple(self._addresses())[:ADDRESSES_MAX])
