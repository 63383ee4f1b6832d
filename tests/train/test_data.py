"""Rows of every form and format, and what a bad line gets."""

import json
from pathlib import Path

import pytest

from p2pfed.errors import ExitCode, LearnerError
from p2pfed.train import data as data_module
from p2pfed.train.data import LINE_BYTES_MAX, read_rows
from p2pfed.train.rows import AbsoluteRow, ChatRow, PairRow, RelativeRow, RowError, Rubric, TextRow, parse_row

RUBRIC = {"criteria": "Clear?"} | {f"score{n}_description": f"d{n}" for n in range(1, 6)}
ABSOLUTE = {"instruction": "I", "response": "R", "rubric": RUBRIC, "feedback": "F", "score": 4, "trade": "lifts"}
RELATIVE = {"instruction": "I", "response_A": "a", "response_B": "b", "rubric": RUBRIC, "feedback": "F", "winner": "B"}
SHARED = Path(__file__).parents[3] / "shared/data/absolute"

FORMS = [
    (ABSOLUTE, AbsoluteRow("I", "R", Rubric("Clear?", ("d1", "d2", "d3", "d4", "d5")), "F", 4, "", "lifts")),
    (RELATIVE, RelativeRow("I", "a", "b", Rubric("Clear?", ("d1", "d2", "d3", "d4", "d5")), "F", "B")),
    (
        {"orig_instruction": "I", "instruction": "long", "orig_response": "R", "orig_criteria": "Clear?"}
        | {"orig_feedback": "F", "orig_score": "3", "orig_reference_answer": "best", "output": "F [RESULT] 3"},
        AbsoluteRow("I", "R", Rubric("Clear?"), "F", 3, "best"),
    ),
    (
        {
            "instruction": "I",
            "response": "R",
            "rubric": "[Clear?]\nScore 1: a\nScore 2: b\nScore 3: c\nScore 4: d\nScore 5: e",
        },
        AbsoluteRow("I", "R", Rubric("Clear?", ("a", "b", "c", "d", "e")), None, None),
    ),
    (
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
        ChatRow((("user", "Q"), ("assistant", "A"))),
    ),
    ({"prompt": "Q", "completion": "A"}, PairRow("Q", "A")),
    ({"text": "T"}, TextRow("T")),
]


@pytest.mark.parametrize(("values", "row"), FORMS)
def test_forms(values: dict[str, object], row: object) -> None:
    assert parse_row(values) == row


BAD_ROWS: list[tuple[dict[str, object], str]] = [
    ({}, "keys none"),
    ({"body": "x"}, "keys body: expected instruction"),
    (ABSOLUTE | {"score": 6}, "score 6, expected a whole number from 1 to 5"),
    (ABSOLUTE | {"score": True}, "score True"),
    (ABSOLUTE | {"score": 3.5}, "score 3.5"),
    (ABSOLUTE | {"score": "high"}, "score 'high'"),
    (ABSOLUTE | {"instruction": "  "}, "no instruction"),
    (ABSOLUTE | {"response": 7}, "no response"),
    (ABSOLUTE | {"rubric": {}}, "no criteria"),
    (ABSOLUTE | {"rubric": 3}, "rubric is a int"),
    (ABSOLUTE | {"rubric": {"criteria": "c", "score1_description": "one"}}, "1 score descriptions, expected 5 or none"),
    (RELATIVE | {"winner": "C"}, "winner 'C'"),
    ({"messages": []}, "at least two"),
    ({"messages": [{"role": "user", "content": "x"}] * 2}, "the last one must be the assistant's"),
    ({"messages": [{"role": "robot", "content": "x"}] * 2}, "role 'robot'"),
    ({"messages": "hello"}, "expected a list"),
    ({"text": 5}, "text is not a text"),
]


@pytest.mark.parametrize(("values", "reason"), BAD_ROWS)
def test_bad_rows(values: dict[str, object], reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_row(values)
    assert reason in str(caught.value)


def test_jsonl_names_bad_lines(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    good = json.dumps({"text": "good"}).encode()
    long = json.dumps({"text": "x" * LINE_BYTES_MAX}).encode()
    lines = [good, b"", b"{not json", b"[1]", b'{"text": "\xff"}', long, b"[" * 100_000, json.dumps(ABSOLUTE).encode()]
    file.write_bytes(b"\n".join(lines))
    report = read_rows(str(file))
    assert report.lines == (1, 8)
    assert dict(report.kinds) == {"text": 1, "absolute": 1}
    assert report.characters == (4, 1 + 1 + 6 + 10 + 1)
    assert report.rejected_count == 5
    reasons = dict(report.rejected)
    assert reasons[3].startswith("not JSON")
    assert reasons[4] == "a list, expected an object"
    assert reasons[5].startswith("not UTF-8 at byte")
    assert reasons[6] == f"longer than {LINE_BYTES_MAX} bytes, the limit of a line"
    assert reasons[7].startswith("not JSON")


def test_csv_names_lines_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text('instruction,response,criteria,feedback,score\n"a\nb",r,c,f,3\nx,r,c,f,9\ny,r,c,f\nz,r,c,f,5\n')
    report = read_rows(str(file))
    assert [row.score for row in report.rows if isinstance(row, AbsoluteRow)] == [3, 5]
    assert report.lines == (2, 6)
    assert report.rejected == (
        (4, "score '9', expected a whole number from 1 to 5"),
        (5, "a number of cells other than the header's 5"),
    )


@pytest.mark.parametrize("suffix", ["parquet", "json"])
def test_through_datasets(tmp_path: Path, suffix: str) -> None:
    datasets = pytest.importorskip("datasets")
    file = tmp_path / f"data.{suffix}"
    rows = [ABSOLUTE, ABSOLUTE | {"score": 8}]
    if suffix == "parquet":
        datasets.Dataset.from_list(rows).to_parquet(file)
    else:
        file.write_text(json.dumps(rows))
    report = read_rows(str(file))
    assert report.rows == (FORMS[0][1],)
    assert report.rejected == ((2, "score 8, expected a whole number from 1 to 5"),)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "has no usable row; it is empty"),
        ("bad.jsonl", b"{}\n", "has no usable row; line 1: keys none"),
        ("data.xml", b"<a/>", "suffix .xml, expected .jsonl"),
        ("data.parquet", b"not parquet", "can not be read through datasets"),
    ],
)
def test_unusable_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LearnerError) as caught:
        read_rows(str(tmp_path / name))
    assert message in str(caught.value)
    assert caught.value.exit_code == ExitCode.DATA


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(LearnerError, match="neither a file nor the name of a hub data set"):
        read_rows(str(tmp_path / "absent.jsonl"))


def test_too_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "ROWS_MAX", 2)
    file = tmp_path / "data.jsonl"
    file.write_text('{"text": "x"}\n' * 3)
    with pytest.raises(LearnerError, match="line 3: more than 2 rows"):
        read_rows(str(file))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the judge data shards are not beside this checkout")
def test_real_judge_data() -> None:
    for file in sorted(SHARED.glob("*.jsonl")):
        report = read_rows(str(file))
        assert report.rejected == ()
        assert set(report.kinds) == {"absolute"}
        assert all(isinstance(row, AbsoluteRow) and row.group and row.reference for row in report.rows[:1])
