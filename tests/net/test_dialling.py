"""Which addresses are dialled, in which order, from which port; and how often somebody may ask."""

import socket

import pytest
import trio
import trio.testing

from p2pfed.errors import ConfigError, ProtocolMissing, TransportError
from p2pfed.net import open_first as module
from p2pfed.net.address import is_circuit, parse_address
from p2pfed.net.allowance import PEERS_KEPT_MAX, Allowance
from p2pfed.net.dial_order import dial_order, direct_only
from p2pfed.net.identity import Identity, new_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.open_first import open_first
from p2pfed.net.outbound import open_tcp, source_for
from p2pfed.net.paths import Paths
from p2pfed.ports import PeerId
from tests.transport_suite import ECHO, serve

PEER, RELAY = (Identity(bytes([number]) * 32).peer_id for number in (1, 2))
CIRCUIT = f"/ip4/11.0.0.1/tcp/4001/p2p/{RELAY}/p2p-circuit"
LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


def test_circuits_are_addresses() -> None:
    for text in (CIRCUIT, f"{CIRCUIT}/p2p/{PEER}"):
        address = parse_address(text)
        assert (address.relay, address.host, address.port) == (RELAY, "11.0.0.1", 4001)
        assert str(address) == CIRCUIT and is_circuit(str(address))
    assert parse_address(f"{CIRCUIT}/p2p/{PEER}").peer == PEER
    assert parse_address(CIRCUIT).peer is None


@pytest.mark.parametrize(
    "text",
    [
        "/p2p-circuit",
        "/ip4/11.0.0.1/tcp/4001/p2p-circuit",
        f"{CIRCUIT}/p2p",
        f"{CIRCUIT}/p2p/{PEER}/p2p-circuit",
        f"{CIRCUIT}/p2p/nobody",
        f"/p2p/{RELAY}/p2p-circuit/p2p/{PEER}",
        f"/ip4/11.0.0.1/udp/4001/p2p/{RELAY}/p2p-circuit",
        f"{CIRCUIT}/{'x' * 256}",
    ],
)
def test_what_is_no_circuit(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_address(text)


def test_a_circuit_is_no_place_to_listen() -> None:
    with pytest.raises(ConfigError):
        Libp2pTransport(new_identity(), (CIRCUIT,))


def test_near_before_public_before_circuits_before_other_private_ones() -> None:
    near, public, far = "/ip4/192.168.1.7/tcp/1", "/ip4/11.0.0.7/tcp/1", "/ip4/10.9.9.9/tcp/1"
    own = ("/ip4/192.168.1.10/tcp/4001", "/memory/1")
    assert dial_order((far, "nonsense", CIRCUIT, public, near, public), own) == (near, public, CIRCUIT, far, "nonsense")
    assert direct_only((far, CIRCUIT, public, near), own) == (near, public)
    assert dial_order(("/memory/2", "/memory/1"), ()) == ("/memory/2", "/memory/1")
    link_local = "/ip6/fe80::2%eth0/tcp/1"
    assert dial_order((far, public, link_local), own) == (link_local, public, far)
    assert direct_only((far, link_local), own) == (link_local,), "its zone says that it is here"


def test_a_dead_address_does_not_keep_the_next_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first never answers, the second does: it is dialled after AHEAD_S, not after the first one's limit."""
    monkeypatch.setattr(module, "AHEAD_S", 0.2)

    async def main() -> None:
        client, server = (Libp2pTransport(new_identity(), LOOPBACK) for _ in range(2))
        serve(server)
        async with client.running(), server.running():
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            listener.listen()  # accepts and says nothing
            mute = f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}"
            with trio.fail_after(3):
                link = await open_first(client, server.peer, (mute, server.addresses()[0]), ECHO)
                await link.send(b"x")
                assert await link.receive() == b"x"
                with pytest.raises(ProtocolMissing) as missing:
                    await open_first(client, server.peer, (server.addresses()[0],), "/none")
                assert missing.value.address == server.addresses()[0]
            listener.close()
            server_address = server.addresses()[0]
        third = Libp2pTransport(new_identity(), LOOPBACK)
        async with third.running():
            with pytest.raises(TransportError) as failed:
                await open_first(third, server.peer, (server_address, "/nonsense"), ECHO)
            assert server_address in str(failed.value) and "/nonsense" in str(failed.value)

    trio.run(main)


def test_a_dial_leaves_from_the_listening_port_and_from_any_where_that_is_taken() -> None:
    async def main() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        target = listeners[0].socket.getsockname()[1]
        with socket.socket() as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            own.bind(("127.0.0.1", 0))
            own.listen()
            source = own.getsockname()
            first = await open_tcp("127.0.0.1", target, (source,))
            assert first.socket.getsockname() == source
            second = await open_tcp("127.0.0.1", target, (source,))
            assert second.socket.getsockname() != source
            with pytest.raises(OSError):
                await open_tcp("127.0.0.1", 1, (source,))

    trio.run(main)


def test_the_listener_to_dial_from() -> None:
    sources = (("127.0.0.1", 1), ("0.0.0.0", 2), ("::", 3))
    assert source_for("127.0.0.2", sources) == ("127.0.0.1", 1)
    assert source_for("11.0.0.1", sources) == ("0.0.0.0", 2)
    assert source_for("2600::1", sources) == ("::", 3)
    assert source_for("11.0.0.1", sources[:1]) is None


def test_two_that_speak_first_dial_again_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TCP connection both dialled at one moment: seen as a handshake of two initiators."""

    async def main() -> None:
        one, two = (Libp2pTransport(new_identity(), LOOPBACK) for _ in range(2))
        serve(two)
        async with one.running(), two.running():
            crossed = 0

            async def crossing(host: str, port: int, sources: object) -> trio.SocketStream:
                nonlocal crossed
                if sources == ():
                    return await trio.open_tcp_stream(host, port)
                crossed += 1
                listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
                stream = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
                nursery.start_soon(speak, await listener.accept())
                return stream

            async def speak(tcp: trio.SocketStream) -> None:
                with pytest.raises(Exception, match="malformed"):
                    await two.paths.upgrade(tcp, one.peer, dialler=True, what="crossed")

            monkeypatch.setattr("p2pfed.net.paths.open_tcp", crossing)
            async with trio.open_nursery() as nursery:
                link = await one.open(two.peer, two.addresses()[0], ECHO)
                await link.send(b"x")
                assert await link.receive() == b"x"
            assert crossed == 1

    trio.run(main)


def test_a_connection_that_is_held_survives_its_links() -> None:
    async def main() -> None:
        one, two = (Libp2pTransport(new_identity(), LOOPBACK) for _ in range(2))
        serve(two)
        async with one.running(), two.running():
            await one.open(two.peer, two.addresses()[0], ECHO)
            assert isinstance(one.paths, Paths)
            with one.paths.holding(two.peer), one.paths.holding(two.peer):
                await one.disconnect(two.peer)
                assert one.connections() == 1
            await one.disconnect(two.peer)
            assert one.connections() == 0

    trio.run(main)


def test_allowances() -> None:
    allowance = Allowance(burst=2, per_minute=60.0, burst_all=3, per_minute_all=0.0)
    one, two = PeerId("one"), PeerId("two")
    assert [allowance.allows(one, 0.0) for _ in range(3)] == [True, True, False]
    assert allowance.allows(two, 0.0)
    assert not allowance.allows(two, 0.0)  # all together
    slow = Allowance(burst=1, per_minute=6.0, burst_all=1000, per_minute_all=1e6)
    assert slow.allows(one, 0.0) and not slow.allows(one, 9.0) and slow.allows(one, 20.0)
    for number in range(2 * PEERS_KEPT_MAX):
        slow.allows(PeerId(str(number)), 0.0)
    assert len(slow._peers) == PEERS_KEPT_MAX


def test_a_port_that_was_dialled_from_is_free_again_at_once() -> None:
    """A node that restarts listens where it did, though connections of its last run still linger in the kernel."""

    async def main() -> None:
        server = Libp2pTransport(new_identity(), LOOPBACK)
        serve(server)
        async with server.running():
            listen = LOOPBACK
            for _ in range(3):
                client = Libp2pTransport(new_identity(), listen)
                async with client.running():
                    link = await client.open(server.peer, server.addresses()[0], ECHO)
                    await link.send(b"x")
                    assert await link.receive() == b"x"
                    listen = (client.addresses()[0],)

    trio.run(main)
