"""A TCP proxy on loopback that does to a connection what bad lines do: throttle, stall, cut at a byte, refuse.

And the peers at its ends.
"""

import socket
import struct
from collections import Counter
from collections.abc import Sequence

import trio

from p2pfed.core.events import Effect, Event, MessageReceived
from p2pfed.core.messages import Part
from p2pfed.net.identity import new_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.ports import PeerId
from tests.fakes import VectorLearner
from tests.net.test_driver import Peer

VALUES = 500_000
"""float32 values: 2 MB, seven parts and a bit, each way."""
CHUNK = 8 * 1024
"""Less than any message of interest, so that a cut falls inside one."""


class BadLine:
    """Forwards to `port`. What it does may be changed at any time."""

    def __init__(self) -> None:
        self.port = 0
        self.forwarded = 0
        """Bytes, both ways, of all connections."""
        self.connections = 0
        self.refused = 0
        self.cut_at: int | None = None
        """Both sockets are reset once so many bytes were forwarded; once."""
        self.rate_bytes_s: float | None = None
        """Each way."""
        self.refuses = False
        """Hangs up on whoever connects."""
        self.flowing = trio.Event()
        """Unset: nothing is read from either side."""
        self.flowing.set()

    def address(self) -> str:
        return f"/ip4/127.0.0.1/tcp/{self._listener.getsockname()[1]}"

    def stall(self) -> None:
        self.flowing = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.socket.socket() as self._listener:
            await self._listener.bind(("127.0.0.1", 0))
            self._listener.listen(16)
            task_status.started()
            async with trio.open_nursery() as nursery:
                while True:
                    client, _ = await self._listener.accept()
                    nursery.start_soon(self._carry, client)

    async def _carry(self, client: trio.socket.SocketType) -> None:
        with client:
            _reset_at_close(client)
            if self.refuses:
                self.refused += 1
                return
            self.connections += 1
            with trio.socket.socket() as server:
                _reset_at_close(server)
                try:
                    await server.connect(("127.0.0.1", self.port))
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._forward, client, server, nursery.cancel_scope)
                        nursery.start_soon(self._forward, server, client, nursery.cancel_scope)
                except* OSError:
                    pass

    async def _forward(
        self, source: trio.socket.SocketType, sink: trio.socket.SocketType, connection: trio.CancelScope
    ) -> None:
        stream = trio.SocketStream(sink)
        while data := await source.recv(CHUNK):
            await self.flowing.wait()
            self.forwarded += len(data)
            if self.cut_at is not None and self.forwarded >= self.cut_at:
                self.cut_at = None
                break
            if self.rate_bytes_s is not None:
                await trio.sleep(len(data) / self.rate_bytes_s)
            try:
                await stream.send_all(data)
            except trio.BrokenResourceError:
                break
        connection.cancel()


def _reset_at_close(each: trio.socket.SocketType) -> None:
    """What is under way is lost, as on a real line."""
    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Announcing(Libp2pTransport):
    """Tells others `told` instead of where it listens: a line, or nothing."""

    def __init__(self) -> None:
        super().__init__(new_identity(), ("/ip4/127.0.0.1/tcp/0",))
        self.told: tuple[str, ...] = ()

    def addresses(self) -> Sequence[str]:
        return self.told

    @property
    def listens_at(self) -> int:
        return int(super().addresses()[0].rpartition("/")[2])

    def streams(self, peer: PeerId) -> int:
        """Open ones of all its connections."""
        return sum(len(connection.muxed_conn.streams) for connection in self.paths._of(peer))


class Watched(Peer):
    """Counts the parts that came."""

    def watch(self) -> "Watched":
        self.came: Counter[tuple[bytes, int]] = Counter()
        inner = self.state.handle

        def handle(event: Event, now: float) -> list[Effect]:
            if isinstance(event, MessageReceived) and isinstance(event.message, Part):
                self.came[event.message.digest, event.message.index] += 1
            return self.said(inner(event, now))

        self.state.handle = handle  # type: ignore[method-assign]
        return self

    def said(self, effects: list[Effect]) -> list[Effect]:
        """What it does; others may leave something out."""
        return effects

    @property
    def counts(self) -> dict[str, int | float | None]:
        return self.state.statistics.as_fields()


def watched(start: float, values: int = VALUES, kind: type[Watched] = Watched) -> Watched:
    return kind(Announcing(), VectorLearner(0.0, size=values, rate=0.0, start=start), steps_max=4).watch()
