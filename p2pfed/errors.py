"""Whose fault an error is decides its type, and each has an exit code with a page in docs/exit-codes/.

ConfigError: what the user wrote. LocalError: this device (disk, port, memory, missing package).
LearnerError: the model or its data. RemoteError: a peer broke the protocol, drop that peer.
TransportError: the network failed, try again. Anything else that escapes is our bug and crashes.
Messages give the value and the limit and fit in one sentence.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of the command; the number is stable, `docs/exit-codes/` explains each."""

    OK = 0
    BUG = 1
    USAGE = 2
    CONFIG = 10
    DATA = 11
    IDENTITY = 12
    PORT = 13
    DISK = 14
    MODEL = 15
    MEMORY = 16
    HOME_LOCKED = 17
    NOT_RUNNING = 18
    EXTRA_MISSING = 19
    CHECKPOINT = 20
    QUANTISATION = 21
    TRANSPORT = 22
    REMOTE = 23
    TRAINING = 24
    DEMO = 25
    INTERRUPTED = 130


class P2pfedError(Exception):
    """Base of all errors this package raises on purpose; `exit_code` is what the command ends with."""

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, message: str, exit_code: ExitCode | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class ConfigError(P2pfedError):
    """What the user wrote is not right; the message names the key, the value and the remedy."""

    exit_code = ExitCode.CONFIG


class LocalError(P2pfedError):
    """This device cannot do it: disk, port, lock, missing package, unreadable identity."""

    exit_code = ExitCode.DISK


class LearnerError(P2pfedError):
    """The model or its data cannot be used."""

    exit_code = ExitCode.MODEL


class RemoteError(P2pfedError):
    """A peer broke the protocol. That peer is dropped and counted; the node goes on."""

    exit_code = ExitCode.REMOTE


class TransportError(P2pfedError):
    """The network failed: nobody's fault, worth another try."""

    exit_code = ExitCode.TRANSPORT


class ProtocolMissing(TransportError):
    """The peer answers but does not speak that protocol: most often another network."""

    address: str = ""
    """Where it answers, if that is known."""
