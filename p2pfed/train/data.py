"""Rows out of a file or a hub data set: JSONL and CSV read here, Parquet, JSON and the hub through `datasets`.

JSONL and CSV are read here so that a rejected row is named by its line in the file. A bad row is rejected
with a reason and the others are used; data without a usable row is an error. Everything read is bounded.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pfed.errors import ExitCode, LearnerError, LocalError
from p2pfed.train.rows import Row, RowError, parse_row, row_characters, row_kind

LINE_BYTES_MAX = 1024 * 1024
"""One JSONL line or CSV row: fifty times the text that fills the longest sequence in use (4,096 tokens)."""
ROWS_MAX = 250_000
"""Rows of one data set: the largest public one for judges (Preference-Collection) has 199,760."""
REJECTED_MAX = 1_000
"""Rejected rows kept with their reason; more than a person reads, and a wrong file stays cheap."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")


@dataclass(frozen=True, slots=True)
class DataReport:
    """What was understood of the data. `lines[i]` is where `rows[i]` came from, counted from 1."""

    source: str
    rows: tuple[Row, ...]
    lines: tuple[int, ...]
    rejected: tuple[tuple[int, str], ...]
    """(line, reason) of the first REJECTED_MAX rejected rows."""
    rejected_count: int
    kinds: Mapping[str, int]
    characters: tuple[int, ...]
    """Length of each row."""


def read_rows(source: str) -> DataReport:
    """Rows of a file (.jsonl, .json, .csv, .parquet) or of a hub data set ("owner/name", "owner/name:split").

    Raises LearnerError (ExitCode.DATA) where there is no usable row.
    """
    rows: list[Row] = []
    lines: list[int] = []
    rejected: list[tuple[int, str]] = []
    rejected_count = 0
    for line, values in _records(source):
        try:
            if isinstance(values, RowError):
                raise values
            row = parse_row(values)
        except RowError as reason:
            rejected_count += 1
            if len(rejected) < REJECTED_MAX:
                rejected.append((line, str(reason)))
            continue
        if len(rows) == ROWS_MAX:
            raise LearnerError(f"{source} line {line}: more than {ROWS_MAX} rows, the limit", ExitCode.DATA)
        rows.append(row)
        lines.append(line)
    if not rows:
        first = f"; line {rejected[0][0]}: {rejected[0][1]}" if rejected else "; it is empty"
        raise LearnerError(f"{source} has no usable row{first}", ExitCode.DATA)
    return DataReport(
        source,
        tuple(rows),
        tuple(lines),
        tuple(rejected),
        rejected_count,
        dict(Counter(map(row_kind, rows))),
        tuple(map(row_characters, rows)),
    )


def _records(source: str) -> Iterator[tuple[int, Mapping[str, object] | RowError]]:
    path = Path(source).expanduser()
    try:
        if path.is_file():
            match path.suffix.lower():
                case ".jsonl" | ".ndjson":
                    yield from _jsonl(path)
                case ".csv":
                    yield from _csv(path)
                case ".parquet":
                    yield from _through_datasets(source, "parquet", {"data_files": str(path)}, "train")
                case ".json":
                    yield from _through_datasets(source, "json", {"data_files": str(path)}, "train")
                case suffix:
                    raise LearnerError(
                        f"{source}: suffix {suffix or 'none'}, expected .jsonl, .json, .csv or .parquet", ExitCode.DATA
                    )
            return
    except OSError as error:
        raise LearnerError(f"{source} can not be read: {error.strerror or error}", ExitCode.DATA) from error
    name, _, split = source.partition(":")
    if path.exists() or not _HUB_NAME.fullmatch(name):
        raise LearnerError(f"{source} is neither a file nor the name of a hub data set (owner/name)", ExitCode.DATA)
    yield from _through_datasets(source, name, {}, split or "train")


def _jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, object] | RowError]]:
    with path.open("rb") as file:
        line = 0
        while raw := file.readline(LINE_BYTES_MAX + 1):
            line += 1
            if len(raw) > LINE_BYTES_MAX:
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(LINE_BYTES_MAX)
                yield line, RowError(f"longer than {LINE_BYTES_MAX} bytes, the limit of a line")
                continue
            if raw.strip():
                yield line, _json_object(raw)


def _json_object(raw: bytes) -> Mapping[str, object] | RowError:
    try:
        values = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return RowError(f"not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        return RowError(f"not JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return RowError("not JSON: nested too deep")
    if not isinstance(values, dict):
        return RowError(f"a {type(values).__name__}, expected an object")
    return values


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, object] | RowError]]:
    """Every cell is text. A row is named by the line it begins on: cells may hold line breaks."""
    with path.open(encoding="utf-8-sig", newline="", errors="strict") as file:
        reader = csv.DictReader(_bounded_lines(file), strict=True)
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError) as error:
                # What follows a broken quote can not be told apart from its row: reading ends here.
                yield line, RowError(f"not CSV from here on: {error}")
                return
            line = max(line, 2)
            if None in values or None in values.values():
                yield line, RowError(f"a number of cells other than the header's {len(reader.fieldnames or ())}")
                continue
            yield line, values


def _bounded_lines(file: Any) -> Iterator[str]:
    while text := file.readline(LINE_BYTES_MAX):
        if len(text) == LINE_BYTES_MAX and not text.endswith("\n"):
            raise csv.Error(f"a line longer than {LINE_BYTES_MAX} characters, the limit")
        yield text


def _through_datasets(
    source: str, loader: str, options: Mapping[str, str], split: str
) -> Iterator[tuple[int, Mapping[str, object] | RowError]]:
    """Streaming: rows are read as they are used and no copy of the data is put into a cache."""
    try:
        import datasets
        import pyarrow  # type: ignore[import-untyped]
    except ImportError as error:
        raise LocalError(
            f"{source} needs the package datasets: pip install 'p2pfed[node]'", ExitCode.EXTRA_MISSING
        ) from error
    try:
        yield from enumerate(datasets.load_dataset(loader, split=split, streaming=True, **options), start=1)
    except (
        OSError,
        ValueError,
        RuntimeError,
        datasets.exceptions.DatasetsError,
        pyarrow.ArrowException,
    ) as error:
        text = " ".join(str(error).split())[:200]
        raise LearnerError(f"{source} can not be read through datasets: {text}", ExitCode.DATA) from error
