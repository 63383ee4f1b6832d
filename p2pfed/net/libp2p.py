"""ports.Transport over libp2p: TCP, Noise and Yamux, nothing else.

It dials exactly the one address it is given, with a limit of DIAL_S, and never what libp2p's peerstore
remembers. Who may connect is asked inside the Noise handshake, both ways. Every limit is a constant below.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import cast

import trio

from p2pfed.net import hardening  # before libp2p: it leaves out parts of it

# isort: split
from libp2p import new_host
from libp2p.abc import INetStream, IRawConnection, ISecureConn
from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as new_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.io.trio import TrioTCPStream
from libp2p.network.config import ConnectionConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from p2pfed.errors import ConfigError, ExitCode, LocalError, P2pfedError, TransportError
from p2pfed.net.address import Address, parse_address
from p2pfed.net.identity import Identity
from p2pfed.net.interfaces import host_and_port, listen_plan, own_addresses, usable_interfaces
from p2pfed.net.libp2p_link import Libp2pLink, as_transport_errors, reset
from p2pfed.net.raw_stream import RawStream
from p2pfed.ports import Link, PeerId

log = logging.getLogger("p2pfed.net")

DIAL_S = 10.0
"""For all of open: TCP, Noise, Yamux, stream. Three round trips and a little Python, even at 1 s each."""
UPGRADE_S = 10.0
"""For a stranger's half of the handshake; a silent socket is dropped after it."""
LIMITS = hardening.Limits(
    connections_max=128,  # a node has 8 neighbours, a bootstrap peer serves short visits
    connections_per_peer_max=4,  # both sides dialling at once make two; more is a mistake or a flood
    handshakes_max=128,  # each lasts UPGRADE_S at most
    streams_max=256,
    streams_per_peer_max=16,  # a gossip link, a hello and a few swaps at a time; above it streams are reset
)
CLOSE_S = 2.0
RELEASE_S = 1.0
"""A connection that is still in use by then stays."""


class _GatedNoise(NoiseTransport):
    """Noise that refuses a peer who is not admitted, before a multiplexer exists."""

    def __init__(self, key_pair: KeyPair, allowed: Callable[[PeerId], bool]) -> None:
        super().__init__(key_pair, noise_privkey=new_noise_key_pair().private_key)
        self._allowed = allowed

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        return await self._admit(await super().secure_inbound(conn))

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        """`peer_id` may be None: whoever answers."""
        return await self._admit(await super().secure_outbound(conn, peer_id))

    async def _admit(self, secured: ISecureConn) -> ISecureConn:
        peer = str(secured.get_remote_peer())
        if not self._allowed(PeerId(peer)):
            await secured.close()
            raise HandshakeFailure(f"peer {peer} is not admitted")
        return secured


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
        self._limits = limits
        self._host = _make_host(identity, allowed, limits)
        self._swarm = cast(Swarm, self._host.get_network())
        self._peer = PeerId(str(self._host.get_id()))
        self._nursery: trio.Nursery | None = None
        self._listening: tuple[Address, ...] = ()
        self._addresses: tuple[str, ...] = ()
        self._dialling: dict[PeerId, trio.Event] = {}

    @property
    def peer(self) -> PeerId:
        return self._peer

    def addresses(self) -> Sequence[str]:
        return self._addresses

    def listening(self) -> Sequence[str]:
        return [str(each) for each in self._listening]

    def refresh_addresses(self) -> bool:
        """Find out anew which addresses to tell, after the interfaces changed. True where they are others now."""
        before, self._addresses = self._addresses, own_addresses(self._listening, usable_interfaces(self._interfaces))
        return before != self._addresses

    def connections(self) -> int:
        """Live connections, for status."""
        return len(self._swarm.get_connections())

    def connected(self, peer: PeerId) -> bool:
        return any(not connection.is_closed for connection in self._connections(peer))

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
                self._listening = self._find_listening(plan)
                self.refresh_addresses()
                yield
            except Exception as error:  # noqa: BLE001  raised again below: libp2p's nurseries would wrap it in groups
                failure = error
            finally:
                with trio.CancelScope(shield=True):
                    self._nursery.cancel_scope.cancel()
                    self._nursery = None
                    self._addresses = self._listening = ()
                    await self._close()
        if failure is not None:
            raise failure

    async def open(self, peer: PeerId | None, address: str, protocol: str) -> Link:
        return self._link(await self._open(peer, address, protocol), outbound=True)

    async def open_raw(self, peer: PeerId | None, address: str, protocol: str) -> RawStream:
        """As `open`, for a protocol that is not p2pfed's own."""
        return self._raw(await self._open(peer, address, protocol), outbound=True)

    async def _open(self, peer: PeerId | None, address: str, protocol: str) -> NetStream:
        try:
            target = parse_address(address)
        except ConfigError as error:  # most addresses are hearsay: not the user's fault
            raise TransportError(str(error)) from error
        if target.peer is not None and peer is not None and target.peer != peer:
            raise TransportError(f"address {address} names another peer than {peer}")
        late = f"no answer in {DIAL_S:.0f} s: the host is off, or a firewall drops the port"
        with _limit(DIAL_S, f"no connection to {target}: {late}"):
            connection = await self._connection(peer or target.peer, target)
            return await self._stream(connection, protocol)

    async def disconnect(self, peer: PeerId) -> None:
        await hardening.close_connections(self._connections(peer))

    def release(self, peer: PeerId) -> None:
        """Close, soon, the connections to that peer over which nothing runs any more."""
        self._spawn(self._release, peer)

    async def _release(self, peer: PeerId) -> None:
        idle: list[SwarmConn] = []
        with trio.move_on_after(RELEASE_S):
            while not idle:
                await trio.sleep(RELEASE_S / 10)  # a stream's end takes a moment to be told
                idle = [each for each in self._connections(peer) if not _in_use(each)]
        await hardening.close_connections(idle)

    def _connections(self, peer: PeerId) -> list[SwarmConn]:
        return [cast(SwarmConn, c) for c in self._swarm.get_connections(ID.from_base58(peer))]

    async def _connection(self, peer: PeerId | None, target: Address) -> SwarmConn:
        """A live connection, dialled where there is none; one dial to a peer at a time."""
        if peer is None:
            return await self._dial(None, target)
        while True:
            for connection in self._connections(peer):
                if not connection.is_closed and connection.muxed_conn.is_established:
                    return connection
            if peer not in self._dialling:
                break
            await self._dialling[peer].wait()
        self._dialling[peer] = trio.Event()
        try:
            return await self._dial(peer, target)
        finally:
            self._dialling.pop(peer).set()

    async def _dial(self, peer: PeerId | None, target: Address) -> SwarmConn:
        if self._nursery is None:
            raise TransportError("this transport is not running")
        if len(self._swarm.get_connections()) >= self._limits.connections_max:
            raise TransportError(f"{self._limits.connections_max} connections are open already, none more is made")
        raw: RawConnection | None = None
        done = False
        try:
            with as_transport_errors(f"no connection to {target}"):
                tcp = await trio.open_tcp_stream(target.host, target.port)
                raw = RawConnection(TrioTCPStream(tcp), True)
                hardening.watch_socket(tcp)
                upgrader = self._swarm.upgrader
                expected = ID.from_base58(peer) if peer is not None else None
                secured = await upgrader.security_multistream.secure_outbound(raw, cast(ID, expected))
                muxed = await upgrader.upgrade_connection(secured, secured.get_remote_peer())
                connection = await self._swarm.add_conn(muxed, direction="outbound")
                done = True
                return connection
        finally:
            if raw is not None and not done:
                with trio.CancelScope(shield=True), trio.move_on_after(hardening.CLOSE_GRACE_S):
                    await raw.close()

    async def _stream(self, connection: SwarmConn, protocol: str) -> NetStream:
        stream: NetStream | None = None
        done = False
        try:
            with as_transport_errors(f"no stream to {connection.muxed_conn.peer_id}"):
                stream = await connection.new_stream()
                communicator = MultiselectCommunicator(stream)
                client = MultiselectClient()
                await client.handshake(communicator)
                await client.try_select(communicator, TProtocol(protocol))
                stream.set_protocol(TProtocol(protocol))
                done = True
                return stream
        finally:
            if stream is not None and not done:
                self._spawn(reset, stream)

    def _link(self, stream: NetStream, outbound: bool) -> Libp2pLink:
        return Libp2pLink(stream, self._remote_address(stream), outbound, self._spawn)

    def _raw(self, stream: NetStream, outbound: bool) -> RawStream:
        return RawStream(stream, self._remote_address(stream), outbound)

    def _remote_address(self, stream: NetStream) -> str:
        assert stream.swarm_conn is not None
        return _address_of(hardening.socket_of(stream.swarm_conn))

    def _spawn(self, function: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """What ends a stream outlives its caller, not this transport; afterwards there is nothing to end."""
        if self._nursery is not None:
            self._nursery.start_soon(function, *arguments)

    def _find_listening(self, plan: Sequence[Address]) -> tuple[Address, ...]:
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


def _make_host(identity: Identity, allowed: Callable[[PeerId], bool], limits: hardening.Limits) -> BasicHost:
    private = Ed25519PrivateKey.new(identity.seed)
    key_pair = KeyPair(private, private.get_public_key())
    host = new_host(
        key_pair=key_pair,
        sec_opt={TProtocol(NOISE): _GatedNoise(key_pair, allowed)},
        muxer_opt={TProtocol(YAMUX): Yamux},
        disable_identify_address_discovery=True,
        connection_config=ConnectionConfig(
            max_connections=limits.connections_max,
            min_connections=0,
            low_watermark=0,
            high_watermark=limits.connections_max,
            inbound_upgrade_timeout=UPGRADE_S,
        ),
    )
    assert isinstance(host, BasicHost)
    hardening.harden(host, limits)
    return host


def _in_use(connection: SwarmConn) -> bool:
    """A stream that ended with unread bytes stays in the books for a minute."""
    return any(not stream.closed for stream in cast(Yamux, connection.muxed_conn).streams.values())


def _listen_address(text: str) -> Address:
    address = parse_address(text)
    if address.kind.startswith("dns") or address.peer is not None:
        raise ConfigError(f"listen address {text!r} is not of the form /ip4/HOST/tcp/PORT or /ip6/HOST/tcp/PORT")
    return address


def _address_of(tcp: trio.SocketStream | None) -> str:
    try:
        host, port = host_and_port(tcp.socket.getpeername()) if tcp is not None else ("", 0)
    except OSError:  # gone already
        return ""
    return str(Address("ip6" if ":" in host else "ip4", host, port))


@contextmanager
def _limit(seconds: float, message: str) -> Iterator[None]:
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise TransportError(message)
