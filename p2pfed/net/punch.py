"""From a relayed connection to a direct one: DCUtR (libp2p specs, relay/DCUtR), TCP only.

The side that was dialled begins: it dials what the other one says of itself, and where that leads nowhere the two
tell each other where they are seen, and dial at the same moment from their listening ports. The side that asked the
relay speaks first on whatever comes of it. On failure all stays as it was; the next tries are ever later, and few.
"""

import ipaddress
import logging
from collections.abc import Callable, Sequence

import trio

from p2pfed.net.libp2p import Libp2pTransport  # before libp2p

# isort: split
from google.protobuf.message import DecodeError
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from multiaddr import Multiaddr

from p2pfed.errors import ConfigError, P2pfedError, RemoteError, TransportError
from p2pfed.net.address import is_circuit, parse_address
from p2pfed.net.outbound import Source, open_from, source_for
from p2pfed.net.paths import limit
from p2pfed.net.raw_stream import RawStream
from p2pfed.ports import PeerId

log = logging.getLogger("p2pfed.net")

PROTOCOL = "/libp2p/dcutr"
MESSAGE_BYTES_MAX = 4096
"""The specification's limit."""
ADDRESSES_MAX = 4
"""Dialled at once on a peer's word; each costs a few packets."""
MESSAGE_S = 10.0
ROUNDS = 3
"""In one try, as the specification has it: the first may miss because a relay was slow once."""
ROUND_S = 4.0
"""Three SYNs go out in it, at 0, 1 and 3 s."""
DIRECT_S = 5.0
"""For what the other side says of itself."""
TRY_PAUSES_S = (0.0, 5.0, 20.0, 60.0, 600.0)
"""Before each try: soon again, for the other side may not know yet where it is seen; then hardly ever."""
NEWS_MAX = 8
"""Tries besides, each for something new that either side learnt."""
SETTLE_S = 0.5
"""After news, until it is used: what a peer said has to get to those who keep it."""
REDIAL_S = 0.1
"""After a refusal, until the round ends: the other side's SYN may not have opened its NAT yet."""
GRACE_S = 10.0
"""Until the replaced connection is closed: links move meanwhile."""


class Puncher:
    """Make it before the transport runs.

    `seen`: where others see dials from the listening port come from. `told`: what a peer says of itself, direct
    addresses worth a dial only. `on_direct` is told of a peer whose direct connection came about, at both ends.
    """

    def __init__(
        self,
        transport: Libp2pTransport,
        *,
        seen: Callable[[], Sequence[str]],
        told: Callable[[PeerId], Sequence[str]],
        on_direct: Callable[[PeerId, str], None],
        may_punch: Callable[[], bool] = lambda: True,
    ) -> None:
        self._transport = transport
        self._paths = transport.paths
        self._seen = seen
        self._told = told
        self._on_direct = on_direct
        self._may_punch = may_punch
        self._nursery: trio.Nursery | None = None
        self._trying: dict[PeerId, trio.Event] = {}
        self._asking: set[PeerId] = set()
        self._answering: set[PeerId] = set()
        transport.serve_raw(PROTOCOL, self._on_ask)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def start(self, peer: PeerId) -> None:
        """A circuit from `peer` stands, and it was the one who dialled."""
        if self._nursery is not None and peer not in self._trying:
            self._trying[peer] = trio.Event()
            self._nursery.start_soon(self._leave_relay, peer)

    def look(self, peer: PeerId | None = None) -> None:
        """`peer` said something new of itself, or what is `seen` changed: those behind a relay are worth a try."""
        for each, news in self._trying.items():
            if peer in (None, each):
                news.set()

    async def _leave_relay(self, peer: PeerId) -> None:
        try:
            pauses_s, news_left = list(TRY_PAUSES_S), NEWS_MAX
            while pauses_s:
                with trio.move_on_after(pauses_s[0]) as pause:
                    if not news_left:
                        await trio.sleep_forever()
                    await self._trying[peer].wait()
                    await trio.sleep(SETTLE_S)
                self._trying[peer] = trio.Event()
                if pause.cancelled_caught:
                    pauses_s.pop(0)
                else:  # a try more, that takes none of the others away
                    news_left -= 1
                if self._paths.standing(peer, relayed=True) is None:
                    return
                if (address := await self._try(peer)) is not None:
                    self._on_direct(peer, address)
                    await trio.sleep(GRACE_S)
                    if self._paths.direct_address(peer) is not None:
                        await self._paths.close_relayed(peer)
                    return
        finally:
            del self._trying[peer]

    async def _try(self, peer: PeerId) -> str | None:
        """Where the other end of the direct connection is; None where there is none."""
        with trio.move_on_after(DIRECT_S):
            async with trio.open_nursery() as nursery:
                for address in list(self._told(peer))[:ADDRESSES_MAX]:
                    nursery.start_soon(self._dial_told, peer, address)
        if self._may_punch() and self._seen():
            for _ in range(ROUNDS):
                if self._paths.direct_address(peer) is not None:
                    break
                try:
                    await self._round(peer)
                except (TransportError, RemoteError) as error:
                    log.debug("no hole punched to %s: %s", peer, error)
        return self._paths.direct_address(peer)

    async def _dial_told(self, peer: PeerId, address: str) -> None:
        try:
            await self._transport.connect(peer, address)
        except P2pfedError as error:
            log.debug("%s is not dialled directly: %s", peer, error)

    async def _round(self, peer: PeerId) -> None:
        """The asking side, B of the specification."""
        if peer in self._answering:
            with trio.move_on_after(ROUND_S):
                await self._paths.until_direct(peer)
            return
        self._asking.add(peer)
        try:
            raw = await self._transport.open_raw_standing(peer, PROTOCOL, relayed=True)
            try:
                with limit(MESSAGE_S, f"no answer within {MESSAGE_S:.0f} s"):
                    asked_at = trio.current_time()
                    await _send(raw, HolePunch.CONNECT, self._seen())
                    endpoints = await _read(raw, HolePunch.CONNECT)
                    round_trip_s = trio.current_time() - asked_at
                # Before SYNC: an ordinary dial under way may get what the other side dials on it.
                with self._paths.punching(peer, endpoints, speaks_first=False):
                    with limit(MESSAGE_S, "the question was not taken"):
                        await _send(raw, HolePunch.SYNC)
                    await trio.sleep(round_trip_s / 2)
                    await self._punch(peer, endpoints, speaks_first=False)
            finally:
                await raw.aclose()
        finally:
            self._asking.discard(peer)

    async def _on_ask(self, raw: RawStream) -> None:
        """The asked side, A of the specification."""
        if not is_circuit(raw.address):
            raise RemoteError("asks to leave a relay over a direct connection")
        if raw.peer in self._answering or (raw.peer in self._asking and self._transport.peer < raw.peer):
            raise RemoteError("one round at a time; where each asks the other, the smaller peer id's question stands")
        self._answering.add(raw.peer)
        try:
            with limit(MESSAGE_S, f"no question within {MESSAGE_S:.0f} s"):
                endpoints = await _read(raw, HolePunch.CONNECT)
                await _send(raw, HolePunch.CONNECT, self._seen())
                await _read(raw, HolePunch.SYNC)
            with self._paths.punching(raw.peer, endpoints, speaks_first=True):
                await self._punch(raw.peer, endpoints, speaks_first=True)
        finally:
            self._answering.discard(raw.peer)
        if (address := self._paths.direct_address(raw.peer)) is not None:
            self._on_direct(raw.peer, address)

    async def _punch(self, peer: PeerId, endpoints: Sequence[Source], *, speaks_first: bool) -> None:
        """Returns when a direct connection stands, or after ROUND_S."""
        if not endpoints:
            return
        with trio.move_on_after(ROUND_S):
            async with trio.open_nursery() as nursery:
                for host, port in endpoints:
                    source = source_for(host, self._paths.sources)
                    if source is not None and self._is_outside(host):
                        nursery.start_soon(self._dial, peer, (host, port), source, speaks_first)
                await self._paths.until_direct(peer)
                nursery.cancel_scope.cancel()

    def _is_outside(self, host: str) -> bool:
        """Nobody sends this device against its own network: what is private is dialled only by one seen as private."""
        seen = [ipaddress.ip_address(parse_address(text).host) for text in self._seen()]
        ip = ipaddress.ip_address(host)
        return ip.is_global or any(own.is_private and own.is_loopback == ip.is_loopback for own in seen)

    async def _dial(self, peer: PeerId, endpoint: Source, source: Source, speaks_first: bool) -> None:
        while True:
            try:
                tcp = await open_from(*endpoint, source)
            except OSError:  # refused, or another socket has the two ports: one of a dial that is just given up
                await trio.sleep(REDIAL_S)
                continue
            try:
                await self._paths.upgrade(tcp, peer, dialler=speaks_first, what="no punched hole")
            except (TransportError, RemoteError) as error:
                log.debug("%s answered at %s port %d, but: %s", peer, *endpoint, error)
                await trio.sleep(REDIAL_S)
                continue
            return


async def _send(raw: RawStream, kind: HolePunch.Type.ValueType, addresses: Sequence[str] = ()) -> None:
    message = HolePunch(type=kind, ObsAddrs=[Multiaddr(text).to_bytes() for text in addresses[:ADDRESSES_MAX]])
    await raw.write_message(message.SerializeToString())


async def _read(raw: RawStream, kind: HolePunch.Type.ValueType) -> tuple[Source, ...]:
    """Hosts and ports, as many as will be dialled; what is no TCP address of a device is left out, as another
    implementation's may be. Raises RemoteError."""
    message = HolePunch()
    try:
        message.ParseFromString(await raw.read_message(MESSAGE_BYTES_MAX))
    except DecodeError as error:
        raise RemoteError(f"malformed hole punching message: {error}") from error
    if message.type != kind:
        raise RemoteError(f"hole punching message of type {message.type}, not {kind}")
    found: dict[Source, None] = {}
    for packed in list(message.ObsAddrs)[: 4 * ADDRESSES_MAX]:
        try:
            address = parse_address(str(Multiaddr(packed)))
            ip = ipaddress.ip_address(address.host)
        except (ConfigError, ValueError):
            continue
        except Exception as error:
            raise RemoteError(f"malformed address in a hole punching message ({type(error).__name__})") from error
        if address.port and not (address.relayed or ip.is_multicast or ip.is_unspecified):
            found[address.host, address.port] = None
    return tuple(found)[:ADDRESSES_MAX]
