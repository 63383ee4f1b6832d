"""The log of a running peer on stderr: plain lines for people, one JSON object a line for programs.

The lines for people are thinned: what happens many times a minute is told once every LOG_INTERVAL_S,
the event log in the state folder has all of it.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TextIO

from p2pfed.cli.output import number
from p2pfed.runtime import Log

LOG_INTERVAL_S = 10.0
FREQUENT = ("trained", "mixed", "swap-begun", "swap-finished", "swap-declined")


def make_log(as_json: bool, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> Log:
    """Takes events (kind, fields) of any thread. The standard library does: structlog was 5 MB of a bootstrap peer."""
    stream = sys.stderr if stream is None else stream
    told: dict[str, float] = {}
    unheard: dict[str, int] = {}
    writing = threading.Lock()

    def log(kind: str, fields: Mapping[str, object]) -> None:
        if not as_json and kind in FREQUENT:
            now = clock()
            if now - told.get(kind, -LOG_INTERVAL_S) < LOG_INTERVAL_S:
                unheard[kind] = unheard.get(kind, 0) + 1
                return
            told[kind] = now
            if before := unheard.pop(kind, 0):
                fields = {**fields, "and before": f"{before} more"}
        line = _json(kind, fields) if as_json else _line(kind, fields)
        with writing:
            stream.write(line + "\n")
            stream.flush()

    return log


def _json(kind: str, fields: Mapping[str, object]) -> str:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({**fields, "event": kind, "time": now}, default=str)


def _line(kind: str, fields: Mapping[str, object]) -> str:
    """`21:04:05  neighbour linked   name lift-3, address /ip4/..`"""
    values = ", ".join(
        f"{name.replace('_', ' ')} {_value(value)}" for name, value in fields.items() if value not in (None, "")
    )
    return f"{datetime.now():%H:%M:%S}  {kind.replace('-', ' '):<18} {values}".rstrip()


def _value(value: object) -> str:
    text = number(value + 0.0) if isinstance(value, float) else str(value)
    # A peer's words may be in here: one line, no control characters.
    return "".join(letter if letter.isprintable() else "?" for letter in text)
