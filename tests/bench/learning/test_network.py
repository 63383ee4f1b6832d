"""The method "network" with learners that take no time: what it pairs, counts and waits for."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest

pytest.importorskip("torch", reason="the learning bench imports it")

from p2pfed.ports import Encoding
from p2pfed.sim.quadratic import QuadraticLearner
from tests.bench.learning.cells import MODELS, NETWORK, NETWORKS, RULE, Arm, Cell, Model, tuned_as
from tests.bench.learning.facts import network_table, snapshot_table
from tests.bench.learning.fleet import Fleet, Loss, Point, distance_of, mean_of
from tests.bench.learning.network import devices, network, usual_s
from tests.bench.learning.payloads import snapshot
from tests.bench.learning.results import Result, Results

SEED, NODES, VALUES = 7, 4, 64


class ToyFleet:
    """What `network` needs of a `Fleet`, around quadratics of different optima."""

    def __init__(self, arm: Arm, steps: int = 40) -> None:
        self.cell = Cell(arm, "glassllm", 0.1, SEED)
        self.model = Model("toy", NODES, 2, (steps // 2, steps), ())
        self.centres = np.random.default_rng(SEED).normal(1.0, 1.0, (NODES, VALUES))
        self.learners = [self._begun(index) for index in range(NODES)]
        self.facts: dict[str, float] = {}
        self.renewed = [0] * NODES

    def _begun(self, index: int) -> QuadraticLearner:
        return QuadraticLearner(self.centres[index].tolist(), [1.0] * VALUES, 0.1, 0.0, SEED)

    def renew(self, index: int) -> QuadraticLearner:
        self.renewed[index] += 1
        self.learners[index] = self._begun(index)
        return self.learners[index]

    def point(self, step: int, sent: float, *, of: Sequence[int]) -> Point:
        held = [self.learners[index].values() for index in of]
        best = self.centres.mean(axis=0)

        def loss(x: object) -> Loss:
            return Loss(float(np.square(x - best).mean()), 0.0, 0.0, ())

        return Point(step, sent, loss(mean_of(held)["x"]), tuple(loss(each["x"]) for each in held), distance_of(held))


PLAIN = dataclasses.replace(NETWORK, momentum="local")
"""The learners here are quadratics, with no moments to steer."""


def run(arm: Arm, steps: int = 40) -> tuple[ToyFleet, list[Point]]:
    fleet = ToyFleet(arm, steps)
    return fleet, list(network(cast("Fleet", fleet)))


def test_every_node_makes_its_steps_and_one_swap_a_round() -> None:
    fleet, points = run(PLAIN)
    assert [point.step for point in points] == [20, 40, 40]
    assert [learner.progress().steps for learner in fleet.learners] == [40] * NODES
    # 10 rounds and 2 to settle, one earned at the start, and what the first at its end swaps until the last is.
    assert 12 <= fleet.facts["swaps"] <= 16
    assert 0 < fleet.facts["adapter_bytes"] < points[-1].sent
    assert fleet.facts["half_done"] == fleet.facts["crashes"] == 0
    assert points[-1].consensus.all < 0.1 < np.square(fleet.centres.mean(axis=0)).mean()
    assert [point.sent for point in points] == sorted(point.sent for point in points)


def test_a_cell_replays() -> None:
    arm = dataclasses.replace(PLAIN, down=0.3)
    first, second = run(arm), run(arm)
    assert first[1] == second[1]
    assert first[0].facts == second[0].facts


def test_outages_do_not_depend_on_the_rule() -> None:
    kinds = [dataclasses.replace(PLAIN, down=0.3, equal="time", clip=clip) for clip in (0.0, 2.0)]
    found = [run(arm, 160)[0] for arm in kinds]
    assert found[0].renewed == found[1].renewed
    assert max(found[0].renewed) > 1
    assert found[0].facts["crashes"] == found[1].facts["crashes"] > 0


def test_who_comes_late_adopts_and_is_not_measured_before() -> None:
    arm = dataclasses.replace(PLAIN, late=1, equal="time")
    fleet, points = run(arm, 80)
    assert [len(point.nodes) for point in points] == [3, 4, 4]
    assert fleet.facts["adopted"] == 1
    assert 30 <= fleet.facts["steps_fewest"] <= 44
    assert fleet.facts["steps_most"] <= 88


def test_devices_lie_within_their_range_and_a_mean_node_makes_the_steps() -> None:
    made = devices(dataclasses.replace(NETWORK, speeds=10.0), 50, 160, SEED)
    steps_s = [node.step_s for node in made]
    assert 5.0 < max(steps_s) / min(steps_s) < 10.0
    assert sum(usual_s(made, 160) / each for each in steps_s) == pytest.approx(50 * 160)
    again = devices(dataclasses.replace(NETWORK, speeds=10.0, down=0.3, momentum="gossip"), 50, 160, SEED)
    assert made == again


@pytest.mark.parametrize("arm", NETWORKS, ids=lambda arm: arm.name)
def test_every_arm_of_the_network_comes_to_its_end(arm: Arm) -> None:
    fleet, points = run(dataclasses.replace(arm, momentum=PLAIN.momentum, late=min(arm.late, 1)))
    assert points[-1].consensus.all < 0.5
    assert fleet.facts["swaps"] > 0
    if arm.equal == "steps":
        assert fleet.facts["steps_fewest"] == 40


def test_conditions_are_no_part_of_the_key_of_other_methods() -> None:
    cell = Cell(RULE, "glassllm", 0.01, 0)
    assert "topology" not in json.loads(cell.key)[0]["arm"]
    keys = {Cell(dataclasses.replace(arm, name=""), "glassllm", 0.01, 0).key for arm in NETWORKS}
    assert len(keys) == len(NETWORKS)
    assert {tuned_as(arm).name for arm in NETWORKS} == {"rule"}
    assert MODELS["glassllm"].nodes == 8


def test_a_coarse_snapshot_is_near_the_mean_and_a_finer_one_nearer() -> None:
    rng = np.random.default_rng(SEED)
    start = {"a": rng.normal(size=(8, 64)).astype(np.float32)}
    many = [{"a": start["a"] + rng.normal(size=(8, 64)).astype(np.float32) * 0.1} for _ in range(4)]
    mean = mean_of(many)["a"]
    errors = [
        float(np.abs(snapshot(many, start, encoding)["a"] - mean).max()) for encoding in (Encoding.INT4, Encoding.INT8)
    ]
    assert 0.0 < errors[1] < errors[0] / 8.0 < 0.01


def test_the_tables_show_what_a_condition_costs(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for arm, loss in ((PLAIN, 4.0), (dataclasses.replace(PLAIN, name="disturbed", down=0.3), 4.4)):
        fleet, points = run(arm)
        each = Loss(loss, loss, loss, ())
        last = dataclasses.replace(points[-1], consensus=each, nodes=(each,) * NODES)
        facts = fleet.facts | {"snapshot_int4": 1.25, "snapshot_int8": 1.125}
        results.append(Result(fleet.cell, "test", 6.0, (last,), 1.0, facts))
    known = {"disturbed": NETWORKS[2]}
    read = list(results.read().values())
    assert read[1].facts["crashes"] > 0
    runs = {one.cell.arm.name: [one] for one in read}
    runs["network-churn"] = [
        dataclasses.replace(one, cell=dataclasses.replace(one.cell, arm=known["disturbed"]))
        for one in runs.pop("disturbed")
    ]
    assert "| network-churn | +10.00% | +10.00% |" in "\n".join(network_table(runs))
    assert "| network | 1.2500 | 1.1250 | 4.0000 |" in snapshot_table(runs)
    assert not network_table({})
