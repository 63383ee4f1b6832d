"""Each workaround for libp2p 0.8.1 is needed: the same scenario with and without it.

"Without" puts the original back, which every patch keeps as `__wrapped__`.
"""

import logging
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

from p2pfed.errors import ExitCode, LocalError, TransportError
from p2pfed.net import hardening
from p2pfed.net.identity import new_identity
from p2pfed.net.libp2p import LIMITS, Libp2pTransport
from p2pfed.ports import Link
from tests.transport_suite import ECHO, SILENT, pair, until

# isort: split
from libp2p.exceptions import BaseLibp2pError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.swarm import Swarm
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH, BaseNoiseMsgReadWriter
from libp2p.stream_muxer.yamux import yamux

WITH_AND_WITHOUT = pytest.mark.parametrize("hardened", [True, False], ids=["hardened", "original"])


def make_transport() -> Libp2pTransport:
    return Libp2pTransport(new_identity(), ("/ip4/127.0.0.1/tcp/0",))


def put_back(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    hardening.apply()
    monkeypatch.setattr(owner, name, getattr(owner, name).__wrapped__)


def muxed(transport: Any) -> yamux.Yamux:
    return transport._swarm.get_connections()[0].muxed_conn  # type: ignore[no-any-return]


def outcome(main: Callable[[], Any], limit_s: float = 10.0) -> str:
    """ "fine", or the name of what went wrong first."""

    async def limited() -> None:
        with trio.fail_after(limit_s):
            await main()

    try:
        trio.run(limited)
    except BaseException as error:  # noqa: BLE001  an ended host raises groups of anything
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        return type(error).__name__
    return "fine"


@WITH_AND_WITHOUT
def test_an_exception_in_a_handler(hardened: bool) -> None:
    async def main() -> None:
        client, server = make_transport(), make_transport()

        async def fail(stream: Any) -> None:
            raise ZeroDivisionError

        async def live(link: Link) -> None:
            await link.send(b"alive")

        server._host.set_stream_handler("/fail", fail)  # type: ignore[arg-type]
        server.serve("/live", live)
        if not hardened:
            server._swarm.set_stream_handler(server._host._swarm_stream_handler)
        async with client.running(), server.running():
            with suppress(TransportError):
                await client.open(server.peer, server.addresses()[0], "/fail")
            await trio.sleep(0.2)
            link = await client.open(server.peer, server.addresses()[0], "/live")
            assert await link.receive() == b"alive"

    assert (outcome(main) == "fine") == hardened


@WITH_AND_WITHOUT
def test_inbound_slots_come_back(hardened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hardened:
        put_back(monkeypatch, Swarm, "_do_handle_inbound_connection")

    async def main() -> None:
        async with pair(make_transport) as both:
            for _ in range(5):
                await both.open()
                await both.client.disconnect(both.server.peer)
            await trio.sleep(0.5)
            used = both.server._swarm._inbound_limiter.borrowed_tokens  # type: ignore[attr-defined]
            assert (used == 0) == hardened

    trio.run(main)


@pytest.mark.slow
def test_more_inbound_connections_than_there_are_slots() -> None:
    """16 clients come and go 17 times each."""

    async def come_and_go(server: Libp2pTransport) -> None:
        client = make_transport()
        async with client.running():
            for _ in range(17):
                link = await client.open(server.peer, server.addresses()[0], "/hello")
                assert await link.receive() == b"hello"
                await client.disconnect(server.peer)

    async def main() -> None:
        server = make_transport()

        async def hello(link: Link) -> None:
            await link.send(b"hello")

        server.serve("/hello", hello)
        async with server.running(), trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(come_and_go, server)

    assert LIMITS.connections_max + LIMITS.handshakes_max < 16 * 17
    trio.run(main)


@WITH_AND_WITHOUT
def test_a_cancelled_write(hardened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hardened:
        put_back(monkeypatch, yamux.Yamux, "_write_frame")

    async def main() -> None:
        async with pair(make_transport) as both:
            link = await both.open()
            connection = muxed(both.client)
            carrier = hardening.carrier_of(both.client.paths._of(both.server.peer)[0])  # type: ignore[attr-defined]
            assert isinstance(carrier, TrioTCPStream)
            send_all = carrier.stream
            whole = send_all.send_all

            async def in_two_halves(data: bytes) -> None:
                await whole(data[: len(data) // 2])
                await trio.sleep(0.1)
                await whole(data[len(data) // 2 :])

            monkeypatch.setattr(send_all, "send_all", in_two_halves)
            with trio.move_on_after(0.05):
                await connection._write_frame(struct.pack("!BBHII", 0, 0, 0, 999, 1000) + bytes(1000))
            monkeypatch.setattr(send_all, "send_all", whole)
            await link.send(b"x")
            with trio.fail_after(3):
                assert await link.receive() == b"x"

    assert (outcome(main) == "fine") == hardened


def test_a_write_that_nobody_takes_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be cancelled, so nothing else would end it but the kernel, and not every kernel does."""
    monkeypatch.setattr(hardening, "FRAME_WRITE_S", 0.1)

    async def main() -> None:
        async with pair(make_transport) as both:
            link = await both.open()
            carrier = hardening.carrier_of(both.client._swarm.get_connections()[0])  # type: ignore[attr-defined]
            assert isinstance(carrier, TrioTCPStream)

            async def taken_by_nobody(data: bytes) -> None:
                await trio.sleep_forever()

            monkeypatch.setattr(carrier.stream, "send_all", taken_by_nobody)
            with trio.fail_after(3):
                with pytest.raises(TransportError):
                    await link.send(b"x")
                await muxed(both.client).event_closed.wait()

    assert outcome(main) == "fine"


async def hold(lock: trio.Lock, task_status: trio.TaskStatus[None]) -> None:
    """As a writer on a slow link does."""
    async with lock:
        task_status.started()
        await trio.sleep_forever()


@WITH_AND_WITHOUT
def test_a_cancelled_read(hardened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hardened:
        put_back(monkeypatch, yamux.YamuxStream, "_auto_tune_and_send_window_update")

    async def main() -> None:
        async with pair(make_transport) as both:
            link = await both.open()
            frame = bytes(range(256)) * 1000
            await link.send(frame)
            connection = muxed(both.client)
            await until(lambda: sum(map(len, connection.stream_buffers.values())) >= len(frame))
            answer = None
            async with trio.open_nursery() as nursery:
                await nursery.start(hold, connection._write_lock)  # the window update has to wait for its turn

                async def free_it() -> None:
                    await trio.sleep(0.2)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(free_it)
                with trio.move_on_after(0.05):
                    answer = await link.receive()
                await trio.sleep_forever()
            with trio.fail_after(3):
                assert (answer or await link.receive()) == frame

    assert (outcome(main) == "fine") == hardened


@WITH_AND_WITHOUT
def test_data_is_not_cut_small(hardened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hardened:
        put_back(monkeypatch, yamux.YamuxStream, "_auto_tune_and_send_window_update")
    updates: list[int] = []
    send_window_update = yamux.YamuxStream.send_window_update

    async def counted(self: yamux.YamuxStream, increment: int, skip_lock: bool = False) -> None:
        updates.append(increment)
        await send_window_update(self, increment, skip_lock)

    monkeypatch.setattr(yamux.YamuxStream, "send_window_update", counted)
    frames = 64

    async def main() -> None:
        async with pair(make_transport) as both:
            link = await both.open()
            frame = bytes(128 * 1024)
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    for _ in range(frames):
                        await link.send(frame)

                nursery.start_soon(send)
                for _ in range(frames):
                    await link.receive()  # the far side echoes

    assert outcome(main) == "fine"
    # 8 MiB each way, half a window at a time: 32 grants and the ends. As it comes it was over 250.
    assert (len(updates) < 64) == hardened, len(updates)


@WITH_AND_WITHOUT
def test_a_frame_is_one_noise_message(hardened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hardening.apply()
    if not hardened:
        monkeypatch.setattr(yamux, "MAX_MESSAGE_SIZE", hardening.FRAME_BYTES_ORIGINAL)
    sizes: list[int] = []
    write_msg = BaseNoiseMsgReadWriter.write_msg

    async def measured(self: BaseNoiseMsgReadWriter, msg: bytes, prefix_encoded: bool = False) -> None:
        sizes.append(len(msg))
        await write_msg(self, msg, prefix_encoded)

    monkeypatch.setattr(BaseNoiseMsgReadWriter, "write_msg", measured)

    async def main() -> None:
        async with pair(make_transport) as both:
            link = await both.open()
            await link.send(bytes(256 * 1024))
            assert len(await link.receive()) == 256 * 1024  # the far side echoes

    assert outcome(main) == "fine"
    assert max(sizes) > MAX_PLAINTEXT_LENGTH - 100, "frames are as large as they may be"
    assert (max(sizes) <= MAX_PLAINTEXT_LENGTH) == hardened


@WITH_AND_WITHOUT
def test_a_cancelled_open_keeps_no_slot(hardened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hardened:
        put_back(monkeypatch, yamux.Yamux, "open_stream")

    async def main() -> None:
        async with pair(make_transport) as both:
            await both.open()
            connection = muxed(both.client)
            before = connection.stream_backlog_semaphore.value
            async with trio.open_nursery() as nursery:
                await nursery.start(hold, connection._write_lock)
                with trio.move_on_after(0.05):
                    await connection.open_stream()
                nursery.cancel_scope.cancel()
            assert (connection.stream_backlog_semaphore.value == before) == hardened

    trio.run(main)


@WITH_AND_WITHOUT
@pytest.mark.slow
def test_a_receiver_that_pauses(hardened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hardening.apply()
    if not hardened:
        monkeypatch.setattr(yamux, "trio", trio)

    async def main() -> None:
        client, server = make_transport(), make_transport()
        frames = 12

        async def pause(link: Link) -> None:
            await trio.sleep(5.5)
            for _ in range(frames):
                await link.receive()
            await link.send(b"all")

        server.serve("/pause", pause)
        async with client.running(), server.running():
            link = await client.open(server.peer, server.addresses()[0], "/pause")
            for _ in range(frames):
                await link.send(bytes(256 * 1024))
            assert await link.receive() == b"all"

    assert (outcome(main) == "fine") == hardened


@WITH_AND_WITHOUT
def test_a_peer_that_ignores_its_window(hardened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hardened:
        put_back(monkeypatch, yamux.Yamux, "__init__")
    held = 0

    async def main() -> None:
        nonlocal held
        async with pair(make_transport) as both:
            link = await both.open(SILENT)
            stream_id = link._stream.muxed_stream.stream_id  # type: ignore[attr-defined]
            attacker, victim = muxed(both.client), muxed(both.server)
            frame = struct.pack("!BBHII", 0, 0, 0, stream_id, 60_000) + bytes(60_000)
            try:
                for _ in range(100):
                    await attacker._write_frame(frame)
                    held = max(held, sum(map(len, victim.stream_buffers.values())))
                await trio.sleep(0.3)
            except BaseLibp2pError:  # the victim hung up
                pass
            held = max(held, sum(map(len, victim.stream_buffers.values())))
            newcomer = make_transport()
            async with newcomer.running():
                other = await newcomer.open(both.server.peer, both.address, ECHO)
                await other.send(b"x")
                assert await other.receive() == b"x"

    assert outcome(main) == "fine"
    assert (held <= hardening.BUFFER_BYTES_MAX) == hardened


def test_sockets_are_watched_both_ways() -> None:
    async def main() -> None:
        async with pair(make_transport) as both:
            await both.open()
            for transport in (both.client, both.server):
                carrier = hardening.carrier_of(transport._swarm.get_connections()[0])  # type: ignore[attr-defined]
                assert isinstance(carrier, TrioTCPStream)
                stream = carrier.stream
                assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000

    trio.run(main)


@WITH_AND_WITHOUT
@pytest.mark.slow
def test_the_auto_connector_dials_nobody(hardened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hardened:
        monkeypatch.setattr(hardening, "no_background_dials", lambda host: None)

    async def main() -> None:
        client, server = make_transport(), make_transport()
        client._swarm.connection_config.low_watermark = client._swarm.connection_config.min_connections = 1
        async with server.running():
            from multiaddr import Multiaddr

            client._swarm.peerstore.add_addrs(
                server._host.get_id(), [Multiaddr(address) for address in server.addresses()], 3600
            )
            async with client.running():
                with trio.move_on_after(3):
                    await until(lambda: client.connections() > 0)
                assert (client.connections() == 0) == hardened

    trio.run(main)


def test_a_dial_that_fails_is_tried_once() -> None:
    assert make_transport()._swarm.retry_config.max_retries == 0


def test_nothing_is_logged_to_the_root_logger(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with pair(make_transport) as both:
            await both.open()
            with pytest.raises(TransportError):
                await both.client.open(None, "/ip4/127.0.0.1/tcp/1", "/no")

    with caplog.at_level(logging.WARNING):
        trio.run(main)
    assert [record for record in caplog.records if not record.name.startswith("p2pfed")] == []


@WITH_AND_WITHOUT
@pytest.mark.slow
def test_leaving_closes_connections(hardened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        client, server = make_transport(), make_transport()

        async def silent(link: Link) -> None:
            await trio.sleep_forever()

        if not hardened:

            async def leave_them() -> None:
                pass

            monkeypatch.setattr(server, "_close", leave_them)
        server.serve("/silent", silent)
        async with client.running():
            async with server.running():
                await client.open(server.peer, server.addresses()[0], "/silent")
            with trio.move_on_after(1):
                await until(lambda: client.connections() == 0)
            assert (client.connections() == 0) == hardened

    trio.run(main)


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardening.metadata, "version", lambda name: "0.9.0")
    with pytest.raises(LocalError, match=r"0\.9\.0") as caught:
        hardening.apply()
    assert caught.value.exit_code == ExitCode.EXTRA_MISSING
