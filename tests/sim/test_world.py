"""Shapes, churn, NATs, speeds, attackers, quadratics, frames: each does what it says."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from p2pfed.config import GossipConfig
from p2pfed.core.messages import Part, PeerRecord, PeersTold, Ping
from p2pfed.errors import ConfigError
from p2pfed.ports import Encoding, PeerId
from p2pfed.sim.attackers import Attacker
from p2pfed.sim.device import devices
from p2pfed.sim.frames import Frames
from p2pfed.sim.learner import ToyMixer
from p2pfed.sim.options import NodeOptions
from p2pfed.sim.population import Population
from p2pfed.sim.quadratic import QuadraticLearner, quadratic_mixer
from p2pfed.sim.real_population import RealPopulation
from p2pfed.sim.replay import NODES_SHOWN_MAX, SWAPS_SHOWN_MAX, replay_of
from p2pfed.sim.report import Swaps
from p2pfed.sim.scenario import parse
from p2pfed.sim.simulation import Simulation, run
from p2pfed.sim.topology import Topology, edges


@pytest.mark.parametrize(
    ("kind", "count", "links", "degrees"),
    [
        ("line", 5, 4, {1: 2, 2: 3}),
        ("ring", 5, 5, {2: 5}),
        ("star", 5, 4, {1: 4, 4: 1}),
        ("cliques", 8, 13, {3: 6, 4: 2}),
        ("random", 50, 200, {8: 50}),
    ],
)
def test_shapes_have_their_links(kind: str, count: int, links: int, degrees: dict[int, int]) -> None:
    pairs = edges(count, Topology(kind), random.Random(1))
    assert len(pairs) == links == len({(min(pair), max(pair)) for pair in pairs})
    assert Counter(Counter(end for pair in pairs for end in pair).values()) == degrees


def test_a_random_graph_that_cannot_be_is_refused() -> None:
    for count, degree in ((5, 3), (4, 4)):
        with pytest.raises(ConfigError):
            edges(count, Topology("random", degree), random.Random(1))


def test_nodes_of_a_ring_link_with_their_neighbours_alone() -> None:
    simulation = Simulation(devices(6, 300.0, 1, topology="ring"))
    simulation.run()
    for at in range(1, 7):
        linked = {entry.peer for entry in simulation.network.runs[f"n{at}"].state.membership.neighbours()}
        assert linked == {f"sim-n{at % 6 + 1}", f"sim-n{(at - 2) % 6 + 1}"}


def pair(one: str, other: str, **network: object) -> int:
    """Neighbours of the first of two nodes, of which the first is told of the other."""
    table = {
        "seed": 1,
        "duration_s": 60.0,
        "network": network,
        "nodes": [
            {"prefix": "a", "nat": one, "knows": ["b1"]},
            {"prefix": "b", "nat": other},
        ],
        "expect": {"quiet": False, "swaps_min": 0},
    }
    return run(parse(table, "pair")).nodes[0].neighbours


@pytest.mark.parametrize(
    ("one", "other", "linked"),
    [
        ("public", "public", 1),
        ("symmetric", "public", 1),
        ("public", "cone", 1),
        ("public", "symmetric", 1),
        ("cone", "symmetric", 1),
        ("symmetric", "symmetric", 0),
    ],
)
def test_who_gets_through_to_whom(one: str, other: str, linked: int) -> None:
    assert pair(one, other) == linked


def test_without_hole_punching_nobody_behind_a_nat_is_dialled_and_a_relay_helps_the_symmetric() -> None:
    assert pair("public", "cone", hole_punching=False) == 0
    assert pair("cone", "public", hole_punching=False) == 1
    assert pair("symmetric", "symmetric", relay_delay_s=0.1) == 1


def test_churn_keeps_its_share_down_and_its_outages_are_the_same_whatever_else_differs() -> None:
    scenario = replace(devices(60, 1800.0, 3, down_share=0.3), sample_interval_s=30.0)
    reports = [run(scenario), run(replace(scenario, network=replace(scenario.network, delay_s=0.2)))]
    up = [[sample.nodes for sample in report.spread] for report in reports]
    assert up[0] == up[1]
    late = [count for sample, count in zip(reports[0].spread, up[0], strict=True) if sample.at_s > 400.0]
    assert 0.6 < sum(late) / len(late) / 60 < 0.8
    assert reports[0].history != reports[1].history


def test_speeds_are_spread_as_told_and_by_the_node_alone() -> None:
    def steps(**options: float) -> list[float]:
        scenario = devices(200, 1.0, 5)
        simulation = Simulation(replace(scenario, nodes=tuple(replace(node, **options) for node in scenario.nodes)))
        return [simulation.network.step_s(node) for node in simulation.scenario.nodes]

    assert steps() == [15.0] * 200
    tenfold = steps(step_range=10.0)
    assert 8.0 < max(tenfold) / min(tenfold) <= 10.0 and tenfold == steps(step_range=10.0)
    assert max(steps(step_sigma=1.0)) / min(steps(step_sigma=1.0)) > 40.0


@pytest.mark.parametrize("learner", ["toy", "quadratic"])
def test_the_optimum_of_all_is_where_no_direction_gets_better(learner: str) -> None:
    nodes = [NodeOptions(name=f"n{number}", learner=learner, values=3) for number in range(5)]
    population = Population(nodes, 1)
    best = population._best
    assert population.gap(best) == 0.0
    centres = [population._centre(node) for node in nodes]
    curvatures = [population._curvature(node) for node in nodes]

    def loss(point: list[float]) -> float:
        rows = zip(curvatures, centres, strict=True)
        return sum(a * (x - c) ** 2 / 2 for row in rows for a, c, x in zip(*row, point, strict=True)) / len(nodes)

    point = [value + 0.3 for value in best]
    assert population.gap(point) == pytest.approx(loss(point) - loss(best))


def test_a_quadratic_goes_where_it_is_pulled_and_comes_back_from_its_checkpoint() -> None:
    learner = QuadraticLearner([1.0, -2.0], [1.0, 2.0], 0.1, 0.01, 7)
    mixer = quadratic_mixer(learner, 4, 2.0)
    for _ in range(100):
        mixer.step()
    assert mixer.values == pytest.approx([1.0, -2.0], abs=0.1)
    saved = mixer.save()
    again = quadratic_mixer(QuadraticLearner([1.0, -2.0], [1.0, 2.0], 0.1, 0.01, 7), 4, 2.0)
    again.load(saved)
    assert (again.step(), again.values) == (mixer.step(), mixer.values)
    assert mixer.export_of(mixer.values, Encoding.INT4) == mixer.export(Encoding.INT4)


@pytest.mark.parametrize(("attack", "told"), [("sign-flip", [-4.0, -8.0]), ("stale", [0.0, 0.0])])
def test_what_an_attacker_tells(attack: str, told: list[float]) -> None:
    mixer = ToyMixer([0.0, 0.0], [1.0, 2.0], 1.0)
    liar = Attacker(mixer, attack, 4.0, random.Random(1))
    liar.step()
    assert liar.export(Encoding.FLOAT32) == mixer.export_of(told, Encoding.FLOAT32) != mixer.export(Encoding.FLOAT32)


def test_clipping_holds_off_what_an_attacker_pulls() -> None:
    gaps = {}
    for clip in (0.0, 2.0):
        report = run(devices(12, 1800.0, 2, learner="quadratic", attackers=1, clip=clip))
        gap = report.spread[-1].gap
        assert gap is not None
        gaps[clip] = gap
    assert gaps[2.0] < 0.5 * gaps[0.0], gaps


def test_reckoned_bytes_are_those_of_the_codec() -> None:
    scenario = devices(30, 600.0, 4)
    sent = {codec: run(replace(scenario, network=replace(scenario.network, codec=codec))) for codec in (True, False)}
    assert sent[True].events == sent[False].events and sent[True].swaps == sent[False].swaps
    assert sent[False].bytes_a_node == pytest.approx(sent[True].bytes_a_node, rel=0.02)


def test_frames_weigh_what_varies() -> None:
    frames, real = Frames(codec=False), Frames(codec=True)
    told = PeersTold(tuple(PeerRecord(PeerId(f"sim-n{at}"), (f"/ip4/10.0.0.{at}/tcp/4001",)) for at in range(10)))
    for message in (Part(b"d" * 32, 0, b"x" * 100), Part(b"d" * 32, 0, b"x" * 900), told, Ping(2**31)):
        assert frames.load(message) == (message, real.load(message)[1])
        assert real.read(real.load(message)[0]) == message


def test_a_replay_shows_a_small_network_whole_and_of_a_large_one_those_that_belong_together() -> None:
    small, large = Swaps(), Swaps()
    for at in range(20):
        small.add(float(at), at % 4 + 1, (at + 1) % 4 + 1)
    rng = random.Random(1)
    for at in range(60_000):
        one = rng.randrange(500)
        large.add(at * 0.1, one, (one + rng.choice((1, 2))) % 500)
    assert replay_of(small).nodes == (1, 2, 3, 4) and len(replay_of(small).swaps) == 20
    sample = replay_of(large)
    assert len(sample.nodes) == NODES_SHOWN_MAX and 1000 < len(sample.swaps) <= SWAPS_SHOWN_MAX
    assert sample.swaps_left_out + len(sample.swaps) == 60_000
    assert len(replay_of(Swaps()).nodes) == 0


def test_other_learners_take_the_place_of_the_toys() -> None:
    """Any `ports.Learner` under the production mixer: here quadratics that pull to 1 and to 3, swapping at 8 bits."""
    learners = {name: QuadraticLearner([pull], [1.0], 0.05, 0.0, 1) for name, pull in (("n1", 1.0), ("n2", 3.0))}
    scenario = devices(2, 1800.0, 1, encoding="int8")
    population = RealPopulation(learners, GossipConfig(clip=0.0), lambda values: (values[0] - 2.0) ** 2)
    simulation = Simulation(scenario, population)
    simulation.advance(900.0)
    simulation.network.crash("n1")
    simulation.network.restart("n1", keep=False)
    mixer = simulation.network.runs["n1"].mixer
    assert mixer is not None and list(mixer.values) == [0.0], "it began anew"
    report = simulation.run()
    assert report.problems == () and report.swaps > 15
    last = report.spread[-1]
    assert (
        last.gap is not None and last.gap < 0.5 and last.gap_mean_adapter is not None and last.gap_mean_adapter < 0.05
    )
