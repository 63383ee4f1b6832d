"""One link from handshake to end: hello both ways, then a reader and a writer task around bounded queues.

Knows messages and links, not what they mean. A peer that cannot take what it asked for is cut off,
so that nobody else waits for it.
"""

import math
from collections.abc import Awaitable, Callable

import trio

from p2pfed.core.events import Event, LinkDown, LinkId, LinkUp, MessageReceived, SendPart
from p2pfed.core.messages import Hello, Message, Part, PartMissing
from p2pfed.errors import RemoteError, TransportError
from p2pfed.ports import Link
from p2pfed.wire.codec import decode, encode

HANDSHAKE_S = 10.0
"""Both hellos must have crossed by then: ten times what a 2 Mbit/s link with 200 ms takes."""
SEND_QUEUE_MAX = 64
"""Messages waiting for one peer, four full windows of parts; parts are read when sent, so this is small memory."""
FRAME_SEND_S = 60.0
"""One frame of at most 512 KiB: 70 kbit/s. Slower than that, the link is of no use."""

FLUSH_S = 2.0
"""For what was queued before a close: a last word is small, a peer that does not take it has had its time."""

Outgoing = Message | SendPart


class Session:
    """A gossip link after its handshake. `send` never waits; `run` ends with exactly one LinkDown."""

    def __init__(
        self, number: LinkId, link: Link, hello: Hello, read_part: Callable[[bytes, int], bytes | None]
    ) -> None:
        self.number = number
        self.link = link
        self.hello = hello
        self.bytes_sent = 0
        self.bytes_received = 0
        self._read_part = read_part
        self._outbox_in, self._outbox_out = trio.open_memory_channel[Outgoing](SEND_QUEUE_MAX)
        self._ended = trio.Event()
        self._flush_s = 0.0
        self._reason = "closed"

    def send(self, item: Outgoing) -> None:
        try:
            self._outbox_in.send_nowait(item)
        except trio.WouldBlock:
            self.close(f"{SEND_QUEUE_MAX} messages wait for it, more than it takes")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it ended a moment ago, its LinkDown is on the way

    def close(self, reason: str, flush: bool = False) -> None:
        """End the session; with `flush` after what is queued was sent, or FLUSH_S."""
        if self._reason == "closed":
            self._reason = reason
        self._flush_s = FLUSH_S if flush else 0.0
        self._outbox_in.close()
        self._ended.set()

    async def run(self, emit: Callable[[Event], Awaitable[None]], clock_s: float) -> None:
        """`clock_s`: this device's wall clock at the handshake, for the skew."""
        skew_s = self.hello.time_s - clock_s
        await emit(LinkUp(self.number, self.link.peer, self.hello, self.link.outbound, self.link.address, skew_s))
        fault = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_on_close, nursery.cancel_scope)
            nursery.start_soon(self._write, nursery.cancel_scope)
            try:
                await self._read(emit)
            except TransportError as error:
                self.close(str(error))
            except RemoteError as error:
                fault = True
                self.close(str(error))
            nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            self._outbox_out.close()
            await self.link.aclose()
            await emit(LinkDown(self.number, self._reason, fault))

    async def _read(self, emit: Callable[[Event], Awaitable[None]]) -> None:
        while True:
            frame = await self.link.receive()
            self.bytes_received += len(frame)
            await emit(MessageReceived(self.number, decode(frame)))

    async def _write(self, session: trio.CancelScope) -> None:
        try:
            async for item in self._outbox_out:
                message = self._load(item) if isinstance(item, SendPart) else item
                frame = encode(message)
                with trio.fail_after(FRAME_SEND_S):
                    await self.link.send(frame)
                self.bytes_sent += len(frame)
        except TransportError as error:
            self.close(str(error))
        except trio.TooSlowError:
            self.close(f"a frame was not taken within {FRAME_SEND_S:.0f} s")
        session.cancel()

    def _load(self, item: SendPart) -> Message:
        data = self._read_part(item.digest, item.index)
        return Part(item.digest, item.index, data) if data is not None else PartMissing(item.digest)

    async def _end_on_close(self, session: trio.CancelScope) -> None:
        await self._ended.wait()
        if self._flush_s:
            await trio.sleep(self._flush_s)  # the writer ends the session when it is done
        session.cancel()


async def exchange_hellos(link: Link, own: Hello) -> Hello:
    """Send own, receive theirs. Raises TransportError (late or gone) or RemoteError (not a hello)."""
    try:
        with trio.fail_after(HANDSHAKE_S):
            await link.send(encode(own))
            message = decode(await link.receive())
    except trio.TooSlowError:
        raise TransportError(f"no hello within {HANDSHAKE_S:.0f} s") from None
    if not isinstance(message, Hello):
        raise RemoteError(f"{type(message).__name__} where a Hello was due")
    if not math.isfinite(message.time_s):
        raise RemoteError("clock of the hello is not a number")
    return message
