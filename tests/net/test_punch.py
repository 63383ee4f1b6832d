"""Leaving a relay, on loopback: by what the other says of itself, by two dials at one moment; strangers; mid-swap."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy
import pytest
import trio

from p2pfed.errors import RemoteError, TransportError
from p2pfed.net import punch
from p2pfed.net.address import is_circuit
from p2pfed.net.punch import PROTOCOL, HolePunch, Multiaddr, Puncher
from p2pfed.net.raw_stream import RawStream
from p2pfed.ports import PeerId
from tests.fakes import VectorLearner
from tests.net.test_driver import FOUR_PARTS
from tests.net.test_driver import Peer as DriverPeer
from tests.net.test_relay import Peer, Relay
from tests.transport_suite import ECHO, until

LIMIT_S = 20.0


class Side:
    """A peer of tests.net.test_relay with a puncher."""

    def __init__(self, relay: Relay, wants: bool) -> None:
        self.peer = Peer(relay.known, wants)
        self.seen: list[str] = []
        self.told: list[str] = []
        self.direct: list[tuple[PeerId, str]] = []
        self.may_punch = True
        self.puncher = Puncher(
            self.peer.transport,
            seen=lambda: self.seen,
            told=lambda peer: self.told,
            on_direct=lambda peer, address: self.direct.append((peer, address)),
            may_punch=lambda: self.may_punch,
        )
        self.transport = self.peer.transport

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.peer.running(), trio.open_nursery() as nursery:
            nursery.start_soon(self.puncher.run)
            yield
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Side, Side]]:
    """The asked side (A, who dialled through the relay) and the asking one (B, who was dialled)."""
    relay = Relay()
    with trio.fail_after(LIMIT_S):
        async with relay.running():
            a, b = Side(relay, wants=False), Side(relay, wants=True)
            async with a.running(), b.running():
                link = await a.transport.open(b.transport.peer, await b.peer.reserved(), ECHO)
                assert is_circuit(link.address)
                yield a, b


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punch, "GRACE_S", 0.2)
    monkeypatch.setattr(punch, "ROUND_S", 0.5)
    monkeypatch.setattr(punch, "TRY_PAUSES_S", (0.0, 0.3))


async def assert_direct(a: Side, b: Side) -> None:
    await until(lambda: b.transport.paths.standing(a.transport.peer, relayed=True) is None)
    for one, two in ((a, b), (b, a)):
        address = one.transport.paths.direct_address(two.transport.peer)
        assert address is not None
        link = await one.transport.open(two.transport.peer, address, ECHO)
        assert not is_circuit(link.address)
        await link.send(b"direct")
        assert await link.receive() == b"direct"


def test_by_what_the_other_says_of_itself() -> None:
    async def main() -> None:
        async with relayed() as (a, b):
            b.told = list(a.transport.addresses())
            b.puncher.start(a.transport.peer)
            await until(lambda: bool(b.direct))
            await assert_direct(a, b)

    trio.run(main)


def test_by_dials_at_one_moment() -> None:
    """Without a NAT the first SYN reaches a listener; whoever accepts, the two agree on who speaks first."""

    async def main() -> None:
        async with relayed() as (a, b):
            a.seen, b.seen = list(a.transport.addresses()), list(b.transport.addresses())
            b.puncher.start(a.transport.peer)
            await until(lambda: bool(a.direct) and bool(b.direct))
            await assert_direct(a, b)

    trio.run(main)


def test_the_asked_side_accepts_and_speaks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only B dials: A's listener accepts, and must speak first though it was dialled."""

    async def main() -> None:
        async with relayed() as (a, b):
            a.seen, b.seen = list(a.transport.addresses()), list(b.transport.addresses())

            async def never(*_: object) -> None:
                await trio.sleep_forever()

            monkeypatch.setattr(a.puncher, "_dial", never)
            b.puncher.start(a.transport.peer)
            await until(lambda: bool(a.direct) and bool(b.direct))
            await assert_direct(a, b)

    trio.run(main)


@pytest.mark.parametrize("asking_dials", [True, False])
def test_an_ordinary_dial_on_its_way_takes_the_part_agreed_on(
    monkeypatch: pytest.MonkeyPatch, asking_dials: bool
) -> None:
    """It left before, from the same port to the same address: the hole opens on its socket, not on the puncher's."""

    async def main() -> None:
        async with relayed() as (a, b):
            one, two = (b, a) if asking_dials else (a, b)
            listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
            meeting = listener.socket.getsockname()[1]
            there = f"/ip4/127.0.0.1/tcp/{meeting}"
            with one.transport.paths.punching(
                two.transport.peer, [("127.0.0.1", meeting)], speaks_first=not asking_dials
            ):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(one.transport.connect, two.transport.peer, there)
                    tcp = await listener.accept()
                    first = asking_dials
                    await two.transport.paths.upgrade(tcp, one.transport.peer, dialler=first, what="punched")
            assert one.transport.paths.direct_address(two.transport.peer) == there

    trio.run(main)


def test_both_ask_at_one_moment_and_one_question_stands() -> None:
    async def main() -> None:
        async with relayed() as (a, b):
            a.seen, b.seen = list(a.transport.addresses()), list(b.transport.addresses())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.puncher._try, b.transport.peer)
                nursery.start_soon(b.puncher._try, a.transport.peer)
            assert b.transport.paths.direct_address(a.transport.peer) is not None

    trio.run(main)


def test_nothing_works_and_all_stays_as_it_was() -> None:
    async def main() -> None:
        async with relayed() as (a, b):
            a.seen = b.seen = ["/ip4/127.0.0.1/tcp/1"]
            b.told = ["/ip4/127.0.0.1/tcp/1"]
            b.puncher.start(a.transport.peer)
            assert b.puncher._trying
            await until(lambda: not b.puncher._trying)
            assert not a.direct and not b.direct
            link = await a.transport.open(b.transport.peer, b.peer.client.addresses()[0], ECHO)
            await link.send(b"still")
            assert await link.receive() == b"still"

    trio.run(main)


def test_news_of_where_this_side_is_seen_is_worth_a_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punch, "TRY_PAUSES_S", (0.0, 600.0))

    async def main() -> None:
        async with relayed() as (a, b):
            b.puncher.start(a.transport.peer)
            await trio.sleep(0.3)
            a.seen, b.seen = list(a.transport.addresses()), list(b.transport.addresses())
            assert not b.direct
            b.puncher.look()
            await until(lambda: bool(b.direct))

    trio.run(main)


def test_news_of_the_other_side_is_worth_a_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punch, "TRY_PAUSES_S", (0.0, 600.0))

    async def main() -> None:
        async with relayed() as (a, b):
            b.puncher.start(a.transport.peer)
            await trio.sleep(0.3)
            b.told = list(a.transport.addresses())
            b.puncher.look(b.transport.peer)  # of somebody else
            await trio.sleep(1.0)
            assert not b.direct
            b.puncher.look(a.transport.peer)
            await until(lambda: bool(b.direct))

    trio.run(main)


def test_behind_a_nat_that_gives_each_peer_another_port_no_hole_is_punched() -> None:
    async def main() -> None:
        async with relayed() as (a, b):
            a.seen, b.seen = list(a.transport.addresses()), list(b.transport.addresses())
            b.may_punch = False
            b.puncher.start(a.transport.peer)
            await until(lambda: not b.puncher._trying)
            assert not b.direct

    trio.run(main)


def test_private_addresses_are_dialled_only_by_who_is_seen_at_one() -> None:
    """A peer's word must not turn this device against its own network."""

    async def main() -> None:
        async with relayed() as (a, b):
            victim = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
            b.seen = ["/ip4/11.0.0.7/tcp/4001"]
            a.seen = [f"/ip4/127.0.0.1/tcp/{victim.socket.getsockname()[1]}"]
            b.puncher.start(a.transport.peer)
            with trio.move_on_after(1) as scope:
                await victim.accept()
            assert scope.cancelled_caught

    trio.run(main)


Garbage = Callable[[RawStream], Any]


async def raw_bytes(raw: RawStream) -> None:
    await raw.write(b"\x05hello")


async def too_long(raw: RawStream) -> None:
    await raw.write(b"\xff\x7f" + bytes(100))


async def sync_first(raw: RawStream) -> None:
    await raw.write_message(HolePunch(type=HolePunch.SYNC).SerializeToString())


async def no_addresses(raw: RawStream) -> None:
    await raw.write_message(HolePunch(type=HolePunch.CONNECT, ObsAddrs=[b"\xff\xff", b""]).SerializeToString())


async def many_addresses(raw: RawStream) -> None:
    packed = [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}").to_bytes() for port in range(1, 400)]
    await raw.write_message(HolePunch(type=HolePunch.CONNECT, ObsAddrs=packed).SerializeToString())


@pytest.mark.parametrize("garbage", [raw_bytes, too_long, sync_first, no_addresses, many_addresses])
def test_garbage_ends_its_stream_and_nothing_else(garbage: Garbage) -> None:
    async def main() -> None:
        async with relayed() as (a, b):
            raw = await b.transport.open_raw_standing(a.transport.peer, PROTOCOL, relayed=True)
            await garbage(raw)
            with pytest.raises((TransportError, RemoteError)), trio.fail_after(5):
                while True:
                    await raw.read_message()
                    await raw.write_message(b"\x08\x07")
            link = await a.transport.open(b.transport.peer, b.peer.client.addresses()[0], ECHO)
            await link.send(b"alive")
            assert await link.receive() == b"alive"

    trio.run(main)


def test_a_direct_connection_has_no_relay_to_leave() -> None:
    async def main() -> None:
        async with relayed() as (a, b):
            raw = await b.transport.open_raw(a.transport.peer, a.transport.addresses()[0], PROTOCOL)
            with pytest.raises(TransportError):
                await raw.write_message(HolePunch(type=HolePunch.CONNECT).SerializeToString())
                await raw.read_message()

    trio.run(main)


def test_a_swap_under_way_goes_on_over_the_direct_link() -> None:
    """Two nodes linked through a relay; in the middle of a swap the link moves, and both end with the mean."""

    async def main() -> None:
        relay = Relay()
        async with relay.running():
            far, near = Peer(relay.known), Peer([], wants=False)
            one = DriverPeer(
                far.transport, VectorLearner(target=0.0, size=FOUR_PARTS, rate=0.0, start=0.0), steps_max=4
            )
            two = DriverPeer(
                near.transport, VectorLearner(target=0.0, size=FOUR_PARTS, rate=0.0, start=2.0), steps_max=4
            )
            async with trio.open_nursery() as nursery:
                await nursery.start(one.run, [])
                nursery.start_soon(far.client.run)
                circuit = await far.reserved()
                near.transport.addresses = lambda: ["/ip4/11.0.0.9/tcp/1"]  # type: ignore[method-assign]
                known = DriverPeer.__new__(DriverPeer)
                known.transport = _At(far.transport.peer, circuit)  # type: ignore[assignment]
                await nursery.start(two.run, [known])
                await until(lambda: relay.server.bytes_relayed > 2 * FOUR_PARTS)
                assert two.state.exchange.busy and not two.state.statistics.finished
                session = next(iter(two.driver.sessions.values()))
                assert is_circuit(session.link.address)
                direct = far.transport.addresses()[0]
                await near.transport.connect(far.transport.peer, direct)
                two.driver.leave_relay(far.transport.peer, direct)
                await until(
                    lambda: (
                        [s.link.address for s in two.driver.sessions.values()] == [direct]
                        and one.state.statistics.finished > 0
                        and two.state.statistics.finished > 0
                    )
                )
                await near.transport.paths.close_relayed(far.transport.peer)
                await until(lambda: not one.state.exchange.busy and not two.state.exchange.busy)
                assert one.learner is not None and two.learner is not None
                numpy.testing.assert_array_equal(one.learner.vector, two.learner.vector)
                numpy.testing.assert_allclose(one.learner.vector, 1.0)
                assert one.state.statistics.half_done == two.state.statistics.half_done == 0
                assert one.state.statistics.aborted == two.state.statistics.aborted == 0
                nursery.cancel_scope.cancel()

    async def limited() -> None:
        with trio.fail_after(LIMIT_S):
            await main()

    trio.run(limited)


class _At:
    """What `DriverPeer.run` asks of a known peer's transport: where it is."""

    def __init__(self, peer: PeerId, address: str) -> None:
        self.peer = peer
        self._address = address

    def addresses(self) -> list[str]:
        return [self._address]


def test_news_take_no_try_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides learn much in the first seconds, all of it too early; the tries that were meant for later remain."""
    monkeypatch.setattr(punch, "TRY_PAUSES_S", (0.0, 2.0))
    monkeypatch.setattr(punch, "SETTLE_S", 0.01)

    async def main() -> None:
        async with relayed() as (a, b):
            b.puncher.start(a.transport.peer)
            for _ in range(2 * punch.NEWS_MAX):
                await trio.sleep(0.05)
                b.puncher.look()
            b.told = list(a.transport.addresses())
            await until(lambda: bool(b.direct))

    trio.run(main)
