"""The third kind of learner: a small language model on rows of its own, simulated like any other."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from p2pfed.presets import PRESETS
from p2pfed.sim.device import devices
from p2pfed.sim.real import real_learners
from p2pfed.sim.real_population import RealPopulation
from p2pfed.sim.simulation import Simulation

pytestmark = pytest.mark.model
NETWORK = replace(PRESETS["glassllm-en"], name="real-population")


def test_two_real_models_swap_in_virtual_time(tmp_path: Path) -> None:
    pytest.importorskip("glassllm", reason="the small model comes from the package glassllm")
    import torch

    from p2pfed.train.data import read_rows

    torch.set_num_threads(1)
    shards = []
    for word in ("valve", "lift"):
        path = tmp_path / f"{word}.jsonl"
        path.write_text("".join(f'{{"text": "The {word} is at step {number}."}}\n' for number in range(12)))
        shards.append(read_rows(str(path)))
    learners = real_learners(NETWORK, shards, cache=tmp_path / "cache")
    scenario = replace(devices(2, 200.0, 1), sample_interval_s=20.0)
    report = Simulation(scenario, RealPopulation({"n1": learners[0], "n2": learners[1]}, NETWORK.gossip)).run()
    assert report.problems == () and report.swaps >= 2
    assert min(node.steps for node in report.nodes) > 8
    values = [{name: array.copy() for name, array in learner.values().items()} for learner in learners]
    apart = math.sqrt(sum(float(((values[0][name] - values[1][name]) ** 2).sum()) for name in values[0]))
    start = learners[0].start()
    moved = math.sqrt(sum(float(((values[0][name] - start[name]) ** 2).sum()) for name in start))
    assert 0.0 < apart < 2.0 * moved
    assert report.bytes_a_node > report.swaps * 1000
