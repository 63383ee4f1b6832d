"""The shipped rows keep the rules they were written to: data, not decoration."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from p2pfed.demo.trades import DATA_FOLDER, TITLES, TRADES, load_trades

KEYS = ["id", "trade", "instruction", "response", "rubric", "feedback", "score"]
RUBRIC_KEYS = ["criteria", *(f"score{score}_description" for score in range(1, 6))]
TRAIN_ROWS_MIN, HELD_OUT_ROWS = 60, 12
SAME_BEGINNING_WORDS = 6


def rows_of(trade: str, part: str) -> list[dict[str, Any]]:
    text = (DATA_FOLDER / f"{trade}.{part}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize("trade", TRADES)
def test_rows_are_enough_and_scores_are_spread(trade: str) -> None:
    train = Counter(row["score"] for row in rows_of(trade, "train"))
    held_out = Counter(row["score"] for row in rows_of(trade, "held_out"))
    assert sum(train.values()) >= TRAIN_ROWS_MIN
    assert sum(held_out.values()) == HELD_OUT_ROWS
    assert min(train[score] for score in range(1, 6)) >= 10
    assert min(held_out[score] for score in range(1, 6)) >= 2


@pytest.mark.parametrize("trade", TRADES)
@pytest.mark.parametrize("part", ["train", "held_out"])
def test_rows_have_their_form_and_lengths(trade: str, part: str) -> None:
    for row in rows_of(trade, part):
        assert list(row) == KEYS, row["id"]
        assert list(row["rubric"]) == RUBRIC_KEYS, row["id"]
        assert row["trade"] == trade and type(row["score"]) is int
        assert 10 <= words(row["instruction"]) <= 60, row["id"]
        assert 10 <= words(row["response"]) <= 90, row["id"]
        assert 15 <= words(row["feedback"]) <= 50, row["id"]
        assert words(row["rubric"]["criteria"]) <= 28, row["id"]
        assert "[RESULT]" not in row["feedback"] and "\n" not in row["feedback"], row["id"]


def test_no_row_is_a_repetition() -> None:
    rows = [row for trade in TRADES for part in ("train", "held_out") for row in rows_of(trade, part)]
    for key in ("id", "instruction", "response", "feedback"):
        counts = Counter(row[key] for row in rows)
        assert counts.most_common(1)[0][1] == 1, counts.most_common(1)
    beginnings = Counter(" ".join(row["feedback"].lower().split()[:SAME_BEGINNING_WORDS]) for row in rows)
    assert beginnings.most_common(1)[0][1] == 1, beginnings.most_common(1)


def test_feedback_names_no_score() -> None:
    """Else a model could read the verdict instead of the answer."""
    for trade in TRADES:
        for row in rows_of(trade, "train"):
            assert not re.search(r"\bscore[sd]? (of )?[1-5]\b|\b[1-5]/5\b", row["feedback"].lower()), row["id"]


def test_trades_are_loaded_with_their_scores() -> None:
    trades = load_trades()
    assert tuple(each.trade for each in trades) == TRADES == tuple(TITLES)
    assert sum(len(each.held_out_scores) for each in trades) == 48
    assert all(set(each.train_scores) == {1, 2, 3, 4, 5} for each in trades)


def test_the_folder_says_what_it_is() -> None:
    page = (DATA_FOLDER / "README.md").read_text(encoding="utf-8")
    assert "CC0" in page
    assert all(f"`{key}`" in page for key in KEYS)
    assert {path.name for path in Path(DATA_FOLDER).glob("*.jsonl")} == {
        f"{trade}.{part}.jsonl" for trade in TRADES for part in ("train", "held_out")
    }
