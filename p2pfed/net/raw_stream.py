"""A libp2p stream without p2pfed's frames: for the protocols others defined (identify, DHT, relay).

Those send protobuf messages, each after its length as an unsigned varint (multiformats, unsigned-varint).
The length is checked before anything of the message is kept.
"""

import trio

from p2pfed.net import hardening  # before libp2p: it leaves out parts of it

# isort: split
from libp2p.network.stream.net_stream import NetStream

from p2pfed.errors import RemoteError, TransportError
from p2pfed.net.libp2p_link import as_transport_errors, reset
from p2pfed.ports import PeerId

MESSAGE_BYTES_MAX = 64 * 1024
"""Of one message, unless a protocol says less: sixteen peers with sixteen addresses each are 40 KiB."""
READ_BYTES = 16 * 1024
VARINT_BYTES_MAX = 5
"""32 bits; nothing here is longer."""


class RawStream:
    """Bytes both ways, with what was read too far kept for the next read. Cancelling a write ends it.

    A read waits as long as its caller lets it: no pings are sent over it. A write ends within a minute or two.
    """

    def __init__(self, stream: NetStream, address: str, outbound: bool, dialled_from: int = 0) -> None:
        self._stream = stream
        self._unread = bytearray()
        self.peer = PeerId(str(stream.muxed_conn.peer_id))
        self.address = address
        """The remote multiaddr as seen by this side; of a relayed connection the circuit's."""
        self.outbound = outbound
        self.dialled_from = dialled_from
        """This device's port that the connection was dialled from; 0 where the peer dialled, or through a relay."""

    async def read_some(self, size_max: int = READ_BYTES) -> bytes:
        """At least one byte. Raises TransportError at the end."""
        if self._unread:
            data = bytes(self._unread[:size_max])
            del self._unread[:size_max]
            return data
        with as_transport_errors(f"stream of {self.peer} ended"):
            data = bytes(await self._stream.muxed_stream.read(size_max))
        if not data:
            raise TransportError(f"stream of {self.peer} ended")
        return data

    async def write(self, data: bytes) -> None:
        """Raises TransportError when the stream is gone."""
        with as_transport_errors(f"stream to {self.peer} broke while sending"):
            await self._stream.muxed_stream.write(data)

    async def read_message(self, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes:
        """Raises TransportError at the end, RemoteError for a message that is too long."""
        length, shift = 0, 0
        while True:
            byte = (await self._read_exactly(1))[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= 7 * VARINT_BYTES_MAX:
                raise RemoteError("length of a message has too many digits")
        if length > bytes_max:
            raise RemoteError(f"message of {length} bytes announced, more than {bytes_max}")
        return await self._read_exactly(length)

    async def write_message(self, message: bytes) -> None:
        await self.write(varint(len(message)) + message)

    async def close_write(self) -> None:
        """Nothing more is sent; reading goes on. Raises TransportError."""
        with as_transport_errors("closing"):
            await self._stream.close_write()

    async def aclose(self) -> None:
        """End it both ways; never raises, may be called twice. What was sent before still arrives."""
        with trio.CancelScope(shield=True), trio.move_on_after(hardening.CLOSE_GRACE_S):
            try:
                with as_transport_errors("closing"):
                    await self._stream.close()
            except (TransportError, RemoteError):
                await reset(self._stream)

    async def reset(self) -> None:
        """End it at once: what is under way is lost. Never raises."""
        await reset(self._stream)

    async def _read_exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            data += await self.read_some(size - len(data))
        return bytes(data)


def varint(number: int) -> bytes:
    """Unsigned varint: seven bits a byte, lowest first."""
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
