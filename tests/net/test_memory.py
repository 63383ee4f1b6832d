"""The in-memory transport: the suite, and the trouble only it can make."""

from collections.abc import Callable

import pytest
import trio
import trio.testing

from p2pfed.errors import TransportError
from p2pfed.net.memory import MemoryNetwork, MemoryTransport
from p2pfed.ports import PeerId, Transport
from tests.transport_suite import ECHO, Pair, TransportSuite, pair, serve, until

SEED = 20


class TestMemoryTransport(TransportSuite):
    @pytest.fixture
    def make(self) -> Callable[[], Transport]:
        return MemoryNetwork(SEED).transport

    @pytest.fixture
    def gated(self) -> Callable[[Callable[[PeerId], bool]], Transport]:
        network = MemoryNetwork(SEED)
        return lambda allowed: network.transport(allowed=allowed)

    def streams(self, transport: Transport) -> int:
        assert isinstance(transport, MemoryTransport)
        return len(transport._links)


def test_a_cut_breaks_links_and_a_heal_lets_dial_again() -> None:
    async def main() -> None:
        network = MemoryNetwork(SEED)
        async with pair(network.transport) as both:
            link = await both.open()
            network.cut(both.client.peer, both.server.peer)
            with pytest.raises(TransportError, match="cut"):
                await link.receive()
            with pytest.raises(TransportError, match="no way"):
                await both.open()
            await until(lambda: not both.served)
            network.heal(both.server.peer, both.client.peer)
            await both.open()

    trio.run(main)


def test_a_crash_is_noticed_and_ends_the_crashed() -> None:
    async def main() -> None:
        network = MemoryNetwork(SEED)
        client, server = network.transport(), network.transport()
        serve(server)
        survived = False

        async def serve_until_the_crash() -> None:
            nonlocal survived
            async with server.running():
                await trio.sleep_forever()
                survived = True

        async with client.running(), trio.open_nursery() as nursery:
            nursery.start_soon(serve_until_the_crash)
            await trio.testing.wait_all_tasks_blocked()
            link = await client.open(server.peer, "/memory/1", ECHO)
            network.crash(server)
            with pytest.raises(TransportError, match="crashed"):
                await link.receive()
            with pytest.raises(TransportError, match="nobody"):
                await client.open(server.peer, "/memory/1", ECHO)
        assert not survived

    trio.run(main)


def lossy_run(seed: int) -> list[int]:
    """Echoes on each of 20 links before it broke."""
    counts = []

    async def body(both: Pair) -> None:
        for _ in range(20):
            counts.append(0)
            try:
                link = await both.open()
                while True:
                    await link.send(b"x")
                    await link.receive()
                    counts[-1] += 1
            except TransportError:
                pass

    async def main() -> None:
        async with pair(MemoryNetwork(seed, loss=0.1).transport) as both:
            await body(both)

    trio.run(main)
    return counts


def test_loss_breaks_links_and_is_seeded() -> None:
    first = lossy_run(SEED)
    assert sum(first) > 20
    assert first == lossy_run(SEED) != lossy_run(SEED + 1)


def test_delay_is_virtual_time() -> None:
    async def main() -> None:
        async with pair(MemoryNetwork(SEED, delay_s=0.25).transport) as both:
            link = await both.open()
            started_s = trio.current_time()
            await link.send(b"x")
            await link.receive()
            assert trio.current_time() - started_s == pytest.approx(0.5)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
