"""The DHT, identify and ping over real transports on loopback."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from p2pfed import __version__
from p2pfed.core.messages import PeerRecord
from p2pfed.errors import RemoteError, TransportError
from p2pfed.net import paths
from p2pfed.net.dht import rounds
from p2pfed.net.dht.key import network_key
from p2pfed.net.dht.messages import DhtMessage, Kind, decode, encode
from p2pfed.net.dht.server import KAD_PROTOCOL, REQUESTS_MAX
from p2pfed.net.dht.service import Dht
from p2pfed.net.identify import IDENTIFY_PROTOCOL, PING_PROTOCOL, PING_STREAMS_MAX, identify, serve_identify
from p2pfed.net.identity import new_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.raw_stream import RawStream

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)
STORY_S = 20.0
KEY = network_key("0123456789abcdef")


class Peer:
    """A transport with a DHT and identify, as a runtime has them."""

    def __init__(self, serves: bool) -> None:
        self.transport = Libp2pTransport(new_identity(), LOOPBACK)
        self.dht = Dht(self.transport, random.Random(1))
        if serves:
            self.dht.serve()
        serve_identify(self.transport, self.transport.addresses, self.transport.protocols)

    @property
    def record(self) -> PeerRecord:
        return PeerRecord(self.transport.peer, tuple(self.transport.addresses()))

    def knows(self, *others: "Peer") -> None:
        for other in others:
            self.dht.table.name(other.record.peer, other.record.addresses)

    async def find(self, provide: bool = True) -> set[str]:
        found = await self.dht.find(KEY, self.record.addresses if provide else ())
        return {each.peer for each in found}


@asynccontextmanager
async def running(*peers: Peer) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for each in peers:
            await stack.enter_async_context(each.transport.running())
        yield


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(STORY_S):
            await story()

    trio.run(main)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  no one event tells
        await trio.sleep(0.01)


def test_two_clients_find_each_other_through_one_server_and_hold_no_connection() -> None:
    server, one, two = Peer(True), Peer(False), Peer(False)

    async def story() -> None:
        async with running(server, one, two):
            one.knows(server)
            two.knows(server)
            assert await one.find() == set()
            assert await two.find() == {one.transport.peer}
            assert await one.find() == {two.transport.peer}
            assert server.dht.providers.find(one.transport.peer, trio.current_time()) == one.record
            await until(lambda: server.transport.connections() == 0)
            assert one.transport.connections() == two.transport.connections() == 0
            assert len(server.dht.table) == 0, "clients are no servers"

    play(story)


def test_a_connection_that_somebody_else_uses_by_then_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "RELEASE_S", 0.2)
    server, one = Peer(True), Peer(False)

    async def story() -> None:
        async with running(server, one):
            one.knows(server)
            await one.find()
            stream = await one.transport.open_raw(server.transport.peer, server.record.addresses[0], PING_PROTOCOL)
            await trio.sleep(0.4)
            await stream.write(b"p" * 32)
            assert await stream.read_some() == b"p" * 32
            await stream.aclose()
            await one.find()
            await until(lambda: one.transport.connections() == 0)

    play(story)


def test_servers_learn_each_other_and_clients_of_either_meet() -> None:
    a, b, a_client, b_client = Peer(True), Peer(True), Peer(False), Peer(False)

    async def story() -> None:
        async with running(a, b, a_client, b_client):
            b.knows(a)  # one of the two is enough
            await b.dht.refresh(trio.current_time())
            await until(lambda: a.dht.table.proven(0, 9) == [b.record])
            a_client.knows(a)
            b_client.knows(b)
            await a_client.find()
            assert await b_client.find() == {a_client.transport.peer}
            assert await a_client.find() == {b_client.transport.peer}

    play(story)


def test_dead_servers_cost_a_search_nothing_but_their_dials() -> None:
    server, dead, one = Peer(True), Peer(True), Peer(False)

    async def story() -> None:
        async with running(server, one):
            one.knows(server)
            async with dead.transport.running():
                one.knows(dead)
            assert await one.find() == set()
            assert await one.find(provide=False) == set()
            entry = one.dht.table.get(dead.transport.peer)
            assert entry is not None and entry.failures == 2
            assert server.dht.providers.find(one.transport.peer, trio.current_time()) is not None

    play(story)


def test_a_search_that_is_cancelled_leaves_no_connection() -> None:
    silent, one = Peer(False), Peer(False)
    asked = trio.Event()

    async def never(_: RawStream) -> None:
        asked.set()
        await trio.sleep_forever()

    silent.transport.serve_raw(KAD_PROTOCOL, never)

    async def story() -> None:
        async with running(silent, one):
            one.knows(silent)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.find)
                await asked.wait()
                nursery.cancel_scope.cancel()
            await until(lambda: one.transport.connections() == 0)

    play(story)


@pytest.mark.parametrize("answer", [b"\xff\xff", encode(DhtMessage(Kind.PING)), None], ids=["noise", "other", "none"])
def test_a_server_that_answers_nonsense_counts_as_failed(answer: bytes | None) -> None:
    bad, one = Peer(False), Peer(False)

    async def nonsense(stream: RawStream) -> None:
        await stream.read_message()
        if answer is not None:
            await stream.write_message(answer)

    bad.transport.serve_raw(KAD_PROTOCOL, nonsense)

    async def story() -> None:
        async with running(bad, one):
            one.knows(bad)
            assert await one.find() == set()
            entry = one.dht.table.get(bad.transport.peer)
            assert entry is not None and entry.failures == 1

    play(story)


def test_a_stream_has_many_questions_but_not_any_number() -> None:
    server, one = Peer(True), Peer(False)

    async def story() -> None:
        async with running(server, one):
            stream = await one.transport.open_raw(server.transport.peer, server.record.addresses[0], KAD_PROTOCOL)
            for _ in range(REQUESTS_MAX):
                await stream.write_message(encode(DhtMessage(Kind.PING)))
                assert decode(await stream.read_message()).kind is Kind.PING
            with pytest.raises(TransportError):
                await stream.read_message()

    play(story)


def test_a_client_may_become_a_server_while_it_runs() -> None:
    server, one, two = Peer(True), Peer(False), Peer(False)

    async def story() -> None:
        async with running(server, one, two):
            one.knows(server)
            two.knows(server)
            one.dht.serve()
            await one.find()
            await until(lambda: server.dht.table.proven(0, 9) == [one.record])
            await two.find()
            assert one.dht.providers.find(two.transport.peer, trio.current_time()) == two.record

    play(story)


def test_identify_tells_who_this_is_and_how_it_sees_the_asker() -> None:
    server, one = Peer(True), Peer(False)

    async def story() -> None:
        async with running(server, one):
            told = await identify(one.transport, server.transport.peer, server.record.addresses[0])
            assert told.agent == f"p2pfed/{__version__}"
            assert {KAD_PROTOCOL, IDENTIFY_PROTOCOL, PING_PROTOCOL} <= set(told.protocols)
            assert told.addresses == server.record.addresses
            assert told.observed.startswith("/ip4/127.0.0.1/tcp/")

    play(story)


def test_an_identification_that_is_too_long_or_none_is_the_peers_fault() -> None:
    bad, one = Peer(False), Peer(False)
    answers = [b"x" * 20_000, b"\xff\xff\xff"]

    async def nonsense(stream: RawStream) -> None:
        await stream.write_message(answers.pop())

    bad.transport.serve_raw(IDENTIFY_PROTOCOL, nonsense)

    async def story() -> None:
        async with running(bad, one):
            for _ in range(2):
                with pytest.raises(RemoteError):
                    await identify(one.transport, bad.transport.peer, bad.record.addresses[0])

    play(story)


def test_pings_are_echoed_on_two_streams_of_a_peer() -> None:
    server, one = Peer(True), Peer(False)

    async def story() -> None:
        async with running(server, one):
            address = server.record.addresses[0]
            streams = [
                await one.transport.open_raw(server.transport.peer, address, PING_PROTOCOL)
                for _ in range(PING_STREAMS_MAX)
            ]
            for number in range(3):
                for stream in streams:
                    await stream.write(bytes([number]) * 32)
                    assert await stream.read_some() == bytes([number]) * 32
            third = await one.transport.open_raw(server.transport.peer, address, PING_PROTOCOL)
            with pytest.raises(TransportError):
                await third.write(b"p" * 32)
                await third.read_some()

    play(story)


def test_rounds_come_soon_then_hardly_ever_and_again_when_neighbours_are_wanting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("FIRST_AFTER_S", 0.01), ("LOOK_INTERVAL_S", 0.01), ("WANTING_INTERVAL_S", 0.02)):
        monkeypatch.setattr(rounds, name, value)
    server, one = Peer(True), Peer(False)
    asked = 0
    wanting = False

    async def story() -> None:
        nonlocal asked, wanting
        find = one.dht.find

        async def counted(*arguments: object) -> list[PeerRecord]:
            nonlocal asked
            asked += 1
            return await find(*arguments)  # type: ignore[arg-type]

        one.dht.find = counted  # type: ignore[method-assign, assignment]
        async with running(server, one), trio.open_nursery() as nursery:
            found: list[PeerRecord] = []
            arguments = (one.transport.addresses, lambda: wanting, found.append, random.Random(1))
            nursery.start_soon(rounds.seek, one.dht, "0123456789abcdef", *arguments)
            await trio.sleep(0.1)
            assert asked == 0, "there is nobody to ask"
            one.knows(server)
            await until(lambda: asked == 1)
            await trio.sleep(0.2)
            assert asked == 1
            wanting = True
            await until(lambda: asked >= 3)
            nursery.cancel_scope.cancel()

    play(story)
