"""The event log of a node: one JSON object a line, bounded, readable after a kill at any instant.

`{"time_s": ..., "kind": "...", <fields>}`. When the file would pass its bound it becomes `<name>.1`,
and the `.1` before it goes. Lines are not synced one by one (flash wears): a power cut may take
the last seconds, a killed process nothing. A full disk costs entries, never the node: they are
counted, and the count is the next entry that fits.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from p2pfed.errors import ExitCode, LocalError

JOURNAL_BYTES_MAX = 8 * 1024 * 1024
"""80,000 entries of 100 bytes; the disk holds at most twice that, with the rotated file."""
TEXT_CHARS_MAX = 1024
"""Of one value: an error sentence, not a dump."""
LINE_BYTES_MAX = 256 * 1024
"""Longer lines are not ours and are skipped when read."""
RESERVED = ("time_s", "kind")
DROPPED_KIND = "journal-dropped"

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Entry:
    time_s: float
    kind: str
    fields: Mapping[str, Value]


class Journal:
    """Appends entries. One writer a file; `close` may be called twice."""

    def __init__(self, path: Path, bytes_max: int = JOURNAL_BYTES_MAX) -> None:
        """Raises LocalError (disk) where the file cannot be opened."""
        self.path = path
        self.dropped = 0
        """Entries that did not fit on the disk since the last one that did."""
        self._bytes_max = bytes_max
        try:
            self._descriptor = self._open()
            self._size, self._torn = _state(self._descriptor)
        except OSError as error:
            raise LocalError(f"journal {path} cannot be opened: {error.strerror}", ExitCode.DISK) from error

    def write(self, kind: str, fields: Mapping[str, Value], time_s: float) -> None:
        """Never raises for the disk's sake."""
        if self.dropped and self._append(_line(DROPPED_KIND, {"entries": self.dropped}, time_s)):
            self.dropped = 0
        if self.dropped or not self._append(_line(kind, fields, time_s)):
            self.dropped += 1

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _append(self, line: bytes) -> bool:
        """True where the whole line is in the file."""
        if self._torn:
            line = b"\n" + line
        try:
            if self._size and self._size + len(line) > self._bytes_max:
                self._rotate()
                line = line.lstrip(b"\n")
            written = os.write(self._descriptor, line)
        except OSError:
            return False
        self._size += written
        self._torn = written < len(line)
        return not self._torn

    def _rotate(self) -> None:
        self.path.replace(rotated(self.path))
        fresh = self._open()
        os.close(self._descriptor)
        self._descriptor, self._size, self._torn = fresh, 0, False


def rotated(path: Path) -> Path:
    """Where the older half of a journal lies."""
    return path.with_name(path.name + ".1")


def read_journal(path: Path) -> Iterator[Entry]:
    """Oldest first, the rotated file included; half and foreign lines are left out."""
    for each in (rotated(path), path):
        try:
            file = each.open("rb")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise LocalError(f"journal {each} cannot be read: {error.strerror}", ExitCode.DISK) from error
        with file:
            while line := file.readline(LINE_BYTES_MAX):
                if entry := _entry(line):
                    yield entry


def _state(descriptor: int) -> tuple[int, bool]:
    """Size, and whether the last line is torn: its writer was killed within it."""
    size = os.fstat(descriptor).st_size
    return size, size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _line(kind: str, fields: Mapping[str, Value], time_s: float) -> bytes:
    values = {name: _plain(value) for name, value in fields.items() if name not in RESERVED}
    entry = {"time_s": round(time_s, 3), "kind": kind, **values}
    return json.dumps(entry, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _plain(value: Value) -> Value:
    """JSON has no NaN; a text may be a stranger's."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value[:TEXT_CHARS_MAX] if isinstance(value, str) else value


def _entry(line: bytes) -> Entry | None:
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    time_s, kind = found.pop("time_s", None), found.pop("kind", None)
    if not isinstance(time_s, int | float) or not isinstance(kind, str):
        return None
    return Entry(float(time_s), kind, found)
