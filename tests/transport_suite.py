"""What both transports must do: run by tests/net/test_memory.py and tests/net/test_libp2p.py, and open to a third."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from p2pfed.errors import ProtocolMissing, RemoteError, TransportError
from p2pfed.ports import FRAME_BYTES_MAX, Link, PeerId, Transport

ECHO = "/suite/echo/1"
FAILING = "/suite/failing/1"
SILENT = "/suite/silent/1"
LIMIT_S = 20.0


@dataclass
class Pair:
    """A client, and a server that echoes, fails, or reads nothing; `served` counts live handlers."""

    client: Transport
    server: Transport
    served: list[Link]

    @property
    def address(self) -> str:
        return self.server.addresses()[0]

    async def open(self, protocol: str = ECHO) -> Link:
        return await self.client.open(self.server.peer, self.address, protocol)


def serve(server: Transport) -> list[Link]:
    served: list[Link] = []

    async def echo(link: Link) -> None:
        served.append(link)
        try:
            while True:
                await link.send(await link.receive())
        finally:
            served.remove(link)

    async def failing(link: Link) -> None:
        await link.receive()
        raise ZeroDivisionError("a bug in a handler")

    async def silent(link: Link) -> None:
        await trio.sleep_forever()

    server.serve(ECHO, echo)
    server.serve(FAILING, failing)
    server.serve(SILENT, silent)
    return served


@asynccontextmanager
async def pair(make: Callable[[], Transport]) -> AsyncIterator[Pair]:
    client, server = make(), make()
    serve(client)
    served = serve(server)
    async with server.running(), client.running():
        with trio.fail_after(LIMIT_S):
            yield Pair(client, server, served)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  the condition is inside libp2p, which has no event for it
        await trio.sleep(0.01)


class TransportSuite:
    """Subclass and give `make`: a new transport that can reach, and be reached by, all others made."""

    @pytest.fixture
    def make(self) -> Callable[[], Transport]:
        raise NotImplementedError

    def run(self, make: Callable[[], Transport], body: Callable[[Pair], object]) -> None:
        async def main() -> None:
            async with pair(make) as both:
                await body(both)  # type: ignore[misc]

        trio.run(main)

    @pytest.mark.parametrize("size", [0, 1, 65_536, FRAME_BYTES_MAX])
    def test_a_frame_comes_back_equal(self, make: Callable[[], Transport], size: int) -> None:
        async def body(both: Pair) -> None:
            frame = bytes(i % 251 for i in range(size))
            link = await both.open()
            assert (link.peer, link.outbound, link.address) == (both.server.peer, True, both.address)
            for _ in range(3):
                await link.send(frame)
                assert await link.receive() == frame

        self.run(make, body)

    def test_a_frame_over_the_cap_is_not_sent(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            link = await both.open()
            with pytest.raises(ValueError, match=str(FRAME_BYTES_MAX + 1)):
                await link.send(bytes(FRAME_BYTES_MAX + 1))
            await link.send(b"still whole")
            assert await link.receive() == b"still whole"

        self.run(make, body)

    def test_the_peer_is_read_from_the_handshake(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            link = await both.client.open(None, both.address, ECHO)
            assert link.peer == both.server.peer
            await link.send(b"x")
            await until(lambda: bool(both.served))
            assert both.served[0].peer == both.client.peer
            assert not both.served[0].outbound

        self.run(make, body)

    def test_another_peer_answers(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            with pytest.raises(RemoteError, match="another peer"):
                await both.client.open(make().peer, both.address, ECHO)
            await both.open()

        self.run(make, body)

    def test_nobody_answers(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            gone = make()
            async with gone.running():
                address = gone.addresses()[0]
            with pytest.raises(TransportError):
                await both.client.open(gone.peer, address, ECHO)

        self.run(make, body)

    def test_a_missing_protocol_is_known_at_once(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            with trio.fail_after(3), pytest.raises(ProtocolMissing):
                await both.open("/suite/other-network/1")
            await both.open()

        self.run(make, body)

    def test_a_failing_handler_ends_its_link_only(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            good, bad = await both.open(), await both.open(FAILING)
            await bad.send(b"x")
            with pytest.raises(TransportError):
                await bad.receive()
            await good.send(b"y")
            assert await good.receive() == b"y"

        self.run(make, body)

    def test_many_links_one_after_another(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            for number in range(100):
                link = await both.open()
                await link.send(b"%d" % number)
                assert await link.receive() == b"%d" % number
                await link.aclose()
                await link.aclose()
            await until(lambda: not both.served)
            await until(lambda: self.streams(both.client) + self.streams(both.server) == 0)

        self.run(make, body)

    def streams(self, transport: Transport) -> int:
        """Open ones, as the transport's inside counts them."""
        raise NotImplementedError

    def test_many_links_at_once(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            async def one(number: int) -> None:
                link = await both.open()
                for _ in range(10):
                    await link.send(bytes([number]) * 20_000)
                    assert await link.receive() == bytes([number]) * 20_000
                await link.aclose()

            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(one, number)

        self.run(make, body)

    def test_both_dial_at_once(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            async def one(here: Transport, there: Transport) -> None:
                link = await here.open(there.peer, there.addresses()[0], ECHO)
                await link.send(b"x")
                assert await link.receive() == b"x"

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(one, both.client, both.server)
                    nursery.start_soon(one, both.server, both.client)

        self.run(make, body)

    def test_a_cancelled_receive_loses_nothing(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            link = await both.open()
            for number in range(50):
                await link.send(bytes([number]) * 40_000)
                answer = None
                while answer is None:
                    with trio.move_on_after(0.0005):
                        answer = await link.receive()
                assert answer == bytes([number]) * 40_000

        self.run(make, body)

    def test_a_cancelled_send_spares_the_other_links(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            stuck = await both.open(SILENT)
            with trio.move_on_after(0.5) as scope:
                while True:
                    await stuck.send(bytes(FRAME_BYTES_MAX))
            assert scope.cancelled_caught
            link = await both.open()
            await link.send(b"z" * FRAME_BYTES_MAX)
            assert await link.receive() == b"z" * FRAME_BYTES_MAX

        self.run(make, body)

    def test_closing_ends_the_others_receive(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            link = await both.open()
            await link.send(b"x")
            await link.receive()
            assert both.served
            await link.aclose()
            await until(lambda: not both.served)
            with pytest.raises(TransportError):
                await link.receive()
            with pytest.raises(TransportError):
                await link.send(b"x")

        self.run(make, body)

    def test_closing_wakes_ones_own_receive(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            link = await both.open()

            async def close_later() -> None:
                await trio.testing.wait_all_tasks_blocked(0.05)
                await link.aclose()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(close_later)
                with pytest.raises(TransportError):
                    await link.receive()

        self.run(make, body)

    def test_disconnect_ends_every_link(self, make: Callable[[], Transport]) -> None:
        async def body(both: Pair) -> None:
            links = [await both.open() for _ in range(3)]
            await links[0].send(b"x")
            await links[0].receive()
            await both.client.disconnect(both.server.peer)
            await both.client.disconnect(PeerId(make().peer))
            for link in links:
                with pytest.raises(TransportError):
                    await link.receive()
            await until(lambda: not both.served)
            again = await both.open()
            await again.send(b"y")
            assert await again.receive() == b"y"

        self.run(make, body)

    def test_leaving_is_quick_and_is_noticed(self, make: Callable[[], Transport]) -> None:
        async def main() -> None:
            client, server = make(), make()
            serve(server)
            async with client.running():
                with trio.fail_after(LIMIT_S):
                    async with server.running():
                        link = await client.open(server.peer, server.addresses()[0], ECHO)
                        started_s = trio.current_time()
                    assert trio.current_time() - started_s < 2
                    assert server.addresses() == ()
                    with pytest.raises(TransportError):
                        await link.receive()

        trio.run(main)

    def test_an_error_in_the_block_stays_itself(self, make: Callable[[], Transport]) -> None:
        async def main() -> None:
            async with make().running():
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            trio.run(main)

    def test_a_peer_that_is_not_admitted(self, gated: Callable[[Callable[[PeerId], bool]], Transport]) -> None:
        async def main() -> None:
            friends: set[PeerId] = set()
            server, client = gated(friends.__contains__), gated(lambda peer: True)
            serve(server)
            serve(client)
            async with server.running(), client.running():
                with trio.fail_after(LIMIT_S):
                    for here, there in ((client, server), (server, client)):
                        with pytest.raises(TransportError):
                            link = await here.open(there.peer, there.addresses()[0], ECHO)
                            await link.receive()
                    friends.add(client.peer)
                    link = await client.open(server.peer, server.addresses()[0], ECHO)
                    await link.send(b"x")
                    assert await link.receive() == b"x"

        trio.run(main)

    @pytest.fixture
    def gated(self) -> Callable[[Callable[[PeerId], bool]], Transport]:
        raise NotImplementedError
