"""Simulated nodes with a real model: one base in memory, adapters that know nothing of each other."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from p2pfed.presets import PRESETS
from p2pfed.sim.real import real_learners

pytestmark = pytest.mark.model
NAMES = ("valve", "lift", "cold")
NETWORK = replace(PRESETS["glassllm-en"], name="real-learners")


@pytest.fixture(scope="module")
def learners(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Any]:
    pytest.importorskip("glassllm", reason="the small model comes from the package glassllm")
    import torch

    from p2pfed.train.data import read_rows

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("real")
    return real_learners(NETWORK, [read_rows(str(shard(folder, name))) for name in NAMES], cache=folder / "cache")


def shard(folder: Path, name: str) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(f'{{"text": "The {name} is at step {number}."}}\n' for number in range(12)))
    return path


def tensors(learner: Any) -> dict[str, Any]:
    model = learner.adapter.model.get_base_model()
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def test_the_base_is_in_memory_once_and_the_factors_are_not(learners: Sequence[Any]) -> None:
    for name in tensors(learners[0]):
        places = {tensors(each)[name].data_ptr() for each in learners}
        assert len(places) == (len(NAMES) if ".lora_" in name else 1), name
    assert any(".lora_" in name for name in tensors(learners[0]))


def test_a_step_of_one_changes_nobody_else(learners: Sequence[Any]) -> None:
    import numpy as np

    first, *others = learners
    before = [learner.values() for learner in learners]
    base = {name: value.detach().clone() for name, value in tensors(first).items() if ".lora_" not in name}
    for _ in range(3):
        first.step()
    assert any(not np.array_equal(now, before[0][name]) for name, now in first.values().items())
    for other, values in zip(others, before[1:], strict=True):
        assert all(np.array_equal(now, values[name]) for name, now in other.values().items())
        assert other.progress().steps == 0
    assert all(bool((tensors(first)[name] == value).all()) for name, value in base.items())


def test_it_learns_as_a_node_with_a_base_of_its_own(learners: Sequence[Any], tmp_path: Path) -> None:
    from p2pfed.config import NodeConfig
    from p2pfed.train.data import read_rows
    from p2pfed.train.learner import open_learner

    data = read_rows(str(shard(tmp_path, NAMES[1])))
    alone, _ = open_learner(NETWORK, NodeConfig(offline=True), data, cache=tmp_path / "cache")
    assert [alone.step().loss for _ in range(3)] == [learners[1].step().loss for _ in range(3)]


def test_the_simulator_loads_without_torch() -> None:
    program = "import sys, p2pfed.sim.real; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
