"""The event log: every whole line is read back, half ones are not, and its size has an end."""

import json
import os
from pathlib import Path

import pytest

from p2pfed.errors import ExitCode, LocalError
from p2pfed.journal import TEXT_CHARS_MAX, Entry, Journal, read_journal, rotated


def kinds(path: Path) -> list[str]:
    return [entry.kind for entry in read_journal(path)]


def test_what_is_written_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    fields = {"text": "é\n\x1b", "count": 3, "loss": 0.25, "flag": True, "none": None}
    with Journal(path) as journal:
        journal.write("swap-done", fields, 12.3456)
        journal.write("stop", {}, 13.0)
    assert list(read_journal(path)) == [Entry(12.346, "swap-done", fields), Entry(13.0, "stop", {})]
    assert len(path.read_bytes().splitlines()) == 2


def test_no_file_is_an_empty_journal(tmp_path: Path) -> None:
    assert list(read_journal(tmp_path / "none")) == []


def test_a_half_last_line_is_left_out_and_the_next_writer_goes_on_below(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.write("one", {}, 1.0)
        journal.write("two", {}, 2.0)
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        before = kinds(path)
        assert before == ["one", "two"][: whole[:cut].count(b"\n")]
        with Journal(path) as journal:
            journal.write("three", {}, 3.0)
        after = kinds(path)
        # A line cut just before its end is whole but for its newline, which the next writer adds.
        assert after in ([*before, "three"], ["one", "three"], ["one", "two", "three"])


def test_one_rotation_bounds_the_size(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, bytes_max=2000) as journal:
        for at in range(500):
            journal.write("event", {"at": at}, float(at))
            assert path.stat().st_size <= 2000
    assert rotated(path).stat().st_size <= 2000
    seen = [entry.fields["at"] for entry in read_journal(path)]
    assert seen == list(range(500))[-len(seen) :]
    assert len(seen) > 20
    assert sorted(each.name for each in tmp_path.iterdir()) == ["journal", "journal.1"]


def test_values_that_json_or_a_screen_cannot_take(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        fields = {"nan": float("nan"), "inf": float("-inf"), "long": "x" * 10_000, "half": "\ud800", "kind": "fake"}
        journal.write("odd", fields, 1.0)
    (entry,) = read_journal(path)
    assert entry.kind == "odd"
    assert entry.fields["nan"] is None
    assert entry.fields["inf"] is None
    assert entry.fields["long"] == "x" * TEXT_CHARS_MAX
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_foreign_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(
        b"\xff\n[]\n{}\n" + b"[" * 90_000 + b"\n" + b'{"time_s":"x","kind":"a"}\n{"time_s":1,"kind":"b"}\n'
    )
    assert kinds(path) == ["b"]


def test_a_full_disk_costs_entries_and_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    real = os.write
    room = 200

    def filling(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        taken = real(descriptor, data[:room])
        room -= taken
        return taken

    monkeypatch.setattr(os, "write", filling)
    with Journal(path) as journal:
        for at in range(20):
            journal.write("event", {"at": at}, 1.0)
        assert journal.dropped > 10
        dropped = journal.dropped
        room = 10_000
        journal.write("after", {}, 2.0)
        assert journal.dropped == 0
    entries = list(read_journal(path))
    assert [entry.kind for entry in entries[-2:]] == ["journal-dropped", "after"]
    assert entries[-2].fields == {"entries": dropped}
    assert [entry.fields["at"] for entry in entries[:-2]] == list(range(20 - dropped))


def test_a_place_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="Is a directory") as caught:
        Journal(tmp_path)
    assert caught.value.exit_code is ExitCode.DISK
    with pytest.raises(LocalError, match="cannot be read"):
        list(read_journal(tmp_path))
