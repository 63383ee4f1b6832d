"""Saying hello to a peer, and why it did not answer, in words a person can act on."""

import errno
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

import trio

from p2pfed.core.messages import Hello
from p2pfed.errors import P2pfedError, ProtocolMissing, RemoteError
from p2pfed.net.address import parse_address
from p2pfed.net.hello_desk import HELLO_PROTOCOL
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.session import exchange_hellos
from p2pfed.ports import PeerId

ASK_S = 4.0
"""For all addresses of one peer: a dial over a bad link takes 2 s."""
ADDRESSES_TRIED = 3


class Trouble(Enum):
    """Why a peer did not answer: what happened, and what to do about it at {address}, port {port}."""

    REFUSED = (
        "nothing listens at {address}",
        "start p2pfed there, or correct the address; a firewall may also refuse TCP port {port}",
    )
    SILENT = (
        "{address} does not answer within {seconds:g} s",
        "switch that device on, or open TCP port {port} in its firewall and forward it in its router",
    )
    NO_ROUTE = (
        "there is no way to {address} from here",
        "connect this device to that network, or give another address",
    )
    OTHER_IDENTITY = (
        "another peer than the one named answers at {address}",
        "ask its owner for the multiaddr it has now: the /p2p/ part has changed",
    )
    NO_NAME = ("the name in {address} cannot be resolved", "check the name, and this device's DNS")
    NOT_P2PFED = (
        "{address} answers, but not as p2pfed",
        "check the port: another libp2p program listens there, or an older p2pfed",
    )
    OTHER = ("{address}: {words}", "try again; if it stays, start the peer there anew")


@dataclass(frozen=True, slots=True)
class Target:
    """A peer to say hello to. `means`: how it is known, for people."""

    peer: PeerId
    addresses: tuple[str, ...]
    means: str


@dataclass(frozen=True, slots=True)
class Answer:
    """`hello` None: it did not answer, for the reason in `problem` and `remedy`."""

    target: Target
    address: str
    hello: Hello | None = None
    skew_s: float = 0.0
    """How far its clock is ahead of this device's."""
    round_trip_s: float = 0.0
    problem: str = ""
    remedy: str = ""

    @property
    def who(self) -> str:
        peer = short(self.target.peer)
        return f"{self.hello.name} ({peer})" if self.hello is not None and self.hello.name else peer


def short(peer: PeerId) -> str:
    """As much of a peer id as people compare."""
    return f"...{peer[-6:]}"


async def say_hello(transport: Libp2pTransport, own: Hello, target: Target) -> Answer:
    """The first address that answers, or why the last one tried did not."""
    last = Answer(target, "", problem="no address of it is known", remedy="give its multiaddr with --bootstrap")
    with trio.move_on_after(ASK_S):
        for address in target.addresses[:ADDRESSES_TRIED]:
            last = _failed(target, address, Trouble.SILENT)
            try:
                return await _exchange(transport, own, target, address)
            except P2pfedError as error:
                last = _failed(target, address, _trouble(error), str(error))
    return last


async def _exchange(transport: Libp2pTransport, own: Hello, target: Target, address: str) -> Answer:
    link = await transport.open(target.peer, address, HELLO_PROTOCOL)
    try:
        sent_at = time.time()
        theirs = await exchange_hellos(link, replace(own, time_s=sent_at))
        back_at = time.time()
    finally:
        await link.aclose()
    return Answer(target, address, theirs, theirs.time_s - (sent_at + back_at) / 2, back_at - sent_at)


def _failed(target: Target, address: str, trouble: Trouble, words: str = "") -> Answer:
    what, remedy = trouble.value
    shown = {"address": address, "port": _port(address), "seconds": ASK_S, "words": words}
    return Answer(target, address, problem=what.format(**shown), remedy=remedy.format(**shown))


def _port(address: str) -> int:
    try:
        return parse_address(address).port
    except P2pfedError:
        return 0


NO_ROUTE_ERRORS = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN)


def _trouble(error: P2pfedError) -> Trouble:
    if isinstance(error, ProtocolMissing):
        return Trouble.NOT_P2PFED
    if isinstance(error, RemoteError):
        return Trouble.OTHER_IDENTITY if "another peer" in str(error) else Trouble.NOT_P2PFED
    numbers = {each.errno for each in _causes(error) if isinstance(each, OSError)}
    if errno.ECONNREFUSED in numbers:
        return Trouble.REFUSED
    if errno.ETIMEDOUT in numbers or "did not answer" in str(error):
        return Trouble.SILENT
    if numbers & set(NO_ROUTE_ERRORS):
        return Trouble.NO_ROUTE
    if any(type(each).__name__ == "gaierror" for each in _causes(error)):
        return Trouble.NO_NAME
    return Trouble.OTHER


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for each in error.exceptions:
                yield from _causes(each)
        error = error.__cause__
