"""Why a dial failed, in words for people: what the system said, and what that most often means."""

import errno
import socket
from collections.abc import Iterator, Mapping
from types import MappingProxyType

WORDS: Mapping[int, str] = MappingProxyType(
    {
        errno.ECONNREFUSED: "nothing listens there (connection refused)",
        errno.ETIMEDOUT: "no answer: the host is off, or a firewall drops the port",
        errno.EHOSTUNREACH: "no way to that host",
        errno.ENETUNREACH: "no way to that network",
        errno.ECONNRESET: "the other side broke it off",
    }
)


def words_of(error: BaseException) -> str:
    """Of an OSError, or of the group of them that happy eyeballs leave behind."""
    found: dict[str, None] = {}
    for each in _causes(error):
        if isinstance(each, socket.gaierror):
            found["the name does not resolve"] = None
        elif isinstance(each, OSError) and (words := WORDS.get(each.errno or 0)):
            found[words] = None
    return ", ".join(found) or str(error) or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _causes(each)
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)
