"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum

from p2pfed.errors import ExitCode


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    """Something will not work, but a node can run."""
    FAIL = "fail"
    """A node, or this network's node, cannot run."""


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    subject: str
    message: str
    remedy: str = ""
    exit_code: ExitCode = ExitCode.OK
    """What a node would end with; for failures only."""


def ok(subject: str, message: str) -> Finding:
    return Finding(Level.OK, subject, message)


def warn(subject: str, message: str, remedy: str) -> Finding:
    return Finding(Level.WARN, subject, message, remedy)


def fail(subject: str, message: str, remedy: str, exit_code: ExitCode) -> Finding:
    return Finding(Level.FAIL, subject, message, remedy, exit_code)
