"""What is run: one cell is one training of a whole network, named by everything that decides its outcome.

An arm is a method with its settings; a cell is an arm at one learning rate and seed. Learning rates are chosen on
`TUNING_SEEDS` by the devices' own validation rows, reported on `SEEDS`: nothing is chosen by what is reported.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from p2pfed.config import GossipConfig
from p2pfed.ports import Encoding
from p2pfed.presets import PRESETS

SEEDS = (0, 1, 2)
TUNING_SEEDS = (100,)
CONDITIONS = ("topology", "speeds", "equal", "down", "late", "members")
"""Fields of an arm that mean something to the method "network" alone."""


@dataclass(frozen=True, slots=True)
class Arm:
    """`every`: local steps between exchanges. `reference`: what FedAvg's quantised difference is taken against.

    `clip` and `momentum` are those of `config.GossipConfig`. `settle`: swaps of each node after its last step, in
    `settle_encoding`. `rate_scale`: of the grid of learning rates; averaging bears higher ones.

    The others are conditions of the simulated network (`network`). `speeds`: the slowest step over the fastest there
    can be. `equal`: nodes make equally many "steps", or train for equal "time". `down`: share of the nodes, at any
    time. `late`: nodes that join at half of the time. `members`: the file lists them all, so they swap by schedule.
    """

    name: str
    method: str
    every: int = 8
    encoding: Encoding = Encoding.FLOAT32
    reference: str = "start"
    clip: float = GossipConfig().clip
    momentum: str = "local"
    settle: int = 0
    settle_encoding: Encoding = Encoding.INT4
    rate_scale: float = 1.0
    topology: str = "grown"
    speeds: float = 1.0
    equal: str = "steps"
    down: float = 0.0
    late: int = 0
    members: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """A preset and how much is run of it. `checkpoints`: local steps at which every node is evaluated."""

    preset: str
    nodes: int
    batch_rows: int
    checkpoints: tuple[int, ...]
    rates: tuple[float, ...]
    """Learning rates tried, a factor of 2 apart."""

    @property
    def steps(self) -> int:
        return self.checkpoints[-1]


@dataclass(frozen=True, slots=True)
class Cell:
    arm: Arm
    model: str
    rate: float
    seed: int

    @property
    def key(self) -> str:
        """Equal only for cells that give the same result."""
        cell = asdict(self)
        if self.arm.method != "network":
            for name in CONDITIONS:
                del cell["arm"][name]
        return json.dumps([cell, asdict(MODELS[self.model])], sort_keys=True)


MODELS: Mapping[str, Model] = {
    # 160 steps of 2 passages are half a pass over a device's data: what is measured is learning, not learning by heart.
    "glassllm": Model("glassllm-en", 8, 2, (32, 64, 96, 128, 144, 160), (5e-3, 1e-2, 2e-2)),
    "smollm2": Model("smollm2-135m", 4, 2, (20, 40), (1e-3, 2e-3, 4e-3, 8e-3)),
}
"""By the word of `--model`. smollm2 takes five to eight minutes a cell."""

FEDAVG = Arm("fedavg-float32", "fedavg")
FEDAVG_INT4 = replace(FEDAVG, name="fedavg-int4", encoding=Encoding.INT4)
MOMENTUM = PRESETS["glassllm-en"].gossip.momentum
RULE = Arm("rule", "pairs", every=4, encoding=Encoding.INT4, momentum=MOMENTUM, settle=2, settle_encoding=Encoding.INT8)

ARMS: Sequence[Arm] = (
    Arm("isolated", "isolated", rate_scale=0.25),
    Arm("centralised", "centralised", every=1, rate_scale=0.25),
    FEDAVG,
    replace(FEDAVG, name="fedavg-float32-h4", every=4),
    replace(FEDAVG, name="fedavg-int8", encoding=Encoding.INT8),
    FEDAVG_INT4,
    replace(FEDAVG_INT4, name="fedavg-int4-h4", every=4),
    replace(FEDAVG_INT4, name="fedavg-int4-update", reference="round"),
    replace(FEDAVG_INT4, name="fedavg-int4-update-h4", reference="round", every=4),
    RULE,
)
"""What is run by default."""

ABLATIONS: Sequence[Arm] = (
    replace(RULE, name="rule-local-momentum", momentum="local"),
    replace(RULE, name="rule-gossip-moment", momentum="gossip"),
    replace(RULE, name="rule-unclipped", clip=0.0),
    replace(RULE, name="rule-settle-int4", settle_encoding=Encoding.INT4),
    replace(RULE, name="rule-settle-4-int4", settle=4, settle_encoding=Encoding.INT4),
    replace(RULE, name="rule-h8", every=8),
    replace(RULE, name="rule-h2", every=2),
    replace(RULE, name="rule-int8", encoding=Encoding.INT8),
    replace(RULE, name="rule-float32", encoding=Encoding.FLOAT32, settle_encoding=Encoding.FLOAT32),
)
"""Each differs from `RULE` in one thing, and runs at its learning rate; `--arms ablations`."""

NETWORK = Arm("network", "network", every=4, encoding=Encoding.INT4, momentum=MOMENTUM, settle=2)

NETWORKS: Sequence[Arm] = (
    NETWORK,
    replace(NETWORK, name="network-local-momentum", momentum="local"),
    replace(NETWORK, name="network-churn", down=0.3),
    replace(NETWORK, name="network-members", members=True),
    replace(NETWORK, name="network-churn-time", down=0.3, equal="time"),
    replace(NETWORK, name="network-ring", topology="ring"),
    replace(NETWORK, name="network-line", topology="line"),
    replace(NETWORK, name="network-star", topology="star"),
    replace(NETWORK, name="network-random", topology="random"),
    replace(NETWORK, name="network-cliques", topology="cliques"),
    replace(NETWORK, name="network-tenfold", speeds=10.0),
    replace(NETWORK, name="network-tenfold-time", speeds=10.0, equal="time"),
    replace(NETWORK, name="network-late", late=2, equal="time"),
    replace(NETWORK, name="network-unclipped", clip=0.0),
)
"""The product in the simulator, under conditions; all at the learning rate of `RULE`. `--arms networks`."""


def tuned_as(arm: Arm) -> Arm:
    """The arm whose learning rate this one takes."""
    return RULE if arm in NETWORKS or arm in ABLATIONS else arm


def tuning_cells(model: str, arms: Sequence[Arm]) -> Iterator[Cell]:
    for arm in dict.fromkeys(map(tuned_as, arms)):
        for rate in MODELS[model].rates:
            for seed in TUNING_SEEDS:
                yield Cell(arm, model, rate * arm.rate_scale, seed)


def reported_cells(model: str, arms: Sequence[Arm], best: Mapping[str, float]) -> Iterator[Cell]:
    """`best`: learning rate by name of tuned arm. Seeds outside, so that an unfinished run has whole seeds."""
    for seed in SEEDS:
        for arm in arms:
            yield Cell(arm, model, best[tuned_as(arm).name], seed)
