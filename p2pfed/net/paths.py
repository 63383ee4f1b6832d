"""The connections of one host: to whom, by which way (direct or relayed), and how a new one is made.

A direct dial leaves from the port this device listens on where it can. A direct connection is preferred to a relayed
one wherever both stand. One dial to an address at a time.
"""

import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import cast

import trio

from p2pfed.net import hardening  # before libp2p: it leaves out parts of it

# isort: split
from cryptography.exceptions import InvalidTag
from libp2p.abc import IMuxedConn, IRawConnection
from libp2p.custom_types import TProtocol
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.rcmgr import Direction
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from p2pfed.errors import ConfigError, RemoteError, TransportError
from p2pfed.net.address import CIRCUIT, Address, parse_address
from p2pfed.net.circuit import HOP, CircuitStream, ask_circuit
from p2pfed.net.host import UPGRADE_S
from p2pfed.net.interfaces import host_and_port
from p2pfed.net.libp2p_link import as_transport_errors, reset
from p2pfed.net.outbound import Source, open_elsewhere, open_tcp
from p2pfed.net.raw_stream import RawStream
from p2pfed.ports import PeerId

RELEASE_S = 1.0
"""A connection that is still in use by then stays."""
PROBE_S = 4.0
"""For all of `probe`; what does not answer by then is of no use to neighbours either."""


class Paths:
    """Made by `Libp2pTransport`, which opens and shuts it."""

    def __init__(self, swarm: Swarm, own: PeerId, spawn: Callable[..., None], connections_max: int) -> None:
        self._swarm = swarm
        self._own = own
        self._spawn = spawn
        self._connections_max = connections_max
        self._is_open = False
        self._dialling: dict[tuple[PeerId, str], trio.Event] = {}
        self._held: Counter[PeerId] = Counter()
        self._punching: dict[Source, tuple[PeerId, bool]] = {}
        self._changed = trio.Event()
        """Set, and replaced, at each connection that was made."""
        self.sources: Sequence[Source] = ()
        """Where this device listens."""
        self._watch_swarm()

    def open(self, listening: Sequence[Address]) -> None:
        self.sources = tuple((address.host, address.port) for address in listening)
        self._is_open = True

    def shut(self) -> None:
        """No connection is made any more."""
        self._is_open = False

    def standing(self, peer: PeerId, relayed: bool) -> SwarmConn | None:
        """A live connection of that kind."""
        for connection in self._of(peer):
            if not connection.is_closed and connection.muxed_conn.is_established and _is_relayed(connection) == relayed:
                return connection
        return None

    def direct_address(self, peer: PeerId) -> str | None:
        """Where the other end of a direct connection is seen; None where there is none."""
        connection = self.standing(peer, relayed=False)
        return _address_of(hardening.carrier_of(connection)) if connection is not None else None

    async def until_direct(self, peer: PeerId) -> str:
        """Waits for a direct connection, whoever makes it; gives where its other end is seen."""
        while (address := self.direct_address(peer)) is None:
            await self._changed.wait()
        return address

    async def lost(self, peer: PeerId) -> None:
        """Returns when the direct connection that stands now has ended."""
        if (connection := self.standing(peer, relayed=False)) is not None:
            await connection.event_closed.wait()

    @contextmanager
    def holding(self, peer: PeerId) -> Iterator[None]:
        """`disconnect` leaves this peer alone meanwhile: something else than a link needs the connection."""
        self._held[peer] += 1
        try:
            yield
        finally:
            self._held[peer] -= 1
            if not self._held[peer]:
                del self._held[peer]

    async def disconnect(self, peer: PeerId) -> None:
        """Never raises."""
        if peer not in self._held:
            await hardening.close_connections(self._of(peer))

    async def release(self, peer: PeerId) -> None:
        """Close its connections over which nothing runs, soon: a stream's end takes a moment to be told."""
        idle: list[SwarmConn] = []
        with trio.move_on_after(RELEASE_S):
            while not idle:
                await trio.sleep(RELEASE_S / 10)
                idle = [each for each in self._of(peer) if not _in_use(each)] if peer not in self._held else []
        await hardening.close_connections(idle)

    def connected(self, peer: PeerId) -> bool:
        return any(not connection.is_closed for connection in self._of(peer))

    async def close_relayed(self, peer: PeerId) -> None:
        """What a direct connection has replaced; never raises."""
        await hardening.close_connections([c for c in self._of(peer) if _is_relayed(c)])

    async def connection(self, peer: PeerId | None, target: Address) -> SwarmConn:
        """A live one, dialled where there is none; for a direct address a direct one. Raises as `Transport.open`."""
        if peer is None:
            return await self._dial(None, target)
        while True:
            standing = self.standing(peer, relayed=False)
            if standing is None and target.relayed:
                standing = self.standing(peer, relayed=True)
            if standing is not None:
                return standing
            if (dial := (peer, str(target))) not in self._dialling:
                break
            await self._dialling[dial].wait()
        self._dialling[dial] = trio.Event()
        try:
            return await self._dial(peer, target)
        finally:
            self._dialling.pop(dial).set()

    async def stream(self, connection: SwarmConn, protocol: str) -> NetStream:
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

    async def probe(self, peer: PeerId, address: str) -> None:
        """Dial anew, from a port nobody knows, shake hands with `peer`, hang up. Raises as `Transport.open`."""
        target = parse_address(address)
        with limit(PROBE_S, f"no answer in {PROBE_S:.0f} s"), as_transport_errors("no connection"):
            tcp = await open_elsewhere(target.host, target.port)
            try:
                raw = RawConnection(TrioTCPStream(tcp), True)
                await self._swarm.upgrader.security_multistream.secure_outbound(raw, ID.from_base58(peer))
            finally:
                tcp.socket.close()

    async def accept_circuit(self, raw: RawStream, peer: PeerId, on_up: Callable[[PeerId], None]) -> None:
        """The far end of a circuit, once its STOP was answered; returns when the connection has ended."""
        circuit = CircuitStream(raw, f"{raw.address}/p2p/{raw.peer}/{CIRCUIT}")
        with limit(UPGRADE_S, f"no handshake through the relay in {UPGRADE_S:.0f} s"):
            connection = await self._upgrade(circuit, peer, False, "no connection through the relay")
        on_up(peer)
        await connection.event_closed.wait()

    async def upgrade(self, tcp: trio.SocketStream, peer: PeerId | None, *, dialler: bool, what: str) -> SwarmConn:
        """A TCP stream becomes a connection, or is closed. `dialler`: who speaks first; a punched hole has two."""
        hardening.watch_socket(tcp)
        return await self._upgrade(TrioTCPStream(tcp), peer, dialler, what)

    @contextmanager
    def punching(self, peer: PeerId, endpoints: Sequence[Source], *, speaks_first: bool) -> Iterator[None]:
        """What connects with one of these meanwhile was agreed on with `peer`, who speaks first too.

        Whichever socket gets it: a listener, or an ordinary dial that was on its way when the other side's came in.
        """
        self._punching |= dict.fromkeys(endpoints, (peer, speaks_first))
        try:
            yield
        finally:
            for endpoint in endpoints:
                self._punching.pop(endpoint, None)

    def _of(self, peer: PeerId) -> list[SwarmConn]:
        return [cast(SwarmConn, c) for c in self._swarm.get_connections(ID.from_base58(peer))]

    async def _dial(self, peer: PeerId | None, target: Address) -> SwarmConn:
        if len(self._swarm.get_connections()) >= self._connections_max:
            raise TransportError(f"{self._connections_max} connections are open already, none more is made")
        if target.relay is not None:
            return await self._dial_circuit(peer, target, target.relay)
        what = f"no connection to {target}"
        with as_transport_errors(what):
            tcp = await open_tcp(target.host, target.port, self.sources)
        try:
            with as_transport_errors(what):
                _, speaks_first = self._punching.get(tcp.socket.getpeername()[:2], (peer, True))
            return await self.upgrade(tcp, peer, dialler=speaks_first, what=what)
        except RemoteError as error:
            if not isinstance(error.__cause__, InvalidTag):
                raise
        # Two that dial each other at one moment from their listening ports share one connection; both speak first.
        with as_transport_errors(what):
            tcp = await open_tcp(target.host, target.port, ())
        return await self.upgrade(tcp, peer, dialler=True, what=what)

    async def _dial_circuit(self, peer: PeerId | None, target: Address, relay: PeerId) -> SwarmConn:
        if peer is None or relay in (peer, self._own):
            raise TransportError(f"{target} is no way to {peer or 'a peer of unknown id'}")
        way = Address(target.kind, target.host, target.port)
        raw = RawStream(await self.stream(await self.connection(relay, way), HOP), str(way), True)
        done = False
        try:
            await ask_circuit(raw, peer)
            done = True
        finally:
            if not done:
                self._spawn(raw.reset)
        return await self._upgrade(CircuitStream(raw, str(target)), peer, True, f"no connection to {target}")

    async def _upgrade(self, carrier: ReadWriteCloser, peer: PeerId | None, dialler: bool, what: str) -> SwarmConn:
        raw = RawConnection(carrier, dialler)
        done = False
        try:
            if not self._is_open:
                raise TransportError("this transport is not running")
            with as_transport_errors(what):
                upgrader = self._swarm.upgrader
                security = upgrader.security_multistream
                expected = cast(ID, ID.from_base58(peer) if peer is not None else None)
                secured = await (security.secure_outbound(raw, expected) if dialler else security.secure_inbound(raw))
                if peer is not None and str(secured.get_remote_peer()) != peer:
                    raise RemoteError(f"{what}: another peer answers there")
                muxed = await upgrader.upgrade_connection(secured, secured.get_remote_peer())
                connection = await self._swarm.add_conn(muxed, direction="outbound" if dialler else "inbound")
                done = True
                return connection
        finally:
            if not done:
                _abort(carrier)
                with trio.CancelScope(shield=True), trio.move_on_after(hardening.CLOSE_GRACE_S):
                    await raw.close()

    def _watch_swarm(self) -> None:
        accept, add = self._swarm.upgrade_inbound_raw_conn, self._swarm.add_conn

        async def upgrade_inbound_raw_conn(raw_conn: IRawConnection, maddr: Multiaddr) -> IMuxedConn:
            peer, speaks_first = self._punching.get(raw_conn.get_remote_address() or ("", 0), (None, False))
            if not speaks_first:
                return await accept(raw_conn, maddr)
            with trio.fail_after(UPGRADE_S):
                connection = await self._upgrade(cast(RawConnection, raw_conn).stream, peer, True, "no punched hole")
            return connection.muxed_conn

        async def add_conn(muxed_conn: IMuxedConn, direction: str = "unknown") -> SwarmConn:
            connection = await add(muxed_conn, direction=direction)
            self._changed.set()
            self._changed = trio.Event()
            return connection

        self._swarm.upgrade_inbound_raw_conn = upgrade_inbound_raw_conn  # type: ignore[method-assign]
        self._swarm.add_conn = add_conn  # type: ignore[method-assign]


def address_of(stream: NetStream) -> str:
    """The far end of the stream's connection, as this side sees it."""
    assert stream.swarm_conn is not None
    return _address_of(hardening.carrier_of(stream.swarm_conn))


def dialled_from(stream: NetStream) -> int:
    """As `RawStream.dialled_from`."""
    assert stream.swarm_conn is not None
    carrier = hardening.carrier_of(stream.swarm_conn)
    if stream.swarm_conn.direction is not Direction.OUTBOUND or not isinstance(carrier, TrioTCPStream):
        return 0
    try:
        return int(carrier.stream.socket.getsockname()[1])
    except OSError:  # gone already
        return 0


def dialled_address(peer: PeerId | None, text: str) -> Address:
    try:
        target = parse_address(text)
    except ConfigError as error:  # most addresses are hearsay: not the user's fault
        raise TransportError(str(error)) from error
    if target.peer is not None and peer is not None and target.peer != peer:
        raise TransportError(f"address {text} names another peer than {peer}")
    return target


@contextmanager
def limit(seconds: float, message: str) -> Iterator[None]:
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise TransportError(message)


def _abort(carrier: ReadWriteCloser) -> None:
    """Its close is to be a reset. Else the two ports, which are the listening ones, stay taken for a minute, and for
    so long no hole can be punched between the two."""
    if isinstance(carrier, TrioTCPStream):
        with suppress(OSError):
            carrier.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _in_use(connection: SwarmConn) -> bool:
    """A stream that ended with unread bytes stays in the books for a minute."""
    return any(not stream.closed for stream in cast(Yamux, connection.muxed_conn).streams.values())


def _is_relayed(connection: SwarmConn) -> bool:
    return isinstance(hardening.carrier_of(connection), CircuitStream)


def _address_of(carrier: ReadWriteCloser | None) -> str:
    if isinstance(carrier, CircuitStream):
        return carrier.address
    try:
        host, port = (
            host_and_port(carrier.stream.socket.getpeername()) if isinstance(carrier, TrioTCPStream) else ("", 0)
        )
    except OSError:  # gone already
        return ""
    return str(Address("ip6" if ":" in host else "ip4", host, port))
