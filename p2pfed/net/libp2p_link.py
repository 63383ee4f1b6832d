"""ports.Link over one libp2p stream, and where libp2p's exceptions become ours.

A send or receive may be cancelled at any time: a receive loses nothing, a send that had begun ends the link.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from p2pfed.net import hardening  # before libp2p: it leaves out parts of it

# isort: split
from libp2p.exceptions import BaseLibp2pError
from libp2p.network.stream.net_stream import NetStream
from libp2p.protocol_muxer.exceptions import ProtocolNotSupportedError
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from libp2p.tools.anyio_service.exceptions import LifecycleError

from p2pfed.errors import P2pfedError, ProtocolMissing, RemoteError, TransportError
from p2pfed.net.dial_words import words_of
from p2pfed.net.framing import FrameBuffer, encode
from p2pfed.ports import PeerId

READ_BYTES = 256 * 1024
"""One part of an adapter: what has arrived is taken at once."""
LINGER_S = 5.0
"""A closed link waits so long for the other side to close too, then it is reset: a reset loses what is under way."""


class Libp2pLink:
    """ports.Link over one libp2p stream. Its closing is finished by the transport's nursery."""

    def __init__(self, stream: NetStream, address: str, outbound: bool, spawn: Callable[..., None]) -> None:
        self._stream = stream
        self._spawn = spawn
        self._buffer = FrameBuffer()
        self._send_lock = trio.Lock()
        self._receiving: trio.CancelScope | None = None
        self._lost: str | None = None
        self.peer = PeerId(str(stream.muxed_conn.peer_id))
        self.address = address
        self.outbound = outbound

    async def send(self, frame: bytes) -> None:
        data = encode(frame)
        async with self._send_lock:
            self._check()
            sent = False
            try:
                with as_transport_errors(f"link to {self.peer} broke while sending"):
                    await self._stream.muxed_stream.write(data)  # NetStream's own state costs a lock a call
                sent = True
            finally:
                if not sent:  # part of the frame may be under way, nothing can follow it
                    self._lose("a frame was not sent to its end")

    async def receive(self) -> bytes:
        while True:
            self._check()
            try:
                frame = self._buffer.take()
            except RemoteError:
                self._lose("the peer broke the frame cap")
                raise
            if frame is not None:
                return frame
            self._buffer.feed(await self._read())

    async def _read(self) -> bytes:
        data = b""
        with trio.CancelScope() as self._receiving, as_transport_errors(f"link to {self.peer} ended"):
            data = bytes(await self._stream.muxed_stream.read(READ_BYTES))
        self._receiving = None
        if not data:
            self._check()
            raise TransportError(f"link to {self.peer} ended")
        return data

    async def aclose(self) -> None:
        if self._lost is None:
            self._lost = "it was closed by this side"
            self._stop_receiving()
            self._spawn(self._finish)

    def _check(self) -> None:
        if self._lost is not None:
            raise TransportError(f"link to {self.peer} is gone: {self._lost}")

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
            self._stop_receiving()
            self._spawn(reset, self._stream)

    def _stop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()

    async def _finish(self) -> None:
        """Half-close, let the other side finish, then forget the stream whatever it does."""
        try:
            with trio.move_on_after(LINGER_S), as_transport_errors("closing"):
                await self._stream.close_write()
                while await self._stream.muxed_stream.read(READ_BYTES):
                    pass
        except TransportError:
            pass
        await reset(self._stream)


async def reset(stream: NetStream) -> None:
    """Never raises: NetStream.reset ignores a broken connection."""
    with trio.CancelScope(shield=True), trio.move_on_after(hardening.CLOSE_GRACE_S):
        await stream.reset()


@contextmanager
def as_transport_errors(what: str) -> Iterator[None]:
    """libp2p's and the socket's exceptions become ours: whose fault it is."""
    try:
        yield
    except P2pfedError:
        raise
    except ProtocolNotSupportedError as error:
        raise ProtocolMissing(f"{what}: {error}") from error
    except PeerIDMismatchesPubkey as error:
        raise RemoteError(f"{what}: another peer answers there") from error
    except OSError as error:
        raise TransportError(f"{what}: {words_of(error)}") from error
    except (BaseLibp2pError, LifecycleError, trio.ClosedResourceError, trio.BrokenResourceError) as error:
        raise TransportError(f"{what}: {str(error) or type(error).__name__}") from error
    except Exception as error:
        raise RemoteError(f"{what}: malformed bytes ({error!r})") from error
