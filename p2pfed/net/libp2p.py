"""ports.Transport over libp2p: TCP, Noise and Yamux, nothing else; or a circuit through a relay in TCP's place.

It dials exactly the one address it is given, with a limit of DIAL_S, and never what libp2p's peerstore
remembers. Who may connect is asked inside the Noise handshake, both ways. Every limit is a constant here or in `host`.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import trio

from p2pfed.net import hardening  # before libp2p: it leaves out parts of it

# isort: split
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from multiaddr import Multiaddr

from p2pfed.errors import ConfigError, ExitCode, LocalError, P2pfedError, TransportError
from p2pfed.net.address import Address, parse_address
from p2pfed.net.host import LIMITS as LIMITS
from p2pfed.net.host import make_host
from p2pfed.net.identity import Identity
from p2pfed.net.interfaces import listen_plan, own_addresses, usable_interfaces
from p2pfed.net.libp2p_link import Libp2pLink
from p2pfed.net.paths import Paths, address_of, dialled_address, dialled_from, limit
from p2pfed.net.raw_stream import RawStream
from p2pfed.ports import Link, PeerId

log = logging.getLogger("p2pfed.net")

DIAL_S = 10.0
"""For all of open: TCP, Noise, Yamux, stream. Three round trips and a little Python, even at 1 s each."""
CLOSE_S = 2.0


class Libp2pTransport:
    """ports.Transport. One object, one life: `running` can be entered once."""

    def __init__(
        self,
        identity: Identity,
        listen: Sequence[str] = ("/ip4/0.0.0.0/tcp/0",),
        allowed: Callable[[PeerId], bool] = lambda peer: True,
        interfaces: Sequence[str] = (),
        limits: hardening.Limits = LIMITS,
    ) -> None:
        """`interfaces`: the ones whose addresses are told; none: all usable ones.

        Raises ConfigError for a listen address, LocalError for another libp2p.
        """
        hardening.apply()
        self._interfaces = tuple(interfaces)
        self._listen = tuple(_listen_address(text) for text in listen)
        self._host = make_host(identity, allowed, limits)
        self._swarm = cast(Swarm, self._host.get_network())
        self._peer = PeerId(str(self._host.get_id()))
        self._nursery: trio.Nursery | None = None
        self._bound: tuple[Address, ...] = ()
        self._addresses: tuple[str, ...] = ()
        self.paths = Paths(self._swarm, self._peer, self._spawn, limits.connections_max)

    @property
    def peer(self) -> PeerId:
        return self._peer

    def addresses(self) -> Sequence[str]:
        return self._addresses

    def listening(self) -> Sequence[str]:
        return [str(each) for each in self._bound]

    def refresh_addresses(self) -> bool:
        """Find out anew which addresses to tell, after the interfaces changed. True where they are others now."""
        before, self._addresses = self._addresses, own_addresses(self._bound, usable_interfaces(self._interfaces))
        return before != self._addresses

    def connections(self) -> int:
        """Live connections, for status."""
        return len(self._swarm.get_connections())

    def connected(self, peer: PeerId) -> bool:
        return self.paths.connected(peer)

    def protocols(self) -> list[str]:
        """Every protocol that is served, by name."""
        return sorted(str(each) for each in self._host.get_mux().get_protocols() if each is not None)

    def serve(self, protocol: str, handler: Callable[[Link], Awaitable[None]]) -> None:
        async def handle(stream: INetStream) -> None:
            link = self._link(cast(NetStream, stream), outbound=False)
            try:
                await handler(link)
            except P2pfedError as error:
                log.debug("link of %s ended: %s", link.peer, error)
            finally:
                await link.aclose()

        self._host.set_stream_handler(TProtocol(protocol), handle)

    def serve_raw(self, protocol: str, handler: Callable[[RawStream], Awaitable[None]]) -> None:
        """As `serve`, for a protocol that is not p2pfed's own."""

        async def handle(stream: INetStream) -> None:
            raw = self._raw(cast(NetStream, stream), outbound=False)
            try:
                await handler(raw)
            except P2pfedError as error:
                log.debug("stream of %s for %s ended: %s", raw.peer, protocol, error)
                await raw.reset()
            finally:
                await raw.aclose()

        self._host.set_stream_handler(TProtocol(protocol), handle)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        plan = listen_plan(self._listen)
        failure: Exception | None = None
        async with self._host.run([Multiaddr(str(a)) for a in plan]), trio.open_nursery() as self._nursery:
            try:
                self._bound = self._find_bound(plan)
                self.refresh_addresses()
                self.paths.open(self._bound)
                yield
            except Exception as error:  # noqa: BLE001  raised again below: libp2p's nurseries would wrap it in groups
                failure = error
            finally:
                with trio.CancelScope(shield=True):
                    self._nursery.cancel_scope.cancel()
                    self._nursery = None
                    self._addresses, self._bound = (), ()
                    self.paths.shut()
                    await self._close()
        if failure is not None:
            raise failure

    async def open(self, peer: PeerId | None, address: str, protocol: str) -> Link:
        return self._link(await self._open(peer, address, protocol), outbound=True)

    async def open_raw(self, peer: PeerId | None, address: str, protocol: str) -> RawStream:
        """As `open`, for a protocol that is not p2pfed's own."""
        return self._raw(await self._open(peer, address, protocol), outbound=True)

    async def open_raw_standing(self, peer: PeerId, protocol: str, *, relayed: bool) -> RawStream:
        """As `open_raw`, over a connection that stands, direct or relayed; never dials."""
        connection = self.paths.standing(peer, relayed)
        if connection is None:
            raise TransportError(f"no {'relayed' if relayed else 'direct'} connection to {peer} stands")
        with limit(DIAL_S, f"{peer} opened no stream in {DIAL_S:.0f} s"):
            return self._raw(await self.paths.stream(connection, protocol), outbound=True)

    async def _open(self, peer: PeerId | None, address: str, protocol: str) -> NetStream:
        target = dialled_address(peer, address)
        with limit(DIAL_S, _late(target)):
            connection = await self.paths.connection(peer or target.peer, target)
            return await self.paths.stream(connection, protocol)

    async def connect(self, peer: PeerId, address: str) -> None:
        """`open` without a stream: a direct connection stands afterwards, or for a circuit any."""
        target = dialled_address(peer, address)
        with limit(DIAL_S, _late(target)):
            await self.paths.connection(peer, target)

    async def disconnect(self, peer: PeerId) -> None:
        """Unless something else than a link holds the connection (`paths.holding`)."""
        await self.paths.disconnect(peer)

    def release(self, peer: PeerId) -> None:
        """Close, soon, the connections to that peer over which nothing runs any more."""
        self._spawn(self.paths.release, peer)

    def _link(self, stream: NetStream, outbound: bool) -> Libp2pLink:
        return Libp2pLink(stream, address_of(stream), outbound, self._spawn)

    def _raw(self, stream: NetStream, outbound: bool) -> RawStream:
        return RawStream(stream, address_of(stream), outbound, dialled_from(stream))

    def _spawn(self, function: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """What ends a stream outlives its caller, not this transport; afterwards there is nothing to end."""
        if self._nursery is not None:
            self._nursery.start_soon(function, *arguments)

    def _find_bound(self, plan: Sequence[Address]) -> tuple[Address, ...]:
        found: dict[Address, None] = {}
        for address in plan:
            listener = self._swarm.listeners.get(str(address))
            if listener is None:
                raise LocalError(f"cannot listen on {address}; is the address one of this device's?", ExitCode.PORT)
            for bound in listener.get_addrs():
                found[Address(address.kind, address.host, parse_address(str(bound)).port)] = None
        return tuple(found)

    async def _close(self) -> None:
        # Listeners first: a peer that just lost us dials again at once.
        for listener in list(self._swarm.listeners.values()):
            await listener.close()
        await hardening.close_connections([cast(SwarmConn, c) for c in self._swarm.get_connections()])
        with trio.move_on_after(CLOSE_S):
            await self._host.close()


def _listen_address(text: str) -> Address:
    address = parse_address(text)
    if address.kind.startswith("dns") or address.peer is not None or address.relayed:
        raise ConfigError(f"listen address {text!r} is not of the form /ip4/HOST/tcp/PORT or /ip6/HOST/tcp/PORT")
    return address


def _late(target: Address) -> str:
    return f"no connection to {target}: no answer in {DIAL_S:.0f} s: the host is off, or a firewall drops the port"
