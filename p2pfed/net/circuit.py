"""Circuit relay v2 on the wire: its messages, the asking side's two requests, and a relayed stream as a connection.

The protocol is libp2p's (specs, relay/circuit-v2); so are the protobuf classes. The library's own CircuitV2Protocol is
not used: it believes the peer id written in a request, keeps one circuit a source, dials on a stranger's word and
retries errors in a loop. Here every message is capped, and who asks is who the connection proved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

import p2pfed.net.slim  # noqa: F401  before libp2p: it leaves out parts of it

# isort: split
from google.protobuf.message import DecodeError
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb import circuit_pb2
from multiaddr import Multiaddr

from p2pfed.errors import ConfigError, RemoteError, TransportError
from p2pfed.net.address import parse_peer
from p2pfed.net.raw_stream import READ_BYTES, RawStream
from p2pfed.ports import PeerId

pb = circuit_pb2  # for the relay's two sides as well

HOP = "/libp2p/circuit/relay/0.2.0/hop"
STOP = "/libp2p/circuit/relay/0.2.0/stop"
MESSAGE_BYTES_MAX = 4096
"""The specification's limit for both protocols."""
RELAY_ADDRESSES_MAX = 8
ANSWER_S = 10.0
"""For a relay's answer; a CONNECT waits for the far peer as well."""

Form = TypeVar("Form", pb.HopMessage, pb.StopMessage)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a relay granted."""

    expires_at: float
    """Seconds since 1970 on the relay's clock."""


class Refused(TransportError):
    """The relay answered, and said no; `status` is its reason."""

    def __init__(self, status: pb.Status.ValueType) -> None:
        super().__init__(f"the relay refused: {status_name(status)}")
        self.status = status


class CircuitStream(ReadWriteCloser):
    """The bytes between two peers, carried by a relay: what a TCP stream is to a direct connection."""

    def __init__(self, raw: RawStream, address: str) -> None:
        self._raw = raw
        self.address = address
        """Of the circuit, without the far peer's id."""
        self.carrier = raw.peer

    async def read(self, n: int | None = None) -> bytes:
        """Empty at the end, as TCP's."""
        if n == 0:
            return b""
        try:
            return await self._raw.read_some(n if n is not None else READ_BYTES)
        except TransportError:
            return b""

    async def write(self, data: bytes) -> None:
        try:
            await self._raw.write(data)
        except TransportError as error:
            raise ConnectionClosedError(str(error), transport="circuit") from error

    async def close(self) -> None:
        await self._raw.aclose()

    async def reset(self) -> None:
        await self._raw.reset()

    def get_remote_address(self) -> tuple[str, int] | None:
        return None


async def ask_reservation(raw: RawStream) -> Reservation:
    """RESERVE on a fresh HOP stream. Raises Refused, TransportError, RemoteError."""
    answer = await _ask_hop(raw, pb.HopMessage(type=pb.HopMessage.RESERVE))
    if not answer.HasField("reservation"):
        raise RemoteError("reservation granted without a reservation")
    return Reservation(float(answer.reservation.expire))


async def ask_circuit(raw: RawStream, peer: PeerId) -> None:
    """CONNECT on a fresh HOP stream: afterwards it carries the bytes of `peer`. Raises as `ask_reservation`."""
    await _ask_hop(raw, pb.HopMessage(type=pb.HopMessage.CONNECT, peer=pb.PeerId(id=peer_bytes(peer))))


async def _ask_hop(raw: RawStream, ask: pb.HopMessage) -> pb.HopMessage:
    answer = pb.HopMessage()
    with trio.move_on_after(ANSWER_S) as scope:
        await raw.write_message(ask.SerializeToString())
        answer = await read(raw, pb.HopMessage)
    if scope.cancelled_caught:
        raise TransportError(f"no answer of the relay within {ANSWER_S:.0f} s")
    if answer.type != pb.HopMessage.STATUS:
        raise RemoteError("a relay's answer is no status")
    if answer.status != pb.OK:
        raise Refused(answer.status)
    return answer


async def read(raw: RawStream, form: type[Form]) -> Form:
    """One message. Raises RemoteError for a malformed one."""
    message = form()
    try:
        message.ParseFromString(await raw.read_message(MESSAGE_BYTES_MAX))
    except DecodeError as error:
        raise RemoteError(f"malformed relay message: {error}") from error
    return message


async def send_hop_status(
    raw: RawStream,
    status: pb.Status.ValueType,
    limit: pb.Limit | None = None,
    reservation: pb.Reservation | None = None,
) -> None:
    message = pb.HopMessage(type=pb.HopMessage.STATUS, status=status, limit=limit, reservation=reservation)
    await raw.write_message(message.SerializeToString())


def reservation(expires_at: float, addresses: Sequence[str]) -> pb.Reservation:
    """With addresses of the relay, as many as the message has room for: other implementations build theirs of them."""
    packed = [Multiaddr(text).to_bytes() for text in addresses[:RELAY_ADDRESSES_MAX]]
    return pb.Reservation(expire=int(expires_at), addrs=packed)


async def send_stop_status(raw: RawStream, status: pb.Status.ValueType) -> None:
    await raw.write_message(pb.StopMessage(type=pb.StopMessage.STATUS, status=status).SerializeToString())


def peer_bytes(peer: PeerId) -> bytes:
    return bytes(ID.from_base58(peer).to_bytes())


def peer_of(raw: bytes) -> PeerId:
    """Raises RemoteError for bytes that are no peer id."""
    try:
        return parse_peer(ID(raw[:64]).to_base58())
    except ConfigError as error:
        raise RemoteError(str(error)) from error


def status_name(status: pb.Status.ValueType) -> str:
    try:
        return str(pb.Status.Name(status)).lower().replace("_", " ")
    except ValueError:
        return f"status {status}"
