"""One link from handshake to end: hello both ways, then a reader and a writer task around bounded queues.

Knows messages and links, not what they mean. A peer that cannot take what it asked for is cut off,
so that nobody else waits for it.
"""

import math
from collections import deque
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

FLUSH_S = 1.0
"""For the last words of a link that this side closes: why, most often."""

Outgoing = Message | SendPart


class Outbox:
    """What waits for one peer: messages first, then parts, so that an ask is never behind what was asked for."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._parts: deque[SendPart] = deque()
        self._closed = False
        self._wake = trio.Event()

    def put(self, item: Outgoing) -> bool:
        """False where too much waits already. After `close` it is dropped: its LinkDown is on the way."""
        if self._closed:
            return True
        if len(self._messages) + len(self._parts) >= SEND_QUEUE_MAX:
            return False
        if isinstance(item, SendPart):
            self._parts.append(item)
        else:
            self._messages.append(item)
        self._wake.set()
        return True

    def close(self) -> None:
        """Messages that wait still go out, parts do not."""
        self._closed = True
        self._parts.clear()
        self._wake.set()

    async def take(self) -> Outgoing | None:
        """The next one; None once closed and empty."""
        while not self._messages and not self._parts:
            if self._closed:
                return None
            self._wake = trio.Event()
            await self._wake.wait()
        return self._messages.popleft() if self._messages else self._parts.popleft()


class Session:
    """A gossip link after its handshake. `send` never waits; `run` ends with exactly one LinkDown."""

    def __init__(
        self, number: LinkId, link: Link, hello: Hello, read_part: Callable[[bytes, int], bytes | None]
    ) -> None:
        self.number = number
        self.link = link
        self.hello = hello
        self.told_addresses: tuple[str, ...] = ()
        """What its peer was told last of where this device can be dialled."""
        self.bytes_sent = 0
        self.bytes_received = 0
        self._read_part = read_part
        self._outbox = Outbox()
        self._closing = trio.Event()
        self._reason: str | None = None

    def send(self, item: Outgoing) -> None:
        if not self._outbox.put(item):
            self.close(f"{SEND_QUEUE_MAX} messages wait for it, more than it takes")

    def close(self, reason: str) -> None:
        """End the session once the messages that wait were sent, within FLUSH_S. The first reason counts."""
        if self._reason is None:
            self._reason = reason
        self._outbox.close()
        self._closing.set()

    async def run(self, emit: Callable[[Event], Awaitable[None]], clock_s: float) -> None:
        """`clock_s`: this device's wall clock at the handshake, for the skew."""
        skew_s = self.hello.time_s - clock_s
        await emit(LinkUp(self.number, self.link.peer, self.hello, self.link.outbound, self.link.address, skew_s))
        fault = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_late, nursery.cancel_scope)
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
            await self.link.aclose()
            await emit(LinkDown(self.number, self._reason or "closed", fault))

    async def _read(self, emit: Callable[[Event], Awaitable[None]]) -> None:
        while True:
            frame = await self.link.receive()
            self.bytes_received += len(frame)
            await emit(MessageReceived(self.number, decode(frame)))

    async def _write(self, session: trio.CancelScope) -> None:
        try:
            while (item := await self._outbox.take()) is not None:
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

    async def _end_late(self, session: trio.CancelScope) -> None:
        """The writer ends a closing session; this does, where the peer takes nothing."""
        await self._closing.wait()
        await trio.sleep(FLUSH_S)
        session.cancel()


async def exchange_hellos(link: Link, own: Hello) -> Hello:
    """Send own, receive theirs. Raises TransportError (late or gone) or RemoteError (not a hello)."""
    return await _within_time(_exchange(link, own))


async def answer_hello(link: Link, own: Callable[[Hello], Hello]) -> Hello:
    """Receive theirs, send what `own` answers it. Raises as `exchange_hellos`."""
    return await _within_time(_answer(link, own))


async def _exchange(link: Link, own: Hello) -> Hello:
    await link.send(encode(own))
    return _hello(await link.receive())


async def _answer(link: Link, own: Callable[[Hello], Hello]) -> Hello:
    theirs = _hello(await link.receive())
    await link.send(encode(own(theirs)))
    return theirs


async def _within_time(hello: Awaitable[Hello]) -> Hello:
    try:
        with trio.fail_after(HANDSHAKE_S):
            return await hello
    except trio.TooSlowError:
        raise TransportError(f"no hello within {HANDSHAKE_S:.0f} s") from None


def _hello(frame: bytes) -> Hello:
    message = decode(frame)
    if not isinstance(message, Hello):
        raise RemoteError(f"{type(message).__name__} where a Hello was due")
    if not math.isfinite(message.time_s):
        raise RemoteError("clock of the hello is not a number")
    return message
