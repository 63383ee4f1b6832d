"""What was measured of one adapter, and what answers that read nothing get on the same rows. Plain data.

Crosses from the measuring process to the demo as JSON, so both sides are here.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from p2pfed.demo.trades import TradeData
from p2pfed.errors import ExitCode, LocalError


class Kind(StrEnum):
    BASE = "base"
    ISOLATED = "isolated"
    CONSENSUS = "consensus"


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one set of rows, as `train.summary.Summary`."""

    rows: int
    tokens: int
    loss: float
    perplexity: float
    parse_rate: float
    histogram: tuple[int, ...]
    """How often each score was written, 1 first."""
    mae: float | None
    """Of the verdicts that could be read; None where none could."""
    exact: float | None
    commonest_share: float
    direct_mae: float
    """Of the score expected from the probabilities of the five digits, asked for at once: defined for every row."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One held-out row and what the model wrote."""

    trade: str
    instruction: str
    response: str
    score: int
    feedback: str
    answer: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """`losses`: (step, smoothed training loss) of a node trained alone."""

    name: str
    kind: Kind
    steps: int
    all: Figures
    trades: Mapping[str, Figures]
    losses: tuple[tuple[int, float], ...]
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Baseline:
    """An answer that reads nothing: mean absolute error over all held-out rows and by trade."""

    name: str
    mae: float
    trades: Mapping[str, float]
    histogram: tuple[int, ...]
    """Of whole scores; all zero where the answer is not a whole number."""


def dump_measurement(measured: Measurement, path: Path) -> None:
    path.write_text(json.dumps(asdict(measured)), encoding="utf-8")


def load_measurement(path: Path) -> Measurement:
    """What `dump_measurement` wrote. Raises LocalError (ExitCode.DEMO) where it is not there or not whole."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Measurement(
            name=values["name"],
            kind=Kind(values["kind"]),
            steps=values["steps"],
            all=_figures(values["all"]),
            trades={trade: _figures(figures) for trade, figures in values["trades"].items()},
            losses=tuple((step, loss) for step, loss in values["losses"]),
            samples=tuple(Sample(**sample) for sample in values["samples"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LocalError(f"measurement {path.name} can not be read: {error}", ExitCode.DEMO) from error


def baselines(data: Sequence[TradeData]) -> tuple[Baseline, ...]:
    """Always the commonest training score (the lowest of equals), and the mean training score of the row's trade."""
    counts = Counter(score for trade in data for score in trade.train_scores)
    commonest = max(sorted(counts), key=lambda score: counts[score])
    constant = {trade.trade: float(commonest) for trade in data}
    means = {trade.trade: sum(trade.train_scores) / len(trade.train_scores) for trade in data}
    rows = sum(len(trade.held_out_scores) for trade in data)
    histogram = tuple(rows if score == commonest else 0 for score in range(1, 6))
    return (
        _baseline(f"always {commonest} (the commonest)", constant, histogram, data),
        _baseline("the trade's mean score", means, (0,) * 5, data),
    )


def _baseline(
    name: str, answers: Mapping[str, float], histogram: tuple[int, ...], data: Sequence[TradeData]
) -> Baseline:
    errors = {each.trade: [abs(answers[each.trade] - score) for score in each.held_out_scores] for each in data}
    flat = [error for found in errors.values() for error in found]
    by_trade = {trade: sum(found) / len(found) for trade, found in errors.items()}
    return Baseline(name, sum(flat) / len(flat), by_trade, histogram)


def _figures(values: Mapping[str, object]) -> Figures:
    return Figures(**{**values, "histogram": tuple(values["histogram"])})  # type: ignore[arg-type]
