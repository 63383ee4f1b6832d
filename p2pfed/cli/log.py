"""The log of a running peer on stderr: plain lines for people, one JSON object a line for programs.

The lines for people are thinned: what happens many times a minute is told once every LOG_INTERVAL_S,
the event log in the state folder has all of it.
"""

import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

import structlog

from p2pfed.cli.output import number
from p2pfed.runtime import Log

LOG_INTERVAL_S = 10.0
FREQUENT = ("trained", "mixed", "swap-begun", "swap-finished", "swap-declined")


def make_log(as_json: bool, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> Log:
    """Takes events (kind, fields) of any thread."""
    stream = sys.stderr if stream is None else stream
    logger = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[
            structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json, key="time"),
            structlog.processors.JSONRenderer() if as_json else _line,
        ],
    )
    told: dict[str, float] = {}
    unheard: dict[str, int] = {}

    def log(kind: str, fields: Mapping[str, object]) -> None:
        if not as_json and kind in FREQUENT:
            now = clock()
            if now - told.get(kind, -LOG_INTERVAL_S) < LOG_INTERVAL_S:
                unheard[kind] = unheard.get(kind, 0) + 1
                return
            told[kind] = now
            if before := unheard.pop(kind, 0):
                fields = {**fields, "and before": f"{before} more"}
        logger.msg(kind, **dict(fields))

    return log


def _line(_logger: object, _method: str, event: Mapping[str, object]) -> str:
    """`21:04:05  neighbour linked   name lift-3, address /ip4/..`"""
    values = ", ".join(
        f"{name.replace('_', ' ')} {_value(value)}"
        for name, value in event.items()
        if name not in ("event", "time") and value not in (None, "")
    )
    return f"{event['time']}  {str(event['event']).replace('-', ' '):<18} {values}".rstrip()


def _value(value: object) -> str:
    text = number(value + 0.0) if isinstance(value, float) else str(value)
    # A peer's words may be in here: one line, no control characters.
    return "".join(letter if letter.isprintable() else "?" for letter in text)
