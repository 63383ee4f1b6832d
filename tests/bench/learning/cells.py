"""What is run: one cell is one training of a whole network, named by everything that decides its outcome.

An arm is a method with its settings; a cell is an arm at one learning rate and seed. Learning rates are chosen on
`TUNING_SEEDS` by the devices' own validation rows, reported on `SEEDS`: nothing is chosen by what is reported.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from p2pfed.ports import Encoding

SEEDS = (0, 1, 2)
TUNING_SEEDS = (100,)


@dataclass(frozen=True, slots=True)
class Arm:
    """`every`: local steps between exchanges. `reference`: what FedAvg's quantised difference is taken against.

    `clip` and `momentum` are those of `config.GossipConfig`.
    """

    name: str
    method: str
    every: int = 8
    encoding: Encoding = Encoding.FLOAT32
    reference: str = "start"
    clip: float = 2.0
    momentum: str = "local"


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
        return json.dumps([asdict(self), asdict(MODELS[self.model])], sort_keys=True)


MODELS: Mapping[str, Model] = {
    # 160 steps of 2 passages are half a pass over a device's data: what is measured is learning, not learning by heart.
    "glassllm": Model("glassllm-en", 8, 2, (32, 64, 96, 128, 144, 160), (5e-3, 1e-2, 2e-2, 4e-2)),
    "smollm2": Model("smollm2-135m", 4, 2, (8, 16, 24, 32, 40), (1e-3, 2e-3, 4e-3)),
}
"""By the word of `--model`. smollm2 takes a quarter of an hour a cell."""

ARMS: Sequence[Arm] = (
    Arm("isolated", "isolated"),
    Arm("centralised", "centralised", every=1),
    Arm("fedavg-float32", "fedavg"),
    Arm("fedavg-float32-h4", "fedavg", every=4),
    Arm("fedavg-int8", "fedavg", encoding=Encoding.INT8),
    Arm("fedavg-int4", "fedavg", encoding=Encoding.INT4),
    Arm("fedavg-int4-h4", "fedavg", every=4, encoding=Encoding.INT4),
    Arm("fedavg-int4-update", "fedavg", encoding=Encoding.INT4, reference="round"),
    Arm("fedavg-int4-update-h4", "fedavg", every=4, encoding=Encoding.INT4, reference="round"),
    Arm("rule-int4-h4", "pairs", every=4, encoding=Encoding.INT4),
    Arm("rule-int4-h4-quasi-global", "pairs", every=4, encoding=Encoding.INT4, momentum="quasi-global"),
    Arm("rule-int4-h4-gossip", "pairs", every=4, encoding=Encoding.INT4, momentum="gossip"),
)


def tuning_cells(model: str, arms: Sequence[Arm]) -> Iterator[Cell]:
    for arm in arms:
        for rate in MODELS[model].rates:
            for seed in TUNING_SEEDS:
                yield Cell(arm, model, rate, seed)


def reported_cells(model: str, arms: Sequence[Arm], best: Mapping[str, float]) -> Iterator[Cell]:
    """`best`: learning rate by name of arm. Seeds outside, so that an unfinished run has whole seeds."""
    for seed in SEEDS:
        for arm in arms:
            yield Cell(arm, model, best[arm.name], seed)
