"""Every workaround for libp2p 0.8.1, one function each with its reason; nothing else knows of them.

`apply()` patches classes, once, before a host exists; `harden(host)` prepares one host before it runs.
They reach into private names, so any other version is refused. A patched method keeps the
original as `__wrapped__`: tests put it back to show that each workaround is still needed.
"""

import functools
import logging
import struct
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from typing import Any, NoReturn, cast

import trio

import p2pfed.net.slim  # noqa: F401  before libp2p

# isort: split
from libp2p.abc import IMuxedConn, INetStream
from libp2p.host.basic_host import BasicHost
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection import swarm_connection
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux

from p2pfed.errors import ExitCode, LocalError
from p2pfed.net.sockets import watch_socket as watch_socket  # with what else is done to a connection

log = logging.getLogger("p2pfed.net")

LIBP2P_VERSION = "0.8.1"
APPLIED = "hardened_by_p2pfed"
"""Mark on the patched module: patches are the process's state, not ours."""
WINDOW_WAIT_S = 60.0
"""A receiver may stop reading while it merges or waits for its disk; 5 s was measured to be too short."""
WINDOW_WAIT_ORIGINAL_S = 5.0
FRAME_BYTES_ORIGINAL = 64 * 1024
WINDOW_BYTES_MAX = 1024 * 1024
"""Four parts of an adapter in flight: fills 80 Mbit/s at 100 ms, and bounds what a peer can make us hold."""
BUFFER_BYTES_MAX = 2 * WINDOW_BYTES_MAX
"""One stream's unread bytes. libp2p's bookkeeping may grant nearly twice the window; more was sent on purpose."""
BUFFERS_BYTES_MAX = 8 * WINDOW_BYTES_MAX
"""All unread bytes of one connection."""
FRAME_WRITE_S = 60.0
"""For one frame of 64 KiB, 8 s at 64 kbit/s. Only Linux ends such a socket by itself (`watch_socket`)."""
CLOSE_GRACE_S = 1.0
"""For the goodbye of one connection; then its socket is closed under it."""


def apply() -> None:
    """Patch libp2p for the whole process; a second call does nothing. Raises LocalError for another version."""
    version = metadata.version("libp2p")
    if version != LIBP2P_VERSION:
        raise LocalError(
            f"libp2p {version} is installed, but p2pfed works with {LIBP2P_VERSION} only; "
            f"run: pip install libp2p=={LIBP2P_VERSION}",
            ExitCode.EXTRA_MISSING,
        )
    if hasattr(yamux, APPLIED):
        return
    setattr(yamux, APPLIED, True)
    write_frames_whole()
    fit_frames_to_noise()
    forget_unopened_streams()
    grant_windows_in_bunches()
    wait_longer_for_window()
    bound_windows()
    return_inbound_slots()
    quiet_logging()


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one host."""

    connections_max: int
    connections_per_peer_max: int
    handshakes_max: int
    """Accepted sockets that have not finished their handshake, on top of connections_max."""
    streams_max: int
    """Inbound, in all."""
    streams_per_peer_max: int
    """Inbound."""


def harden(host: BasicHost, limits: Limits) -> None:
    """Prepare one host; call it after its making and before `run`."""
    no_background_dials(host)
    no_identify(host)
    no_hidden_limits(host)
    limit_connections(host, limits)
    guard_streams(host, limits)


def write_frames_whole() -> None:
    """A write that is cancelled leaves part of a frame on the TCP connection all streams share: it never works again.

    Waiting for one's turn stays cancellable, or opening a stream would hang as long as another's write does.
    """
    original = yamux.Yamux._write_frame

    @functools.wraps(original)
    async def write_frame(self: yamux.Yamux, data: bytes) -> None:
        async with self._write_lock:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + FRAME_WRITE_S) as scope:
                await self.secured_conn.write(data)
            if scope.cancelled_caught:
                _end(self, f"a frame was not taken within {FRAME_WRITE_S:.0f} s")

    yamux.Yamux._write_frame = write_frame  # type: ignore[method-assign]


def fit_frames_to_noise() -> None:
    """A frame of 64 KiB takes two Noise messages, the second of 17 bytes: one more cipher call, write and two reads."""
    if yamux.MAX_MESSAGE_SIZE != FRAME_BYTES_ORIGINAL:
        raise AttributeError(f"yamux cuts frames of {yamux.MAX_MESSAGE_SIZE} bytes, not {FRAME_BYTES_ORIGINAL}")
    yamux.MAX_MESSAGE_SIZE = MAX_PLAINTEXT_LENGTH  # its header included


def forget_unopened_streams() -> None:
    """Opening a stream that is cancelled keeps one of the connection's 256 stream slots for ever."""
    original = yamux.Yamux.open_stream

    @functools.wraps(original)
    async def open_stream(self: yamux.Yamux) -> yamux.YamuxStream:
        await self.stream_backlog_semaphore.acquire()
        stream_id = self.next_stream_id
        stream = yamux.YamuxStream(stream_id, self, True)
        stream._owns_backlog_slot = True
        opened = False
        try:
            if self.event_shutting_down.is_set():
                raise MuxedStreamError("connection is shutting down")
            self.next_stream_id += 2
            self.streams[stream_id] = stream
            self.stream_buffers[stream_id] = bytearray()
            self.stream_events[stream_id] = trio.Event()
            await self._write_frame(
                struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_SYN, stream_id, 0)
            )
            opened = True
            return stream
        finally:
            if not opened:
                self._finalize_stream_locked(stream, fully_closed=True)  # no await in it, so it needs no lock here

    yamux.Yamux.open_stream = open_stream  # type: ignore[method-assign]


def grant_windows_in_bunches() -> None:
    """A read takes bytes out of the buffer and then awaits its window update: cancelled there, the bytes are lost.

    And it grants what it just read, however little, which makes the sender cut its data as small: 6 KB frames were
    measured. Here the window is the same from first to last, and is granted anew when half of it was read.
    """
    original = yamux.YamuxStream._auto_tune_and_send_window_update

    @functools.wraps(original)
    async def grant(self: yamux.YamuxStream, *, bytes_read: int = 0) -> None:
        unread = len(self.conn.stream_buffers.get(self.stream_id, b""))
        increment = WINDOW_BYTES_MAX - self.recv_window - unread
        if increment >= WINDOW_BYTES_MAX // 2:
            self.recv_window += increment
            with trio.CancelScope(shield=True):
                await self.send_window_update(increment)

    yamux.YamuxStream._auto_tune_and_send_window_update = grant  # type: ignore[method-assign]


class _TrioWaitingLonger:
    """The trio module as yamux.py sees it, with its hard-coded wait for window updates made longer."""

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    @staticmethod
    def move_on_after(seconds: float) -> trio.CancelScope:
        return trio.move_on_after(WINDOW_WAIT_S if seconds == WINDOW_WAIT_ORIGINAL_S else seconds)


def wait_longer_for_window() -> None:
    """A receiver that reads nothing for 5 s loses the stream and is not even told."""
    yamux.__dict__["trio"] = _TrioWaitingLonger()


class _BoundedBuffer(bytearray):
    """Unread bytes of one stream; one byte too many ends the connection."""

    owner: "_BoundedBuffers"

    def extend(self, data: Any) -> None:
        if len(self) + len(data) > BUFFER_BYTES_MAX:
            self.owner.overrun(f"{len(self) + len(data)} unread bytes on a stream, more than {BUFFER_BYTES_MAX}")
        if sum(map(len, self.owner.values())) + len(data) > BUFFERS_BYTES_MAX:
            self.owner.overrun(f"more than {BUFFERS_BYTES_MAX} unread bytes on a connection")
        super().extend(data)


class _BoundedBuffers(dict[int, bytearray]):
    """`Yamux.stream_buffers`: stream id -> unread bytes."""

    def __init__(self, connection: yamux.Yamux) -> None:
        super().__init__()
        self._connection = connection

    def __setitem__(self, stream_id: int, buffer: bytearray) -> None:
        bounded = _BoundedBuffer(buffer)
        bounded.owner = self
        super().__setitem__(stream_id, bounded)

    def overrun(self, message: str) -> NoReturn:
        log.warning("peer %s broke flow control: %s", self._connection.peer_id, message)
        _end(self._connection, message)


def _end(connection: yamux.Yamux, message: str) -> NoReturn:
    if connection._nursery is not None:
        connection._nursery.start_soon(connection._cleanup_on_error)
    raise OSError(message)  # what yamux's reader takes for a dead connection


def bound_windows() -> None:
    """Yamux only warns of a peer that ignores its window: 100 MB sent into an unread stream were 100 MB of memory."""
    original = yamux.Yamux.__init__

    @functools.wraps(original)
    def init(self: yamux.Yamux, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.stream_buffers = _BoundedBuffers(self)

    yamux.Yamux.__init__ = init  # type: ignore[method-assign]
    yamux.MAX_WINDOW_SIZE = WINDOW_BYTES_MAX


def return_inbound_slots() -> None:
    """An accepted connection keeps its inbound slot until the swarm stops: after 250 of them ever, all are refused.

    Also where inbound sockets get their options, before a stranger's first byte is read.
    """
    original = Swarm._do_handle_inbound_connection

    @functools.wraps(original)
    async def handle(self: Swarm, read_write_closer: Any, maddr: Any, failure_event: Any) -> None:
        if isinstance(read_write_closer, TrioTCPStream):
            watch_socket(read_write_closer.stream)
        raw = RawConnection(read_write_closer, False)
        try:
            muxed = cast(yamux.Yamux, await self.upgrade_inbound_raw_conn(raw, maddr))
            await muxed.event_closed.wait()
        except Exception as error:  # noqa: BLE001  a stranger's bytes may raise anything; logged, that connection ends
            log.debug("inbound connection failed: %r", error)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_GRACE_S):
                await raw.close()

    Swarm._do_handle_inbound_connection = handle  # type: ignore[method-assign]


def quiet_logging() -> None:
    """libp2p logs each failed dial as several errors.

    And its connections log to the root logger, which installs a handler there.
    """
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    for name in list(logging.Logger.manager.loggerDict):
        if name.startswith("libp2p."):  # some modules set a level of their own
            logging.getLogger(name).setLevel(logging.NOTSET)
    swarm_connection.__dict__["logging"] = logging.getLogger("libp2p.network.connection")


def no_background_dials(host: BasicHost) -> None:
    """The auto-connector dials whatever is in the peerstore; and each dial is silently repeated three times."""

    async def nothing() -> None:
        pass

    swarm = _swarm(host)
    swarm.auto_connector.start = nothing  # type: ignore[method-assign]
    swarm.auto_connector.maybe_connect = nothing  # type: ignore[method-assign]
    swarm.retry_config.max_retries = 0


def no_identify(host: BasicHost) -> None:
    """Identify opens a stream to every new peer, as a system task, where an exception ends the process.

    What libp2p serves by itself goes too: its ping is a stream anybody can hold open.
    `net.identify` serves both, bounded.
    """

    def nothing(peer_id: object, *, reason: str) -> None:
        pass

    host._schedule_identify = nothing  # type: ignore[method-assign]
    for protocol in host.get_mux().get_protocols():
        if protocol is not None:
            host.remove_stream_handler(protocol)


def no_hidden_limits(host: BasicHost) -> None:
    """The default resource manager makes a stream over its limit hang instead of fail; `Limits` replaces it."""
    _swarm(host).set_resource_manager(None)


def limit_connections(host: BasicHost, limits: Limits) -> None:
    """libp2p does not enforce its limit per peer, and handshakes in progress take the slots of connections."""
    swarm = _swarm(host)
    swarm._inbound_limiter = trio.CapacityLimiter(limits.connections_max + limits.handshakes_max)
    original = swarm.add_conn

    async def add_conn(muxed_conn: IMuxedConn, direction: str = "unknown") -> SwarmConn:
        connection = await original(muxed_conn, direction=direction)
        count = len(swarm.get_connections(muxed_conn.peer_id))
        if count > limits.connections_per_peer_max:
            log.warning("peer %s has %d connections, the newest is closed", muxed_conn.peer_id, count)
            await connection.close()
            raise SwarmException(f"{count} connections to one peer, more than {limits.connections_per_peer_max}")
        return connection

    swarm.add_conn = add_conn  # type: ignore[method-assign]


def guard_streams(host: BasicHost, limits: Limits) -> None:
    """An exception in any stream handler ends the whole host. And inbound streams are not limited at all."""
    inner = host._swarm_stream_handler
    live: Counter[str] = Counter()

    async def guarded(stream: INetStream) -> None:
        peer = str(stream.muxed_conn.peer_id)
        if live[peer] >= limits.streams_per_peer_max or live.total() >= limits.streams_max:
            log.warning("stream of %s refused: %d of its streams are open, %d in all", peer, live[peer], live.total())
            await stream.reset()
            return
        live[peer] += 1
        try:
            await inner(stream)
        except Exception as error:
            log.warning("stream of %s ended by %r", peer, error, exc_info=error)
            await stream.reset()
        finally:
            live[peer] -= 1
            if not live[peer]:
                del live[peer]

    _swarm(host).set_stream_handler(guarded)


def _swarm(host: BasicHost) -> Swarm:
    return cast(Swarm, host.get_network())


def carrier_of(connection: SwarmConn) -> ReadWriteCloser | None:
    """What carries a connection's bytes, below Yamux and Noise: a TCP stream or a circuit."""
    layer: Any = connection
    for name in ("muxed_conn", "secured_conn", "conn", "read_writer", "read_write_closer", "stream"):
        layer = getattr(layer, name, None)
    return layer if isinstance(layer, ReadWriteCloser) else None


async def close_connections(connections: list[SwarmConn]) -> None:
    """All at once, within about CLOSE_GRACE_S: leaving `host.run` closes none, `host.close` one after another."""
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(_close_connection, connection)


async def _close_connection(connection: SwarmConn) -> None:
    # A writer blocked on a dead link holds the lock that the goodbye needs: its socket is closed under it.
    async def force() -> None:
        await trio.sleep(CLOSE_GRACE_S)
        carrier = carrier_of(connection)
        if isinstance(carrier, TrioTCPStream):
            carrier.stream.socket.close()
        elif carrier is not None:
            await carrier.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(force)
        await connection.close()
        nursery.cancel_scope.cancel()
