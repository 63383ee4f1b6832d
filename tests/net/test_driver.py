"""The driver on the in-memory and on the libp2p transport: the same stories must hold on both."""

import dataclasses
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy
import pytest
import trio

from p2pfed.config import GossipConfig, ModelConfig, NetworkConfig
from p2pfed.core.events import FoundBy, PeerFound, Report, Started, StopAsked
from p2pfed.core.membership import MembershipSettings
from p2pfed.core.messages import PROTOCOL_VERSION, Hello, Role
from p2pfed.core.peer import PeerSettings, PeerState
from p2pfed.mixer import AdapterMixer
from p2pfed.net.driver import Driver
from p2pfed.net.identity import new_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.memory import MemoryNetwork
from p2pfed.ports import Encoding, Transport
from tests.fakes import LyingMixer, VectorLearner

NETWORK = NetworkConfig("test", ModelConfig("vector"), gossip=GossipConfig(encoding="float32"))
OTHER = dataclasses.replace(NETWORK, model=ModelConfig("another base"))
FOUR_PARTS = 200_000
"""float32 values that fill three parts and a bit."""
STORY_S = 20.0
"""No story takes longer on a busy machine; each ends as soon as its condition holds."""

Make = Callable[[], Transport]


@pytest.fixture(params=["memory", "libp2p"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "memory":
        network = MemoryNetwork(seed=1)
        return network.transport
    return lambda: Libp2pTransport(new_identity(), ("/ip4/127.0.0.1/tcp/0",))


@dataclass
class Peer:
    """One peer of a story: everything a runtime has, less disk and control socket."""

    transport: Transport
    learner: VectorLearner | None
    role: Role = Role.NODE
    network: NetworkConfig = NETWORK
    steps_max: int = 0
    encoding: Encoding = Encoding.FLOAT32
    around: type[AdapterMixer] = AdapterMixer
    reports: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        own = random.Random(self.transport.peer)
        mixer = self.around(self.learner, self.network.gossip) if self.learner is not None else None
        self.hello = Hello(
            version=PROTOCOL_VERSION,
            network_id=self.network.network_id,
            network=self.network.fields(),
            fingerprint=tuple(sorted(mixer.fingerprint().items())) if mixer is not None else (),
            role=self.role,
            encoding=self.encoding,
            instance=own.getrandbits(53),
            name="",
            addresses=(),
            time_s=0.0,
        )
        target = 8 if self.role is Role.NODE else 0
        settings = PeerSettings(
            steps_max=self.steps_max, swap_interval_s=0.1, membership=MembershipSettings(target, 32)
        )
        self.state = PeerState(self.hello, self.transport.peer, settings, own)
        self.driver = Driver(
            self.transport,
            self.network.network_id,
            on_report=self.reports.append,
            on_remember=lambda _: None,
            wall_clock=lambda: 0.0,
        )
        if mixer is not None:
            self.driver.attach(mixer, self.encoding, None, 60.0)

    async def run(self, knows: list["Peer"], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with self.transport.running():
            task_status.started()
            found = [
                PeerFound(peer.transport.peer, tuple(peer.transport.addresses()), FoundBy.BOOTSTRAP) for peer in knows
            ]
            await self.driver.run(self.state, self.hello, [*found, Started()])

    def kinds(self) -> list[str]:
        return [report.kind for report in self.reports]


def play(story: Callable[[trio.Nursery], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(STORY_S):
            async with trio.open_nursery() as nursery:
                await story(nursery)
                nursery.cancel_scope.cancel()

    trio.run(main)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # several machines run in this process, no one event tells
        await trio.sleep(0.01)


def test_two_nodes_meet_swap_and_agree(make: Make) -> None:
    one = Peer(make(), VectorLearner(target=0.0, size=FOUR_PARTS, rate=0.0, start=0.0), steps_max=4)
    two = Peer(make(), VectorLearner(target=0.0, size=FOUR_PARTS, rate=0.0, start=2.0), steps_max=4)

    async def story(nursery: trio.Nursery) -> None:
        await nursery.start(one.run, [])
        await nursery.start(two.run, [one])
        assert one.learner is not None and two.learner is not None
        await until(lambda: one.state.statistics.finished > 0 and two.state.statistics.finished > 0)
        await until(lambda: not one.state.exchange.busy and not two.state.exchange.busy)
        numpy.testing.assert_array_equal(one.learner.vector, two.learner.vector)
        numpy.testing.assert_allclose(one.learner.vector, 1.0)
        assert two.state.statistics.half_done == one.state.statistics.half_done == 0

    play(story)


def test_a_link_uses_the_coarser_form_of_its_two_ends(make: Make) -> None:
    """Both publish in that form besides their own, and mix what was sent: the sum of the two stays."""
    fine = Peer(make(), VectorLearner(target=0.0, rate=0.0, start=0.3), steps_max=4)
    coarse = Peer(make(), VectorLearner(target=0.0, rate=0.0, start=2.0), steps_max=4, encoding=Encoding.INT4)

    async def story(nursery: trio.Nursery) -> None:
        await nursery.start(fine.run, [])
        await nursery.start(coarse.run, [fine])
        assert fine.learner is not None and coarse.learner is not None
        await until(lambda: fine.state.statistics.finished > 2 and coarse.state.statistics.finished > 2)
        await until(lambda: not fine.state.exchange.busy and not coarse.state.exchange.busy)
        for each, other in ((fine, coarse), (coarse, fine)):
            assert each.state.link_encoding(other.transport.peer) is Encoding.INT4
        numpy.testing.assert_allclose(fine.learner.vector + coarse.learner.vector, 2.3, rtol=1e-6)
        numpy.testing.assert_allclose(fine.learner.vector, coarse.learner.vector, atol=0.1)

    play(story)


def test_nodes_that_know_only_a_bootstrap_peer_find_each_other_and_outlive_it(make: Make) -> None:
    bootstrap = Peer(make(), None, Role.BOOTSTRAP)
    nodes = [Peer(make(), VectorLearner(target=float(place))) for place in range(4)]

    async def story(nursery: trio.Nursery) -> None:
        await nursery.start(bootstrap.run, [])
        for node in nodes:
            await nursery.start(node.run, [bootstrap])
        await until(lambda: all(len(node.state.membership.neighbours()) == 3 for node in nodes))
        await bootstrap.driver.tell(StopAsked("its host goes home"))
        finished = [node.state.statistics.finished for node in nodes]
        await until(
            lambda: all(
                node.state.statistics.finished > before + 2 for node, before in zip(nodes, finished, strict=True)
            )
        )
        assert "neighbour-left" in nodes[0].kinds()

    play(story)


def test_a_node_without_neighbours_trains_alone_and_joins_when_one_appears(make: Make) -> None:
    alone = Peer(make(), VectorLearner(target=1.0))
    late = Peer(make(), VectorLearner(target=3.0))

    async def story(nursery: trio.Nursery) -> None:
        await nursery.start(alone.run, [])
        await until(lambda: alone.state.steps >= 40)
        assert alone.state.statistics.begun == 0
        await nursery.start(late.run, [alone])
        await until(lambda: alone.state.statistics.finished > 0)

    play(story)


def test_a_peer_of_another_network_is_refused_with_the_field_that_differs_once(make: Make) -> None:
    one = Peer(make(), VectorLearner(target=1.0))
    stranger = Peer(make(), VectorLearner(target=1.0), network=OTHER)

    async def story(nursery: trio.Nursery) -> None:
        await nursery.start(one.run, [])
        await nursery.start(stranger.run, [one])
        await until(lambda: "peer-refused" in stranger.kinds() and "peer-refused" in one.kinds())
        for peer, here in ((one, "vector"), (stranger, "another base")):
            told = [report.fields["difference"] for report in peer.reports if report.kind == "peer-refused"]
            assert len(told) == 1
            assert str(told[0]).startswith("model.base is ") and str(told[0]).endswith(f'"{here}" here')
        assert one.state.statistics.finished == 0

    play(story)


def test_a_peer_that_publishes_nan_is_refused_and_harms_nobody(make: Make) -> None:
    honest = Peer(make(), VectorLearner(target=1.0, rate=0.0), steps_max=4)
    liar = Peer(make(), VectorLearner(target=1.0), steps_max=4, around=LyingMixer)

    async def story(nursery: trio.Nursery) -> None:
        await nursery.start(honest.run, [])
        await nursery.start(liar.run, [honest])
        await until(lambda: "peer-fault" in honest.kinds())
        assert "not finite" in str(next(r.fields["reason"] for r in honest.reports if r.kind == "peer-fault"))
        await until(lambda: not honest.state.membership.neighbours())
        assert honest.learner is not None
        assert numpy.isfinite(honest.learner.vector).all()
        assert honest.state.statistics.finished == 0

    play(story)


def test_stop_says_goodbye_and_ends_soon(make: Make) -> None:
    one = Peer(make(), VectorLearner(target=1.0))
    two = Peer(make(), VectorLearner(target=2.0))

    async def story(nursery: trio.Nursery) -> None:
        await nursery.start(one.run, [])
        ended = trio.Event()

        async def run_two(*, task_status: trio.TaskStatus[None]) -> None:
            await two.run([one], task_status=task_status)
            ended.set()

        await nursery.start(run_two)
        await until(lambda: one.state.statistics.finished > 0)
        await two.driver.tell(StopAsked("asked"))
        with trio.fail_after(5.0):
            await ended.wait()
        await until(lambda: "neighbour-left" in one.kinds())

    play(story)
