"""The log on stderr: thinned for people, whole for programs, one line an event."""

import io
import json

from p2pfed.cli.log import LOG_INTERVAL_S, make_log


def test_frequent_events_are_counted_not_told() -> None:
    stream, now = io.StringIO(), [0.0]
    log = make_log(False, stream, lambda: now[0])
    for steps in range(5):
        log("trained", {"steps": steps, "loss": 1.23456789})
    log("peer-refused", {"peer": "x"})
    now[0] = LOG_INTERVAL_S
    log("trained", {"steps": 5})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert "steps 0, loss 1.235" in lines[0]
    assert lines[2].endswith("steps 5, and before 4 more")


def test_programs_get_everything() -> None:
    stream = io.StringIO()
    log = make_log(True, stream)
    for steps in range(3):
        log("trained", {"steps": steps})
    assert [json.loads(line)["steps"] for line in stream.getvalue().splitlines()] == [0, 1, 2]


def test_a_peer_cannot_write_lines_or_colours() -> None:
    stream = io.StringIO()
    make_log(False, stream)("neighbour-linked", {"name": "a\n00:00:00 stopped\x1b[31m"})
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()
