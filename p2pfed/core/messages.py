"""What peers say to each other, and the bounds of each field. One frozen dataclass a message.

The wire form of these is `wire.codec`'s business and is written down in docs/protocol.md.
Nothing here is trusted: `wire.codec` checks types and bounds before it makes one of these.
"""

from dataclasses import dataclass
from enum import StrEnum

from p2pfed.ports import Encoding, PeerId

PROTOCOL_VERSION = 2
PART_BYTES = 256 * 1024
"""One part of a version: 1 s at 2 Mbit/s, so pings behind it stay timely; 32 bytes of hash each."""
PARTS_MAX = 4096
"""1 GiB of adapter: six times the largest planned one (7B, all linear layers, r 16, float32)."""
DIGEST_BYTES = 32
ADDRESSES_MAX = 16
"""Addresses kept and told of one peer: more interfaces than a device has, less than a flood."""
ADDRESS_CHARS_MAX = 256
PEERS_TOLD_MAX = 32
"""Peers in one answer: a quarter of a full view, under one part's worth of bytes."""
PARTS_ASKED_MAX = 16
"""Parts of one PartAsk: the asker's window, so that an answerer's queue stays under 4 MiB."""
RETRY_AFTER_S_MAX = 3600.0
"""Longest a peer may ask another to leave it alone."""
TEXT_CHARS_MAX = 256
FIELDS_MAX = 64


class Role(StrEnum):
    """What a peer does in the network."""

    NODE = "node"
    BOOTSTRAP = "bootstrap"
    OBSERVER = "observer"


class DeclineReason(StrEnum):
    BUSY = "busy"
    NOT_READY = "not-ready"
    SIZE = "size"
    STOPPING = "stopping"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame each way, on a gossip link and on the network-independent hello protocol.

    `network` and `fingerprint` are sorted (field, value) pairs that must be equal on both sides;
    the first that differs is what a refusal names. `instance` is drawn anew at each start.
    """

    version: int
    network_id: str
    network: tuple[tuple[str, str], ...]
    fingerprint: tuple[tuple[str, str], ...]
    role: Role
    encoding: Encoding
    """The finest form of adapter values this peer wants on its links; of two wishes the coarser counts."""
    instance: int
    name: str
    addresses: tuple[str, ...]
    time_s: float


@dataclass(frozen=True, slots=True)
class Ping:
    nonce: int


@dataclass(frozen=True, slots=True)
class Pong:
    nonce: int


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """Where a peer was last reached. Hearsay until its handshake proves it."""

    peer: PeerId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PeersAsk:
    count: int


@dataclass(frozen=True, slots=True)
class PeersTold:
    peers: tuple[PeerRecord, ...]


@dataclass(frozen=True, slots=True)
class Goodbye:
    """A clean stop: forget me without suspicion."""

    reason: str


@dataclass(frozen=True, slots=True)
class IdentityInUse:
    """Two live links showed this peer id with different instances; sent to both."""

    instance: int


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable adapter version. `digest` is SHA-256 over size, part size and all part hashes."""

    encoding: Encoding

    digest: bytes
    size: int
    part_size: int
    parts: tuple[bytes, ...]
    steps: int
    examples: int
    mixes: int


@dataclass(frozen=True, slots=True)
class Tally:
    """One node's share of the network-wide averages (`core.estimate`). All values finite, none negative."""

    epoch: int
    """Below 2^32; begins anew after that."""
    leader: int
    """Of the counting that this share belongs to: below 2^53, the smaller one wins."""
    shares: tuple[float, ...]
    """Mass (1 at the leader's start, so the mean is 1/N), then the averages in the order of `own`."""
    own: tuple[float, ...]
    """What this node itself puts in: loss, losses (1 where it has one, else 0), examples, squared norm, squared
    swap distance; 0 while unknown."""


OWN_VALUES = 5
"""Length of `Tally.own`; `Tally.shares` has one more."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a partner must know to mix, besides the version."""

    settled: bool
    """False until this run of the node has mixed: it may have been away for long."""
    weight: int
    """Rows of data behind it where the network weighs by examples, else 1."""
    tally: Tally


@dataclass(frozen=True, slots=True)
class SwapOffer:
    """Initiator to responder: let us average; this is mine."""

    swap: int
    version: Version
    terms: Terms


@dataclass(frozen=True, slots=True)
class SwapAccept:
    swap: int
    version: Version
    terms: Terms


@dataclass(frozen=True, slots=True)
class SwapDecline:
    swap: int
    reason: DeclineReason
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class SwapReady:
    """I hold and have admitted your version."""

    swap: int


@dataclass(frozen=True, slots=True)
class SwapCommit:
    """Initiator: both are ready, I mix; so must you."""

    swap: int


@dataclass(frozen=True, slots=True)
class SwapDone:
    """Responder: I mixed too. Without it the initiator counts the swap as half done."""

    swap: int


@dataclass(frozen=True, slots=True)
class SwapAbort:
    swap: int
    reason: str


@dataclass(frozen=True, slots=True)
class VersionAsk:
    """Which version would you give an observer now, in this encoding?"""

    encoding: Encoding


@dataclass(frozen=True, slots=True)
class VersionTold:
    """`version` is None before the first one is published."""

    version: Version | None


@dataclass(frozen=True, slots=True)
class PartAsk:
    digest: bytes
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    digest: bytes
    index: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PartMissing:
    """That version is no longer kept; ask for the current one."""

    digest: bytes


Message = (
    Hello
    | Ping
    | Pong
    | PeersAsk
    | PeersTold
    | Goodbye
    | IdentityInUse
    | SwapOffer
    | SwapAccept
    | SwapDecline
    | SwapReady
    | SwapCommit
    | SwapDone
    | SwapAbort
    | VersionAsk
    | VersionTold
    | PartAsk
    | Part
    | PartMissing
)
