"""Reachability on loopback: whom it asks, what it tells others, what it costs where nobody is asked."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgpack
import pytest
import trio

from p2pfed.errors import TransportError
from p2pfed.net import dialback, reach
from p2pfed.net.announce import PROTOCOL, Announcer
from p2pfed.net.dialback import Answer
from p2pfed.net.identity import new_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.portmap import Mapping
from p2pfed.net.reach import Observer, Reachability, whom_to_ask
from p2pfed.net.verdict import Reach, Verdict
from p2pfed.ports import PeerId
from tests.transport_suite import ECHO, serve, until

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)
LIMIT_S = 20.0


class Node:
    def __init__(self, serve_relay: bool = False) -> None:
        self.transport = Libp2pTransport(new_identity(), LOOPBACK)
        serve(self.transport)
        self.known: list[tuple[PeerId, str]] = []
        self.observers: list[Observer] = []
        self.said: list[Reach] = []
        self.reachability = Reachability(
            self.transport,
            observers=lambda: self.observers,
            relays=lambda: self.known,
            told=lambda peer: (),
            wall_clock=lambda: 1_000_000.0,
            rng=random.Random(1),
            on_change=self.said.append,
            serve_relay=serve_relay,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.transport.running(), trio.open_nursery() as nursery:
            nursery.start_soon(self.reachability.run)
            yield
            nursery.cancel_scope.cancel()

    def knows(self, other: "Node") -> None:
        self.known.append((other.transport.peer, other.transport.addresses()[0]))
        self.observers.append(Observer(*self.known[-1]))
        self.reachability.look()

    @property
    def verdict(self) -> Verdict:
        return self.reachability.reach.verdict


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "SETTLE_S", 0.05)
    monkeypatch.setattr(reach, "ROUND_GAP_S", 0.1)


def play(story: object) -> None:
    async def limited() -> None:
        with trio.fail_after(LIMIT_S):
            await story()  # type: ignore[operator]

    trio.run(limited)


def test_without_anybody_to_ask_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        raise AssertionError("the router was asked")

    monkeypatch.setattr(reach, "ask_mapping", never)
    monkeypatch.setattr(reach, "RECHECK_POOR_S", 0.05)

    async def story() -> None:
        node = Node()
        async with node.running():
            await trio.sleep(0.5)
            assert node.transport.connections() == 0
            assert not node.said
            assert node.reachability.reach.sentence == "not known: nobody outside was asked"
            assert node.reachability.addresses() == tuple(node.transport.addresses())

    play(story)


def test_a_device_that_others_dial_is_direct_and_needs_no_relay() -> None:
    async def story() -> None:
        boot, node = Node(serve_relay=True), Node()
        async with boot.running(), node.running():
            node.knows(boot)
            await until(lambda: node.verdict is Verdict.DIRECT)
            port = node.transport.paths.sources[0][1]
            assert node.reachability.reach.sentence == f"direct: others dial this device at 127.0.0.1 port {port}"
            assert node.reachability.addresses() == tuple(node.transport.addresses())
            assert boot.reachability.relay is not None and boot.reachability.relay.reservations == 0
            assert [said.verdict for said in node.said] == [Verdict.DIRECT]

    play(story)


def test_one_that_is_gone_does_not_hold_up_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "OTHERS_S", 0.2)

    async def story() -> None:
        boot, node = Node(), Node()
        mute = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        async with boot.running(), node.running():
            where = f"/ip4/127.0.0.1/tcp/{mute.socket.getsockname()[1]}"
            node.observers.append(Observer(new_identity().peer_id, where))
            node.knows(boot)
            with trio.fail_after(4):
                await until(lambda: node.verdict is Verdict.DIRECT)
        await mute.aclose()

    play(story)


def test_other_addresses_of_this_device_are_a_reason_to_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "WATCH_S", 0.05)
    rounds: list[tuple[str, ...]] = []

    async def ask(transport: Libp2pTransport, peer: PeerId, address: str, claims: tuple[str, ...]) -> Answer:
        rounds.append(claims)
        return await dialback.ask_dialback(transport, peer, address, claims)

    monkeypatch.setattr(reach, "ask_dialback", ask)

    async def story() -> None:
        boot, node = Node(), Node()
        async with boot.running(), node.running():
            node.knows(boot)
            await until(lambda: node.verdict is Verdict.DIRECT)
            await trio.sleep(0.3)
            assert len(rounds) == 1
            moved = ("/ip4/127.0.0.1/tcp/1", *node.transport.addresses())
            node.transport.addresses = lambda: moved  # type: ignore[method-assign]
            await until(lambda: len(rounds) > 1 and "/ip4/127.0.0.1/tcp/1" in rounds[-1])

    play(story)


def closed(monkeypatch: pytest.MonkeyPatch, open_to: set[str]) -> None:
    """Dial-backs of this module's answerers fail, but to `open_to`: no firewall on loopback."""

    async def ask(transport: Libp2pTransport, peer: PeerId, address: str, claims: tuple[str, ...]) -> Answer:
        answer = await dialback.ask_dialback(transport, peer, address, claims)
        outer = answer.observed.__class__("ip4", "11.0.0.7", answer.observed.port)
        reached = frozenset(open_to.intersection(claims))
        failed = tuple((claim, "no answer") for claim in claims if claim not in reached and "11.0.0.7" in claim)
        return Answer(outer, reached, failed, answer.from_listening_port)

    monkeypatch.setattr(reach, "ask_dialback", ask)


def test_a_device_that_nobody_can_dial_reserves_and_tells_the_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    closed(monkeypatch, set())

    async def no_router(port: int) -> None:
        return None

    monkeypatch.setattr(reach, "ask_mapping", no_router)

    async def story() -> None:
        boot, node, other = Node(serve_relay=True), Node(), Node()
        async with boot.running(), node.running(), other.running():
            node.knows(boot)
            await until(lambda: node.verdict is Verdict.RELAY_ONLY)
            circuit = f"{boot.transport.addresses()[0]}/p2p/{boot.transport.peer}/p2p-circuit"
            assert node.reachability.addresses() == (*node.transport.addresses(), circuit)
            assert "behind a NAT at 11.0.0.7: relayed through 127.0.0.1; to be direct" in (
                node.reachability.reach.sentence
            )
            link = await other.transport.open(node.transport.peer, circuit, ECHO)
            await link.send(b"x")
            assert await link.receive() == b"x"

    play(story)


def test_a_device_without_relay_is_unreachable_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    closed(monkeypatch, set())

    async def slow_router(port: int) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(reach, "ask_mapping", slow_router)

    async def story() -> None:
        boot, node = Node(), Node()
        async with boot.running(), node.running():
            node.knows(boot)
            await until(lambda: node.verdict is Verdict.UNREACHABLE)
            assert "no relay stands in" in node.reachability.reach.sentence

    play(story)


def test_a_mapped_port_counts_once_somebody_came_in_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is given back at the end."""
    dropped: list[Mapping] = []
    outer = "/ip4/11.0.0.7/tcp/5001"

    async def router(port: int) -> Mapping:
        return Mapping(dialback.parse_address(outer), port, "UPnP")

    async def drop(mapping: Mapping) -> None:
        dropped.append(mapping)

    monkeypatch.setattr(reach, "ask_mapping", router)
    monkeypatch.setattr(reach, "drop_mapping", drop)

    async def story(open_to: set[str], verdict: Verdict) -> None:
        closed(monkeypatch, open_to)
        boot, node = Node(serve_relay=True), Node()
        async with boot.running(), node.running():
            node.knows(boot)
            await until(lambda: node.reachability._mapping is not None and node.verdict is verdict)
            assert (outer in node.reachability.addresses()) == bool(open_to)
            if open_to:
                assert "UPnP asked the router" in node.reachability.reach.sentence
        assert len(dropped) == 1
        dropped.clear()

    async def both() -> None:
        await story({outer}, Verdict.MAPPED)
        monkeypatch.undo()
        monkeypatch.setattr(reach, "ask_mapping", router)
        monkeypatch.setattr(reach, "drop_mapping", drop)
        monkeypatch.setattr(reach, "SETTLE_S", 0.05)
        await story(set(), Verdict.RELAY_ONLY)

    play(both)


def test_bootstrap_peers_are_asked_first_and_neighbours_across_the_internet() -> None:
    boot, second, near, far, relayed = (new_identity().peer_id for _ in range(5))
    circuit = f"/ip4/11.0.0.1/tcp/1/p2p/{boot}/p2p-circuit"
    linked = [
        (near, "/ip4/192.168.1.7/tcp/1"),
        (far, "/ip4/11.0.0.9/tcp/1"),
        (relayed, circuit),
        (second, "/ip4/11.0.0.2/tcp/9"),
    ]
    bootstrap = [(boot, "/dns4/boot.example.org/tcp/1"), (second, "/ip4/11.0.0.2/tcp/1")]
    assert whom_to_ask(bootstrap, linked) == [
        Observer(second, "/ip4/11.0.0.2/tcp/9"),
        Observer(boot, "/dns4/boot.example.org/tcp/1"),
        Observer(far, "/ip4/11.0.0.9/tcp/1"),
    ]
    assert whom_to_ask([], linked[:1]) == []


class Telling:
    def __init__(self) -> None:
        self.transport = Libp2pTransport(new_identity(), LOOPBACK)
        self.heard: list[tuple[PeerId, tuple[str, ...]]] = []
        self.announcer = Announcer(self.transport, lambda peer, addresses: self.heard.append((peer, addresses)))
        serve(self.transport)


def test_linked_peers_are_told_of_new_addresses() -> None:
    async def story() -> None:
        one, two = Telling(), Telling()
        async with one.transport.running(), two.transport.running():
            way = two.transport.addresses()[0]
            addresses = ("/ip4/11.0.0.7/tcp/1", f"/ip4/11.0.0.1/tcp/1/p2p/{two.transport.peer}/p2p-circuit")
            assert not await one.announcer.tell(new_identity().peer_id, "/ip4/127.0.0.1/tcp/1", addresses)
            assert await one.announcer.tell(two.transport.peer, way, addresses)
            await until(lambda: two.heard == [(one.transport.peer, addresses)])

    play(story)


def test_who_tells_never_says_more_than_the_other_takes() -> None:
    """The last word counts, and a refusal is not noticed."""

    async def story() -> None:
        one, two = Telling(), Telling()
        async with one.transport.running(), two.transport.running():
            way = two.transport.addresses()[0]
            told = [
                addresses
                for number in range(1, 12)
                if await one.announcer.tell(two.transport.peer, way, addresses := (f"/ip4/11.0.0.7/tcp/{number}",))
            ]
            assert 1 < len(told) < 11
            await until(lambda: len(two.heard) == len(told))
            assert [addresses for _, addresses in two.heard] == told

    play(story)


@pytest.mark.parametrize(
    "message",
    [
        b"\xc1",
        msgpack.packb(7),
        msgpack.packb([7]),
        msgpack.packb(["nonsense"]),
        msgpack.packb(["/x"] * 17),
        bytes(9000),
    ],
    ids=repr,
)
def test_garbage_of_addresses_ends_its_stream_and_nothing_else(message: bytes) -> None:
    async def story() -> None:
        one, two = Telling(), Telling()
        async with one.transport.running(), two.transport.running():
            raw = await one.transport.open_raw(two.transport.peer, two.transport.addresses()[0], PROTOCOL)
            with pytest.raises(TransportError):
                await raw.write_message(message)
                await raw.read_message()
            assert not two.heard
            link = await one.transport.open(two.transport.peer, two.transport.addresses()[0], ECHO)
            await link.send(b"alive")
            assert await link.receive() == b"alive"

    play(story)
