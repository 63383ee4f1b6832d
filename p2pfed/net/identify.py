"""Identify and ping, which other libp2p implementations ask for before anything else (libp2p specs, identify and ping).

Read-only: a peer is told what this one speaks and how it is seen, nothing is pushed, and nothing told is believed
further than it can be checked. Nodes and bootstrap peers serve both; a peer of ours never needs an answer.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from p2pfed import __version__
from p2pfed.net import hardening  # noqa: F401  before libp2p: it leaves out parts of it

# isort: split
from google.protobuf.message import DecodeError
from libp2p.identity.identify.pb import identify_pb2

from p2pfed.errors import RemoteError
from p2pfed.net.address import ED25519_ID_PREFIX, base58_decode
from p2pfed.net.binary_address import address_bytes, addresses_of
from p2pfed.net.raw_stream import RawStream
from p2pfed.ports import PeerId

IDENTIFY_PROTOCOL = "/ipfs/id/1.0.0"
PING_PROTOCOL = "/ipfs/ping/1.0.0"
PROTOCOL_VERSION = "ipfs/0.1.0"
"""What the whole family says."""
AGENT = f"p2pfed/{__version__}"
IDENTIFY_BYTES_MAX = 16 * 1024
"""Others send a signed record besides: 4 KiB are usual."""
IDENTIFY_S = 10.0
PROTOCOLS_MAX = 128
TEXT_CHARS_MAX = 128
PING_BYTES = 32
PING_STREAMS_MAX = 2
"""Of one peer, as the specification says."""
PING_INTERVAL_S = 0.05
"""Between two echoes on a stream: twenty a second are enough to measure anything."""
PING_QUIET_S = 60.0
PINGS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Identification:
    """What a peer says of itself."""

    agent: str
    protocols: tuple[str, ...]
    addresses: tuple[str, ...]
    """Listen addresses that this peer could dial."""
    observed: str
    """How it sees us; empty where it says nothing we understand."""


class RawTransport(Protocol):
    """What of `net.libp2p.Libp2pTransport` is needed here."""

    @property
    def peer(self) -> PeerId: ...
    def serve_raw(self, protocol: str, handler: Callable[[RawStream], Awaitable[None]]) -> None: ...
    async def open_raw(self, peer: PeerId | None, address: str, protocol: str) -> RawStream: ...


def serve_identify(
    transport: RawTransport, addresses: Callable[[], Sequence[str]], protocols: Callable[[], Sequence[str]]
) -> None:
    """Answer both protocols. Call before the transport runs; what is told is asked for each time."""
    pinging: Counter[PeerId] = Counter()

    async def tell(stream: RawStream) -> None:
        told: Any = identify_pb2.Identify(
            protocol_version=PROTOCOL_VERSION,
            agent_version=AGENT,
            public_key=base58_decode(transport.peer).removeprefix(ED25519_ID_PREFIX[:2]),
            listen_addrs=[raw for raw in map(address_bytes, addresses()) if raw is not None],
            protocols=list(protocols())[:PROTOCOLS_MAX],
        )
        if (observed := address_bytes(stream.address)) is not None:
            told.observed_addr = observed
        with trio.move_on_after(IDENTIFY_S):
            await stream.write_message(told.SerializeToString())

    async def echo(stream: RawStream) -> None:
        if pinging[stream.peer] >= PING_STREAMS_MAX:
            raise RemoteError(f"{PING_STREAMS_MAX} ping streams are open already")
        pinging[stream.peer] += 1
        try:
            await _echo(stream)
        finally:
            pinging[stream.peer] -= 1
            if not pinging[stream.peer]:
                del pinging[stream.peer]

    transport.serve_raw(IDENTIFY_PROTOCOL, tell)
    transport.serve_raw(PING_PROTOCOL, echo)


async def identify(transport: RawTransport, peer: PeerId, address: str) -> Identification:
    """Ask a peer. Raises TransportError or RemoteError; the caller limits the time."""
    stream = await transport.open_raw(peer, address, IDENTIFY_PROTOCOL)
    try:
        told: Any = identify_pb2.Identify()
        try:
            told.ParseFromString(await stream.read_message(IDENTIFY_BYTES_MAX))
        except DecodeError as error:
            raise RemoteError(f"not an answer of identify: {error}") from error
    finally:
        await stream.reset()
    observed = addresses_of([told.observed_addr], transport.peer)
    return Identification(
        agent=_clean(told.agent_version),
        protocols=tuple(_clean(each) for each in list(told.protocols)[:PROTOCOLS_MAX]),
        addresses=addresses_of(list(told.listen_addrs), peer),
        observed=observed[0] if observed else "",
    )


async def _echo(stream: RawStream) -> None:
    for _ in range(PINGS_MAX):
        data = b""
        with trio.move_on_after(PING_QUIET_S):
            while len(data) < PING_BYTES:
                data += await stream.read_some(PING_BYTES - len(data))
            await stream.write(data)
        if len(data) < PING_BYTES:
            return
        await trio.sleep(PING_INTERVAL_S)


def _clean(text: str) -> str:
    return "".join(letter for letter in text[:TEXT_CHARS_MAX] if letter.isprintable())
