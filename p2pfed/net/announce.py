"""Tells linked peers that the addresses of this device have changed; a Hello says them once, at a link's start.

One message a stream, either way; the bytes are in docs/protocol.md.
"""

import logging
from collections.abc import Callable, Sequence

import msgpack
import trio

from p2pfed.core.messages import ADDRESSES_MAX
from p2pfed.errors import ConfigError, P2pfedError, ProtocolMissing, RemoteError
from p2pfed.net.address import ADDRESS_CHARS_MAX, parse_address
from p2pfed.net.allowance import Allowance
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.paths import limit
from p2pfed.net.raw_stream import RawStream
from p2pfed.ports import PeerId
from p2pfed.wire.fields import Text

log = logging.getLogger("p2pfed.net")

PROTOCOL = "/p2pfed/addresses/1"
MESSAGE_BYTES_MAX = 8192
"""Sixteen addresses of 256 characters are half of it."""
TELL_S = 10.0
TOLD_BURST = 6
TOLD_PER_MINUTE = 2.0
"""Of one peer: an address is got, renewed and lost within minutes at worst."""
TELL_BURST = 4
TELL_PER_MINUTE = 1.5
"""What this side allows itself: a refusal is not noticed, and the last word must not be the refused one."""


class Announcer:
    """Make it before the transport runs. `on_told` hears what a peer says of itself."""

    def __init__(self, transport: Libp2pTransport, on_told: Callable[[PeerId, tuple[str, ...]], None]) -> None:
        self._transport = transport
        self._on_told = on_told
        self._allowance = Allowance(burst=TOLD_BURST, per_minute=TOLD_PER_MINUTE, burst_all=200, per_minute_all=600.0)
        self._own_allowance = Allowance(
            burst=TELL_BURST, per_minute=TELL_PER_MINUTE, burst_all=200, per_minute_all=600.0
        )
        transport.serve_raw(PROTOCOL, self._on_stream)

    async def tell(self, peer: PeerId, way: str, addresses: Sequence[str]) -> bool:
        """False where that was too soon, or could not be sent: try again. Who does not speak this is left out."""
        if not self._own_allowance.allows(peer, trio.current_time()):
            return False
        message = bytes(msgpack.packb(list(addresses[:ADDRESSES_MAX])))
        try:
            with limit(TELL_S, f"not taken within {TELL_S:.0f} s"):
                raw = await self._transport.open_raw(peer, way, PROTOCOL)
                await raw.write_message(message)
                await raw.aclose()
        except ProtocolMissing:
            return True
        except P2pfedError as error:
            log.debug("%s is not told of our addresses: %s", peer, error)
            return False
        return True

    async def _on_stream(self, raw: RawStream) -> None:
        if not self._allowance.allows(raw.peer, trio.current_time()):
            raise RemoteError("tells its addresses more often than it may")
        with limit(TELL_S, f"nothing told within {TELL_S:.0f} s"):
            addresses = _read(await raw.read_message(MESSAGE_BYTES_MAX))
        self._on_told(raw.peer, addresses)


def _read(data: bytes) -> tuple[str, ...]:
    try:
        fields = msgpack.unpackb(data, max_map_len=0, max_ext_len=0, max_array_len=ADDRESSES_MAX)
    except Exception as error:
        raise RemoteError(f"malformed addresses ({type(error).__name__})") from error
    if type(fields) is not list:
        raise RemoteError("addresses are an array")
    try:
        return tuple(str(parse_address(Text(1, ADDRESS_CHARS_MAX).read("address", field))) for field in fields)
    except ConfigError as error:
        raise RemoteError(str(error)) from error
