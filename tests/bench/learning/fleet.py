"""The nodes of one cell: real learners on one base, all from the same start, and what they are measured by.

The start and the order of rows depend on the seed alone, not on the method or learning rate: arms are compared
pair by pair. Values are float32 arrays by name.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs
import torch

from p2pfed.config import AdapterConfig, GossipConfig, NetworkConfig, TrainingConfig
from p2pfed.presets import PRESETS
from p2pfed.sim.real import share_base
from p2pfed.train.adapter import initial_factor
from p2pfed.train.base_model import BaseModel, base_folder, load_base, use_threads
from p2pfed.train.examples import Example
from p2pfed.train.learner import LoraLearner
from p2pfed.train.loop import Batch, collate, token_losses
from tests.bench.learning.cells import MODELS, Cell
from tests.bench.learning.shards import PASSAGE_TOKENS_MAX, Shards, load_shards

Values = Mapping[str, npt.NDArray[np.float32]]

TARGETS = {
    # 73,696 values.
    "glassllm": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "smollm2": ("q_proj", "v_proj", "o_proj"),
}
EVALUATION_ROWS = 32
"""Held-out examples at a time, sorted by length: little padding."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Mean loss of a completion token in a domain, averaged over domains. `all`: of both splits together."""

    all: float
    dev: float
    test: float
    domains: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """The network after `step` local steps. Bytes are what a node sent until then, on average."""

    step: int
    sent: float
    consensus: Loss
    nodes: tuple[Loss, ...]
    distance: float
    """Root of the mean squared distance of nodes to their mean."""

    @property
    def node_mean(self) -> float:
        return math.fsum(node.all for node in self.nodes) / len(self.nodes)

    @property
    def worst(self) -> float:
        return max(node.all for node in self.nodes)


def mean_of(many: Sequence[Values]) -> Values:
    stacked = {name: np.stack([each[name] for each in many]) for name in many[0]}
    return {name: np.asarray(stack.mean(axis=0, dtype=np.float64), np.float32) for name, stack in stacked.items()}


def distance_of(many: Sequence[Values]) -> float:
    mean = mean_of(many)
    squares = [float(np.square(each[name] - mean[name]).sum(dtype=np.float64)) for each in many for name in mean]
    return math.sqrt(math.fsum(squares) / len(many))


class Fleet:
    """All nodes of one cell."""

    def __init__(self, cell: Cell) -> None:
        self.cell, self.model = cell, MODELS[cell.model]
        self.network = network_of(cell)
        base, self.shards = _world(cell.model)
        # Drawn from the id of a network that has neither the rates nor, but for its interval, the preset's gossip.
        gossip = GossipConfig(swap_interval_s=self.network.gossip.swap_interval_s)
        shared = replace(self.network, training=TrainingConfig(), gossip=gossip)
        self._base = base
        self._probe = LoraLearner(self.network, share_base(base), ())
        self.start: Values = {
            name: initial_factor(shared, name, shape) for name, shape in self._probe.adapter.shapes.items()
        }
        self.learners = [self._begun(rows) for rows in self.shards.train]
        self.facts: dict[str, float] = {}
        """What a method found besides its points."""

    def renew(self, index: int) -> LoraLearner:
        """The node begins anew, as a device that lost its process: the learner is at the start."""
        self.learners[index] = self._begun(self.shards.train[index])
        return self.learners[index]

    def _begun(self, rows: Sequence[Example]) -> LoraLearner:
        learner = LoraLearner(self.network, share_base(self._base), rows)
        learner.adapter.start = dict(self.start)
        learner.adapter.reset()
        return learner

    def train(self) -> None:
        """One step of every node."""
        for learner in self.learners:
            learner.step()

    def point(self, step: int, sent: float, *, alike: bool = False, of: Sequence[int] | None = None) -> Point:
        """Measure all nodes, or those `of` these numbers; `alike` where they hold the same values."""
        held = [self.learners[index].values() for index in (range(len(self.learners)) if of is None else of)]
        consensus = self.loss(mean_of(held))
        nodes = [consensus] * len(held) if alike else [self.loss(values) for values in held]
        return Point(step, sent, consensus, tuple(nodes), 0.0 if alike else distance_of(held))

    def loss(self, values: Values) -> Loss:
        self._probe.adapter.assign(values)
        sums = np.zeros((len(self.shards.domains), 2))
        counts = np.zeros_like(sums)
        for batch, cells in _held_out_batches(self.cell.model):
            with torch.no_grad():
                losses = token_losses(self._probe.adapter.model, batch).double().numpy()
            places = cells[batch.owner.numpy()]
            np.add.at(sums, (places[:, 0], places[:, 1]), losses)
            np.add.at(counts, (places[:, 0], places[:, 1]), 1)
        domains = sums.sum(axis=1) / counts.sum(axis=1)
        with np.errstate(invalid="ignore"):
            dev, test = np.nanmean(sums / counts, axis=0) if counts[:, 1].any() else (float(domains.mean()), math.nan)
        return Loss(float(domains.mean()), float(dev), float(test), tuple(float(each) for each in domains))


def network_of(cell: Cell) -> NetworkConfig:
    preset, model = PRESETS[MODELS[cell.model].preset], MODELS[cell.model]
    tokens_max = PASSAGE_TOKENS_MAX if cell.model == "glassllm" else preset.model.sequence_tokens_max
    return replace(
        preset,
        name="bench-learning",
        model=replace(preset.model, sequence_tokens_max=tokens_max),
        adapter=AdapterConfig(rank=8, alpha=16.0, targets=TARGETS[cell.model], seed=cell.seed),
        training=TrainingConfig(learning_rate=cell.rate, batch_rows=model.batch_rows, warmup_steps=5),
    )


@functools.cache
def _world(model: str) -> tuple[BaseModel, Shards]:
    """The base and the data, once a process."""
    use_threads(1)
    preset = PRESETS[MODELS[model].preset]
    cache = platformdirs.user_cache_path("p2pfed")
    folder = base_folder(preset.model, cache=cache, offline=True)
    base = load_base(preset.model, folder, cache=cache, device=torch.device("cpu"))
    tiny = model == "glassllm"
    if tiny:
        base.model.float()  # where the product takes bfloat16, half the time of a step of this one goes into casts
    tokens_max = PASSAGE_TOKENS_MAX if tiny else preset.model.sequence_tokens_max
    return base, load_shards(base.tokenizer, preset.model.prompt, tokens_max, MODELS[model].nodes, passages=tiny)


@functools.cache
def _held_out_batches(model: str) -> list[tuple[Batch, Any]]:
    """Batches with (domain, split) of each of their rows."""
    held = sorted(_world(model)[1].held_out, key=lambda each: len(each.example.ids))
    groups = [held[at : at + EVALUATION_ROWS] for at in range(0, len(held), EVALUATION_ROWS)]
    cpu = torch.device("cpu")
    return [
        (collate([each.example for each in group], cpu), np.array([(each.domain, each.split) for each in group]))
        for group in groups
    ]
