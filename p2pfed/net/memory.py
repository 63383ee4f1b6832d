"""ports.Transport inside one process: for tests and for many nodes in one program. Seeded, no sockets.

A lost frame breaks its link, as TCP would: a link is ordered and whole, or gone. All peers of one
MemoryNetwork live in one trio run; with trio's MockClock the delays cost no time.
"""

import hashlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from p2pfed.errors import P2pfedError, ProtocolMissing, RemoteError, TransportError
from p2pfed.net.address import ED25519_ID_PREFIX, base58_encode
from p2pfed.net.framing import encode
from p2pfed.ports import Link, PeerId

log = logging.getLogger("p2pfed.net")

FRAMES_WAITING_MAX = 4
"""Sent and not received yet, each way: a sender waits for a slow receiver, as with Yamux's window."""

Handler = Callable[[Link], Awaitable[None]]


class MemoryNetwork:
    """The wires between MemoryTransports, and the trouble on them."""

    def __init__(self, seed: int, loss: float = 0.0, delay_s: float = 0.0) -> None:
        self.loss = loss
        """Chance that a frame, or a dial, is lost."""
        self.delay_s = delay_s
        """Of each frame and each dial."""
        self._seed = seed
        self._rng = random.Random(seed)
        self._transports: dict[str, MemoryTransport] = {}
        self._cuts: set[frozenset[PeerId]] = set()

    def transport(
        self, peer: PeerId | None = None, allowed: Callable[[PeerId], bool] = lambda peer: True
    ) -> "MemoryTransport":
        """A new one; it answers at its address while it runs."""
        number = len(self._transports)
        digest = hashlib.sha256(f"{self._seed}/{number}".encode()).digest()
        made = MemoryTransport(
            self, peer or PeerId(base58_encode(ED25519_ID_PREFIX + digest)), f"/memory/{number}", allowed
        )
        self._transports[f"/memory/{number}"] = made
        return made

    def cut(self, one: PeerId, other: PeerId) -> None:
        """Their links break and neither can dial the other, until `heal`."""
        self._cuts.add(frozenset((one, other)))
        for transport in self._transports.values():
            if transport.peer in (one, other):
                transport._break_links(lambda peer: peer in (one, other), "the wire was cut")

    def heal(self, one: PeerId, other: PeerId) -> None:
        self._cuts.discard(frozenset((one, other)))

    def crash(self, transport: "MemoryTransport") -> None:
        """Its links break and its `running` block is cancelled, with all that runs in it; nobody answers there."""
        transport._crash()

    async def _pass(self, one: PeerId, other: PeerId) -> None:
        """One frame's or dial's way over the wire."""
        await trio.sleep(self.delay_s)
        if frozenset((one, other)) in self._cuts:
            raise TransportError(f"no way from {one} to {other}")
        if self.loss and self._rng.random() < self.loss:
            raise TransportError(f"lost on the way from {one} to {other}")

    def _at(self, address: str) -> "MemoryTransport | None":
        return self._transports.get(address)


class MemoryLink:
    """ports.Link; the two ends know each other."""

    def __init__(self, owner: "MemoryTransport", peer: PeerId, address: str, outbound: bool) -> None:
        self.peer = peer
        self.address = address
        self.outbound = outbound
        self._owner = owner
        self._outgoing, self._far_incoming = trio.open_memory_channel[bytes](FRAMES_WAITING_MAX)
        self._far_end: MemoryLink
        self._lost: str | None = None
        self._receiving: trio.CancelScope | None = None
        owner._links.add(self)

    def _join(self, far_end: "MemoryLink") -> None:
        self._far_end, far_end._far_end = far_end, self

    async def send(self, frame: bytes) -> None:
        encode(frame)
        self._check()
        try:
            await self._owner._network._pass(self._owner.peer, self.peer)
        except TransportError as error:
            self._break(str(error))
            raise
        self._check()
        try:
            await self._outgoing.send(bytes(frame))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._check()
            raise TransportError(f"link to {self.peer} was closed by the other side") from error

    async def receive(self) -> bytes:
        self._check()
        try:
            with trio.CancelScope() as self._receiving:
                return await self._far_end._far_incoming.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as error:
            self._check()
            raise TransportError(f"link to {self.peer} was closed by the other side") from error
        finally:
            self._receiving = None
        self._check()
        raise AssertionError("a receive that was cancelled has a reason")

    async def aclose(self) -> None:
        self._end("it was closed by this side")

    def _check(self) -> None:
        if self._lost is not None:
            raise TransportError(f"link to {self.peer} is gone: {self._lost}")

    def _end(self, reason: str) -> None:
        """Close this end; what was sent can still be received."""
        if self._lost is None:
            self._lost = reason
            self._owner._links.discard(self)
            self._outgoing.close()
            self._far_end._far_incoming.close()
            if self._receiving is not None:
                self._receiving.cancel()

    def _break(self, reason: str) -> None:
        """Both ends at once; what was under way is lost."""
        self._end(reason)
        self._far_end._end(reason)


class MemoryTransport:
    """ports.Transport; made by MemoryNetwork.transport."""

    def __init__(self, network: MemoryNetwork, peer: PeerId, address: str, allowed: Callable[[PeerId], bool]) -> None:
        self._network = network
        self._peer = peer
        self._address = address
        self._allowed = allowed
        self._handlers: dict[str, Handler] = {}
        self._links: set[MemoryLink] = set()
        self._nursery: trio.Nursery | None = None

    @property
    def peer(self) -> PeerId:
        return self._peer

    def addresses(self) -> Sequence[str]:
        return (self._address,) if self._nursery is not None else ()

    def listening(self) -> Sequence[str]:
        return self.addresses()

    def refresh_addresses(self) -> bool:
        return False

    def serve(self, protocol: str, handler: Handler) -> None:
        self._handlers[protocol] = handler

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        failure: Exception | None = None
        async with trio.open_nursery() as self._nursery:
            try:
                yield
            except Exception as error:  # noqa: BLE001  raised again below: the nursery would wrap it in a group
                failure = error
            finally:
                for link in list(self._links):
                    link._end("this transport stopped")
                if self._nursery is not None:
                    self._nursery.cancel_scope.cancel()
                self._nursery = None
        if failure is not None:
            raise failure

    async def open(self, peer: PeerId | None, address: str, protocol: str) -> Link:
        if self._nursery is None:
            raise TransportError("this transport is not running")
        target = self._network._at(address)
        if target is None or target._nursery is None:
            await trio.sleep(self._network.delay_s)
            raise TransportError(f"nobody answers at {address}")
        await self._network._pass(self._peer, target._peer)
        if peer is not None and target._peer != peer:
            raise RemoteError(f"another peer answers at {address}: {target._peer}")
        if not self._allowed(target._peer) or not target._allowed(self._peer):
            raise TransportError(f"{self._peer} and {target._peer} do not admit each other")
        if target._nursery is None or self._nursery is None:
            raise TransportError(f"nobody answers at {address}")
        if protocol not in target._handlers:
            raise ProtocolMissing(f"{target._peer} does not speak {protocol}")
        link = MemoryLink(self, target._peer, address, outbound=True)
        far_end = MemoryLink(target, self._peer, self._address, outbound=False)
        link._join(far_end)
        target._nursery.start_soon(target._handle, target._handlers[protocol], far_end)
        return link

    async def disconnect(self, peer: PeerId) -> None:
        self._break_links(lambda other: other == peer, "this side disconnected")
        await trio.lowlevel.checkpoint()

    async def _handle(self, handler: Handler, link: MemoryLink) -> None:
        try:
            await handler(link)
        except P2pfedError as error:
            log.debug("link of %s ended: %s", link.peer, error)
        except Exception as error:
            log.warning("handler of %s failed with %r", link.peer, error, exc_info=error)
        finally:
            await link.aclose()

    def _break_links(self, chosen: Callable[[PeerId], bool], reason: str) -> None:
        for link in list(self._links):
            if chosen(link.peer):
                link._break(reason)

    def _crash(self) -> None:
        self._break_links(lambda peer: True, "the peer crashed")
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
            self._nursery = None
