"""Dial-back: what is reached and what is not, what is never tried, and what strangers send."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgpack
import pytest
import trio

from p2pfed.errors import P2pfedError, RemoteError, TransportError
from p2pfed.net import dialback
from p2pfed.net.dialback import PROTOCOL, DialBackServer, ask_dialback
from p2pfed.net.identity import new_identity
from p2pfed.net.libp2p import Libp2pTransport
from tests.transport_suite import ECHO, serve

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


def make() -> Libp2pTransport:
    return Libp2pTransport(new_identity(), LOOPBACK)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Libp2pTransport, Libp2pTransport, str]]:
    """An asker, an answerer and the answerer's address."""
    asker, answerer = make(), make()
    serve(answerer)
    DialBackServer(answerer)
    with trio.fail_after(20):
        async with asker.running(), answerer.running():
            yield asker, answerer, answerer.addresses()[0]


def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_what_answers_is_reached_and_what_does_not_is_not() -> None:
    async def main() -> None:
        async with pair() as (asker, answerer, address):
            silent = f"/ip4/127.0.0.1/tcp/{unused_port()}"
            claims = (asker.addresses()[0], silent)
            answer = await ask_dialback(asker, answerer.peer, address, claims)
            assert answer.reached == {asker.addresses()[0]}
            assert [failed for failed, _ in answer.failed] == [silent]
            assert answer.from_listening_port
            assert str(answer.observed) == asker.addresses()[0]
            assert asker.connections() == 1  # the dial-back left none

    trio.run(main)


def test_another_device_at_the_address_is_no_success() -> None:
    async def main() -> None:
        async with pair() as (asker, answerer, address):
            other = make()
            async with other.running():
                answer = await ask_dialback(asker, answerer.peer, address, (other.addresses()[0],))
                assert not answer.reached
                assert "another peer" in answer.failed[0][1]

    trio.run(main)


def test_no_other_ip_is_ever_dialled() -> None:
    """127.0.0.2 listens too, and the answerer could reach it: it must not try."""

    async def main() -> None:
        async with pair() as (asker, answerer, address):
            victims = await trio.open_tcp_listeners(0, host="127.0.0.2")
            port = victims[0].socket.getsockname()[1]
            answer = await ask_dialback(asker, answerer.peer, address, (f"/ip4/127.0.0.2/tcp/{port}",))
            assert not answer.reached and not answer.failed
            with trio.move_on_after(0.2) as scope:
                await victims[0].accept()
            assert scope.cancelled_caught
            await victims[0].aclose()

    trio.run(main)


def test_asks_have_a_rate() -> None:
    async def main() -> None:
        async with pair() as (asker, answerer, address):
            for _ in range(dialback.ASKS_BURST):
                await ask_dialback(asker, answerer.peer, address, ())
            with pytest.raises(TransportError):
                await ask_dialback(asker, answerer.peer, address, ())

    trio.run(main)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        msgpack.packb(7),
        msgpack.packb({"a": 1}),
        msgpack.packb(["/ip4/127.0.0.1/tcp/1"] * 5),
        msgpack.packb([7]),
        msgpack.packb(["/dns4/localhost/tcp/1"]),
        msgpack.packb(["/ip4/127.0.0.1/tcp/0"]),
        msgpack.packb(["/ip4/0.0.0.0/tcp/1"]),
        msgpack.packb(["/ip4/127.0.0.1/tcp/1\x1b[2J"]),
        msgpack.packb(["x" * 3000]),
        b"\x91" * 4000,
        bytes(5000),
    ],
    ids=str,
)
def test_garbage_ends_its_stream_and_nothing_else(message: bytes) -> None:
    async def main() -> None:
        async with pair() as (asker, answerer, address):
            raw = await asker.open_raw(answerer.peer, address, PROTOCOL)
            with pytest.raises(TransportError):
                await raw.write_message(message)
                await raw.read_message()
            link = await asker.open(answerer.peer, address, ECHO)
            await link.send(b"alive")
            assert await link.receive() == b"alive"

    trio.run(main)


@pytest.mark.parametrize(
    "reply",
    [
        b"\xc1",
        msgpack.packb([]),
        msgpack.packb(["/ip4/127.0.0.1/tcp/1", 7]),
        msgpack.packb(["/ip4/127.0.0.1/tcp/1", [7]]),
        msgpack.packb(["/ip4/127.0.0.1/tcp/1", [["/ip4/9.9.9.9/tcp/1", "answered"]]]),
        msgpack.packb(["nonsense", []]),
        msgpack.packb(["/ip4/127.0.0.1/tcp/1", [["/ip4/127.0.0.1/tcp/7", "x" * 1000]]]),
    ],
    ids=str,
)
def test_a_lying_answerer_is_at_fault(reply: bytes) -> None:
    async def main() -> None:
        async with pair() as (asker, answerer, address):

            async def lie(raw: object) -> None:
                await raw.read_message()  # type: ignore[attr-defined]
                await raw.write_message(reply)  # type: ignore[attr-defined]

            answerer.serve_raw(PROTOCOL, lie)
            with pytest.raises(RemoteError):
                await ask_dialback(asker, answerer.peer, address, ("/ip4/127.0.0.1/tcp/7",))

    trio.run(main)


def test_nobody_is_asked_through_a_relay_and_a_missing_protocol_is_told() -> None:
    async def main() -> None:
        one, two = make(), make()
        async with one.running(), two.running():
            with pytest.raises(P2pfedError, match="no stream"):
                await ask_dialback(one, two.peer, two.addresses()[0], ())

    trio.run(main)
