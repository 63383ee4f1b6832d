"""Can others dial this device? The asker sends the addresses it believes in, the answerer tries them, and tells.

Only addresses of the IP the asker is seen at are tried, each by a fresh connection from a port nobody knows, to the
end of the Noise handshake: neither a connection that stands nor another device's answer counts. So nobody can send
an answerer against a third party. The bytes are in docs/protocol.md.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import msgpack
import trio

from p2pfed.errors import ConfigError, P2pfedError, RemoteError
from p2pfed.net.address import ADDRESS_CHARS_MAX, Address, is_circuit, parse_address
from p2pfed.net.allowance import Allowance
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.paths import limit
from p2pfed.net.raw_stream import RawStream
from p2pfed.ports import PeerId
from p2pfed.wire.fields import Text

PROTOCOL = "/p2pfed/dialback/1"
CLAIMS_MAX = 4
"""The listening port as seen, as forwarded, as mapped, and one of IPv6."""
MESSAGE_BYTES_MAX = 4096
"""Four addresses and four reasons of a line each take a quarter of it."""
ASK_S = 15.0
"""A dial, a wait for its turn, and the way there and back."""
READ_S = 10.0
REASON_CHARS_MAX = 200
DIALS_AT_ONCE = 8
"""Of one answerer, for all who ask: each lasts PROBE_S at most."""
ASKS_BURST = 8
ASKS_PER_MINUTE = 4.0
"""Of one peer: a round takes up to three, and the first rounds follow each other as neighbours appear."""
ASKS_BURST_ALL = 60
ASKS_PER_MINUTE_ALL = 120.0
ANSWERED = "answered"
"""The reason of a success."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one other peer saw. Its word: several are asked."""

    observed: Address
    """Where it sees the asker's connection come from."""
    reached: frozenset[str]
    """Of the claimed addresses those that answered its dial."""
    failed: tuple[tuple[str, str], ...]
    """Those that did not, each with the reason; addresses that it would not try are in neither."""
    from_listening_port: bool
    """The connection it saw was dialled by this device from the port it listens on: what was seen is of use to others.

    Known here, not told."""


class DialBackServer:
    """Make it before the transport runs."""

    def __init__(self, transport: Libp2pTransport) -> None:
        self._transport = transport
        self._dials = trio.CapacityLimiter(DIALS_AT_ONCE)
        self._asks = Allowance(
            burst=ASKS_BURST,
            per_minute=ASKS_PER_MINUTE,
            burst_all=ASKS_BURST_ALL,
            per_minute_all=ASKS_PER_MINUTE_ALL,
        )
        transport.serve_raw(PROTOCOL, self._on_ask)

    async def _on_ask(self, raw: RawStream) -> None:
        with limit(READ_S, f"no question within {READ_S:.0f} s"):
            claims = _read_ask(await raw.read_message(MESSAGE_BYTES_MAX))
        if not raw.address or is_circuit(raw.address):
            raise RemoteError("dial-back asked through a relay: there is no address to see")
        if not self._asks.allows(raw.peer, trio.current_time()):
            raise RemoteError("asks for dial-back more often than it may")
        observed = parse_address(raw.address)
        results: dict[str, str] = {}
        async with trio.open_nursery() as nursery:
            for claim in claims:
                nursery.start_soon(self._try, raw.peer, claim, observed, results)
        await raw.write_message(bytes(msgpack.packb([str(observed), list(results.items())])))

    async def _try(self, peer: PeerId, claim: Address, observed: Address, results: dict[str, str]) -> None:
        """ANSWERED, the reason of the failure, or "" where it was not tried."""
        results[str(claim)] = ""
        if (claim.kind, claim.host) != (observed.kind, observed.host) or claim.relayed:
            return
        async with self._dials:
            try:
                await self._transport.paths.probe(peer, str(claim))
                results[str(claim)] = ANSWERED
            except P2pfedError as error:
                results[str(claim)] = str(error)[:REASON_CHARS_MAX]


async def ask_dialback(transport: Libp2pTransport, peer: PeerId, address: str, claims: Sequence[str]) -> Answer:
    """One question to one peer, over a connection that stands or a new one. Raises TransportError, RemoteError."""
    asked = tuple(claims[:CLAIMS_MAX])
    with limit(ASK_S, f"no answer within {ASK_S:.0f} s"):
        raw = await transport.open_raw(peer, address, PROTOCOL)
        try:
            await raw.write_message(bytes(msgpack.packb(asked)))
            own_port = raw.dialled_from in (port for _, port in transport.paths.sources)
            return _read_answer(await raw.read_message(MESSAGE_BYTES_MAX), asked, own_port)
        finally:
            await raw.aclose()


def _read_ask(data: bytes) -> list[Address]:
    claims = _unpack(data)
    if len(claims) > CLAIMS_MAX:
        raise RemoteError(f"{len(claims)} addresses claimed, more than {CLAIMS_MAX}")
    return list(dict.fromkeys(_numeric(claim) for claim in claims))


def _read_answer(data: bytes, claims: tuple[str, ...], from_listening_port: bool) -> Answer:
    fields = _unpack(data)
    if len(fields) != 2 or type(fields[1]) is not list or len(fields[1]) > CLAIMS_MAX:
        raise RemoteError("a dial-back answer is an address and a list of results")
    reached, failed = set(), []
    for result in fields[1]:
        if type(result) is not list or len(result) != 2:
            raise RemoteError("a dial-back result is an address and a reason")
        address = str(_numeric(result[0]))
        reason = Text(0, REASON_CHARS_MAX).read("dial-back reason", result[1])
        if address not in claims:
            raise RemoteError("a dial-back result for an address nobody claimed")
        if reason == ANSWERED:
            reached.add(address)
        elif reason:
            failed.append((address, reason))
    return Answer(_numeric(fields[0]), frozenset(reached), tuple(failed), from_listening_port)


def _unpack(data: bytes) -> list[object]:
    try:
        fields = msgpack.unpackb(data, max_map_len=0, max_ext_len=0, max_array_len=CLAIMS_MAX + 2)
    except Exception as error:
        raise RemoteError(f"malformed dial-back message ({type(error).__name__})") from error
    if type(fields) is not list:
        raise RemoteError("a dial-back message is an array")
    return fields


def _numeric(wire: object) -> Address:
    text = Text(1, ADDRESS_CHARS_MAX).read("dial-back address", wire)
    try:
        address = parse_address(text)
    except ConfigError as error:
        raise RemoteError(str(error)) from error
    if address.kind not in ("ip4", "ip6") or address.relayed or address.peer is not None:
        raise RemoteError("a dial-back address is an IP address and a port")
    ip = ipaddress.ip_address(address.host)
    if ip.is_unspecified or ip.is_multicast or address.port == 0:
        raise RemoteError(f"nobody can be dialled at {address}")
    return address
