"""The demo's data: which trades there are, where their rows lie, and what each row's known score is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from p2pfed.errors import ExitCode, LearnerError

TRADES = ("greenhouse", "lift", "coldchain", "building")
TITLES: Mapping[str, str] = {
    "greenhouse": "greenhouse controller",
    "lift": "lift maintenance",
    "coldchain": "cold-chain tracker",
    "building": "building energy",
}
DATA_FOLDER = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class TradeData:
    """Files and known scores of one trade; `held_out_scores` in the order of the file."""

    trade: str
    train: Path
    held_out: Path
    train_scores: tuple[int, ...]
    held_out_scores: tuple[int, ...]


def load_trades(folder: Path = DATA_FOLDER, trades: tuple[str, ...] = TRADES) -> tuple[TradeData, ...]:
    """Raises LearnerError (ExitCode.DATA) where a file is missing or a row has no score."""
    found = []
    for trade in trades:
        train, held_out = folder / f"{trade}.train.jsonl", folder / f"{trade}.held_out.jsonl"
        found.append(TradeData(trade, train, held_out, _scores(train), _scores(held_out)))
    return tuple(found)


def _scores(file: Path) -> tuple[int, ...]:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        return tuple(int(row["score"]) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LearnerError(f"demo data {file} can not be used: {error}", ExitCode.DATA) from error
