"""The libp2p transport: the suite, and what strangers, dead processes and taken ports do to it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import trio

from p2pfed.errors import ConfigError, ExitCode, LocalError, RemoteError, TransportError
from p2pfed.net.identity import new_identity
from p2pfed.net.libp2p import LIMITS, Libp2pTransport
from p2pfed.net.libp2p_link import Libp2pLink
from p2pfed.net.raw_stream import RawStream, varint
from p2pfed.ports import FRAME_BYTES_MAX, Link, PeerId, Transport
from tests.transport_suite import ECHO, SILENT, Pair, TransportSuite, pair, serve, until

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


def make_transport() -> Libp2pTransport:
    return Libp2pTransport(new_identity(), LOOPBACK)


class TestLibp2pTransport(TransportSuite):
    @pytest.fixture
    def make(self) -> Callable[[], Transport]:
        return make_transport

    @pytest.fixture
    def gated(self) -> Callable[[Callable[[PeerId], bool]], Transport]:
        return lambda allowed: Libp2pTransport(new_identity(), LOOPBACK, allowed)

    def streams(self, transport: Transport) -> int:
        assert isinstance(transport, Libp2pTransport)
        return sum(len(c.muxed_conn.streams) for c in transport._swarm.get_connections())


def port_of(transport: Transport) -> int:
    return int(transport.addresses()[0].rpartition("/")[2])


async def assert_alive(both: Pair) -> None:
    """The server still serves a newcomer."""
    newcomer = make_transport()
    async with newcomer.running():
        link = await newcomer.open(both.server.peer, both.address, ECHO)
        await link.send(b"alive")
        assert await link.receive() == b"alive"


def stream_of(link: Link) -> object:
    assert isinstance(link, Libp2pLink)
    return link._stream


@pytest.mark.parametrize("sent", [b"\0\0\0\7abc", b"\0\0"])
def test_a_half_frame_is_a_lost_link(sent: bytes) -> None:
    async def main() -> None:
        ended: list[Exception] = []

        async def half(link: Link) -> None:
            await stream_of(link).write(sent)  # type: ignore[attr-defined]

        client, server = make_transport(), make_transport()
        server.serve("/half", half)
        async with server.running(), client.running():
            link = await client.open(server.peer, server.addresses()[0], "/half")
            with pytest.raises(TransportError) as caught:
                await link.receive()
            ended.append(caught.value)
        assert not isinstance(ended[0], RemoteError)

    trio.run(main)


def test_a_frame_over_the_cap_is_the_peers_fault_and_ends_the_link() -> None:
    async def main() -> None:
        async with pair(make_transport) as both:
            errors: list[Exception] = []

            async def receive(link: Link) -> None:
                for _ in range(2):
                    try:
                        await link.receive()
                    except (RemoteError, TransportError) as error:
                        errors.append(error)

            both.server.serve("/receive", receive)
            link = await both.open("/receive")
            await stream_of(link).write((FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"x")  # type: ignore[attr-defined]
            await until(lambda: len(errors) == 2)
            assert isinstance(errors[0], RemoteError)
            assert str(FRAME_BYTES_MAX + 1) in str(errors[0])
            assert isinstance(errors[1], TransportError)

    trio.run(main)


def test_a_send_cancelled_in_a_frame_ends_that_link_only() -> None:
    async def main() -> None:
        async with pair(make_transport) as both:
            stuck = await both.open(SILENT)
            with trio.move_on_after(0.3):
                while True:
                    await stuck.send(bytes(FRAME_BYTES_MAX))
            with pytest.raises(TransportError, match="not sent to its end"):
                await stuck.send(b"x")
            assert both.client._swarm.get_connections()[0].muxed_conn.is_established  # type: ignore[attr-defined]

    trio.run(main)


def test_plaintext_and_other_protocols_are_refused() -> None:
    async def main() -> None:
        async with pair(make_transport) as both:
            for offered in (b"/plaintext/2.0.0", b"/secio/1.0.0", b"/tls/1.0.0"):
                stream = await trio.open_tcp_stream("127.0.0.1", port_of(both.server))
                async with stream:
                    await stream.send_all(b"\x13/multistream/1.0.0\n" + bytes([len(offered) + 1]) + offered + b"\n")
                    answer = b""
                    while not answer.endswith(b"na\n"):
                        answer += await stream.receive_some()
                    assert answer == b"\x13/multistream/1.0.0\n\x03na\n"

    trio.run(main)


def test_only_what_is_served_is_offered() -> None:
    names = [str(protocol) for protocol in make_transport()._host.get_mux().get_protocols()]
    assert names == []


@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"",
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x13/multistream/1.0.0\n\x07/noise\n",
        b"\x13/multistream/1.0.0\n\x07/noise\n" + b"\xff" * 400,
        b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20" + b"\x07" * 32,
        b"\xff" * 5000,
        b"\x03\xff\xfe\n" * 100,
    ],
)
def test_garbage_on_the_socket_leaves_the_host_alive(bytes_sent: bytes) -> None:
    async def main() -> None:
        async with pair(make_transport) as both:
            for _ in range(3):
                async with await trio.open_tcp_stream("127.0.0.1", port_of(both.server)) as stream:
                    await stream.send_all(bytes_sent)
                    with trio.move_on_after(0.05):
                        await stream.receive_some()
            await assert_alive(both)

    trio.run(main)


@pytest.mark.parametrize(
    "answer", [b"", b"\xff" * 100, b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x04abcd", b"\x03\xff\xfe\n"]
)
def test_a_garbled_answer_to_a_dial_is_an_error_of_ours(answer: bytes) -> None:
    async def main() -> None:
        async def garble(stream: trio.SocketStream) -> None:
            await stream.send_all(answer)

        client = make_transport()
        async with client.running(), trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), garble, 0)
            port = listener.socket.getsockname()[1]
            with trio.fail_after(5), pytest.raises((TransportError, RemoteError)):
                await client.open(client.peer, f"/ip4/127.0.0.1/tcp/{port}", ECHO)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_nobody_waits_longer_than_the_limit_for_a_silent_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pfed.net.libp2p.DIAL_S", 0.3)

    async def main() -> None:
        async def say_nothing(stream: trio.SocketStream) -> None:
            await trio.sleep_forever()

        client = make_transport()
        async with client.running(), trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), say_nothing, 0)
            port = listener.socket.getsockname()[1]
            with trio.fail_after(3), pytest.raises(TransportError, match="no answer in"):
                await client.open(client.peer, f"/ip4/127.0.0.1/tcp/{port}", ECHO)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_silent_sockets_do_not_keep_honest_peers_out() -> None:
    async def main() -> None:
        async with pair(make_transport) as both:
            silent = [
                await trio.open_tcp_stream("127.0.0.1", port_of(both.server)) for _ in range(LIMITS.connections_max)
            ]
            await assert_alive(both)
            for stream in silent:
                await stream.aclose()

    trio.run(main)


def test_connections_and_streams_of_one_peer_are_limited() -> None:
    async def main() -> None:
        async with pair(make_transport) as both:
            links = [await both.open(SILENT) for _ in range(LIMITS.streams_per_peer_max)]
            with pytest.raises(TransportError):
                await both.open(SILENT)
            await links[0].aclose()
            for _ in range(2 * LIMITS.connections_per_peer_max):
                with contextlib.suppress(TransportError):
                    await both.client.open(None, both.address, ECHO)
            assert len(both.server._swarm.get_connections()) <= LIMITS.connections_per_peer_max  # type: ignore[attr-defined]

    trio.run(main)


def test_a_taken_port_is_named_before_anything_starts() -> None:
    async def main() -> None:
        first = make_transport()
        async with first.running():
            second = Libp2pTransport(new_identity(), first.addresses())
            with pytest.raises(LocalError, match=str(port_of(first))) as caught:
                async with second.running():
                    pass
            assert caught.value.exit_code == ExitCode.PORT

    trio.run(main)


def test_an_address_that_is_not_ours_is_an_error_of_the_port() -> None:
    async def main() -> None:
        with pytest.raises(LocalError) as caught:
            async with Libp2pTransport(new_identity(), ("/ip4/192.0.2.1/tcp/0",)).running():
                pass
        assert caught.value.exit_code == ExitCode.PORT

    trio.run(main)


@pytest.mark.parametrize("address", ["/ip4/0.0.0.0/udp/1/quic-v1", "/dns4/localhost/tcp/1", "/ip4/1.2.3/tcp/1", "x"])
def test_a_bad_listen_address_is_a_config_error(address: str) -> None:
    with pytest.raises(ConfigError):
        Libp2pTransport(new_identity(), (address,))


@pytest.mark.parametrize("address", ["", "/memory/1", "/ip4/127.0.0.1/udp/1", "/ip4/127.0.0.1/tcp/99999"])
def test_hearsay_that_is_no_address_is_nobodys_fault(address: str) -> None:
    async def main() -> None:
        client = make_transport()
        async with client.running():
            with pytest.raises(TransportError):
                await client.open(client.peer, address, ECHO)

    trio.run(main)


def test_addresses_are_concrete() -> None:
    async def main() -> None:
        everywhere = Libp2pTransport(new_identity(), ("/ip4/0.0.0.0/tcp/0",))
        assert everywhere.addresses() == ()
        async with everywhere.running():
            assert everywhere.addresses()
            for address in everywhere.addresses():
                assert "0.0.0.0" not in address
                with socket.create_connection((address.split("/")[2], port_of(everywhere)), 2):
                    pass

    trio.run(main)


def test_ipv6_loopback_works_and_is_named() -> None:
    async def main() -> None:
        client, server = make_transport(), Libp2pTransport(new_identity(), ("/ip6/::1/tcp/0",))
        serve(server)
        async with client.running(), server.running():
            link = await client.open(server.peer, server.addresses()[0], ECHO)
            assert link.address == server.addresses()[0]
            await link.send(b"x")
            assert await link.receive() == b"x"

    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    trio.run(main)


REMOTE = """
import trio
from tests.net.test_libp2p import make_transport
from tests.transport_suite import serve
async def main():
    server = make_transport()
    serve(server)
    async with server.running():
        print(server.peer, server.addresses()[0], flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


@pytest.mark.slow
def test_a_killed_process_is_noticed() -> None:
    async def main() -> None:
        with subprocess.Popen(  # noqa: ASYNC220  the process is what is tested
            [sys.executable, "-c", REMOTE], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                peer, address = (await trio.to_thread.run_sync(process.stdout.readline)).split()
                client = make_transport()
                async with client.running():
                    link = await client.open(PeerId(peer), address, ECHO)
                    await link.send(b"x")
                    await link.receive()
                    os.kill(process.pid, signal.SIGKILL)
                    with trio.fail_after(5), pytest.raises(TransportError):
                        await link.receive()
                    with trio.fail_after(5), pytest.raises(TransportError):
                        await client.open(PeerId(peer), address, ECHO)
            finally:
                process.kill()

    trio.run(main)


def test_two_transports_with_one_identity_can_meet() -> None:
    """A copied identity must be found out by those above, so the transport lets the two talk."""

    async def main() -> None:
        identity = new_identity()
        one, other = Libp2pTransport(identity, LOOPBACK), Libp2pTransport(identity, LOOPBACK)
        serve(other)
        async with one.running(), other.running():
            link = await one.open(other.peer, other.addresses()[0], ECHO)
            await link.send(b"x")
            assert await link.receive() == b"x"

    trio.run(main)


def test_raw_stream_carries_messages_and_refuses_one_that_is_too_long() -> None:
    server, client = make_transport(), make_transport()
    heard: list[bytes] = []
    refused: list[str] = []

    async def handler(stream: RawStream) -> None:
        heard.append(await stream.read_message())
        heard.append(await stream.read_message())
        await stream.write_message(b"both")
        try:
            await stream.read_message(10)
        except RemoteError as error:
            refused.append(str(error))
            raise

    server.serve_raw("/raw/1", handler)

    async def main() -> None:
        async with server.running(), client.running():
            stream = await client.open_raw(server.peer, server.addresses()[0], "/raw/1")
            await stream.write(varint(3) + b"one" + varint(300) + b"x" * 100)
            await stream.write(b"x" * 200)
            assert await stream.read_message() == b"both"
            await stream.write_message(b"eleven byte")
            with pytest.raises(TransportError):
                await stream.read_message()
            await stream.aclose()

    trio.run(main)
    assert heard == [b"one", b"x" * 300] and refused == ["message of 11 bytes announced, more than 10"]
