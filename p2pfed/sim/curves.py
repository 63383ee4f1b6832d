"""Which curves a simulation is shown by, for the page and the picture alike."""

from collections.abc import Callable
from dataclasses import dataclass

from p2pfed.sim.report import Sample, SimulationReport

FLOOR = 1e-12
"""Below it is rounding, and a logarithmic axis has no zero."""


@dataclass(frozen=True, slots=True)
class Curve:
    key: str
    title: str
    text: str
    up: str
    across: str
    over_bytes: bool


_LOSS = "Each node's adapter on the data of all, above the best there is."
_SPREAD = "Root mean square distance of a node's adapter to the mean of all."
_BYTES, _TIME = "kB sent by a node", "virtual minutes"

CURVES = (
    Curve("loss-bytes", "Loss against bytes", _LOSS, "loss above optimum", _BYTES, True),
    Curve("loss-time", "Loss against time", _LOSS, "loss above optimum", _TIME, False),
    Curve("spread-bytes", "Consensus distance against bytes", _SPREAD, "consensus distance", _BYTES, True),
    Curve("spread-time", "Consensus distance against time", _SPREAD, "consensus distance", _TIME, False),
)


def points(report: SimulationReport, curve: Curve) -> dict[str, list[tuple[float, float]]]:
    """By the name of the line; empty where there is nothing to show."""
    lines: dict[str, Callable[[Sample], float | None]] = {"consensus distance": lambda sample: sample.spread}
    if curve.key.startswith("loss"):
        lines = {
            "mean node": lambda sample: sample.gap,
            "worst node": lambda sample: sample.gap_worst,
            "mean adapter": lambda sample: sample.gap_mean_adapter,
        }
    nodes = max(1, len(report.nodes))

    def across(sample: Sample) -> float:
        return sample.bytes_sent / nodes / 1000.0 if curve.over_bytes else sample.at_s / 60.0

    return {
        name: [
            (across(sample), value)
            for sample in report.spread
            if (value := value_of(sample)) is not None and value > FLOOR
        ]
        for name, value_of in lines.items()
    }
