"""What the core's interpreters need from the outside, as Protocols: a network, a learner, a mixer.

Implementations: `net.libp2p.Libp2pTransport` and `net.memory.MemoryTransport` (one test suite for
both); `train.learner.LoraLearner` or a user's own; `mixer.AdapterMixer` around any learner, and toys in `sim`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NewType, Protocol, TypeAlias

if TYPE_CHECKING:  # a bootstrap peer does without numpy
    import numpy
    import numpy.typing

    Values: TypeAlias = Mapping[str, numpy.typing.NDArray[numpy.float32]]
    """Named float32 tensors of an adapter, in any order."""

PeerId = NewType("PeerId", str)
"""A libp2p peer id in base58 text form ("12D3Koo..."): the hash of the public key."""

FRAME_BYTES_MAX = 512 * 1024
"""Largest frame either way: one part of an adapter (256 KiB) and its envelope, with room."""


class Link(Protocol):
    """One ordered, authenticated, encrypted stream of frames to one peer.

    A frame is at most FRAME_BYTES_MAX bytes. One task may send while another receives.
    """

    @property
    def peer(self) -> PeerId: ...

    @property
    def address(self) -> str:
        """The remote multiaddr as seen by this side, for people to read."""

    @property
    def outbound(self) -> bool:
        """True where this side opened the stream."""

    async def send(self, frame: bytes) -> None:
        """Send one frame. Raises TransportError when the link is gone. Cancelling is safe."""

    async def receive(self) -> bytes:
        """The next frame. Raises TransportError at the end, RemoteError when a frame breaks the cap."""

    async def aclose(self) -> None:
        """End the stream; never raises, may be called twice."""


class Transport(Protocol):
    """Opens and serves links by protocol id. Knows nothing of what they carry."""

    @property
    def peer(self) -> PeerId:
        """This device's own peer id."""

    def addresses(self) -> Sequence[str]:
        """Own listen multiaddrs, concrete (never 0.0.0.0), without the /p2p/ part. Empty before `running`."""

    def listening(self) -> Sequence[str]:
        """What it is bound to: multiaddrs with 0.0.0.0 and :: as such, and real ports. Empty before `running`."""

    def refresh_addresses(self) -> bool:
        """Find out anew what `addresses` are, after the interfaces changed. True where they are others now."""

    def serve(self, protocol: str, handler: Callable[[Link], Awaitable[None]]) -> None:
        """Call before `running`. An exception in a handler closes that link and nothing else."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Listens while the block runs; on leaving closes every connection within 2 s."""

    async def open(self, peer: PeerId | None, address: str, protocol: str) -> Link:
        """Dial one address (if not connected yet) and open a stream.

        `peer` None: whoever answers there; the id is read from the handshake.
        Raises TransportError (nobody answers in 10 s), RemoteError (another peer id answers), or
        ProtocolMissing when the peer does not speak `protocol`.
        """

    async def disconnect(self, peer: PeerId) -> None:
        """Close every connection to that peer; never raises."""


class Encoding(StrEnum):
    """How adapter values travel, coarsest first. The integer ones hold the difference to the shared start values."""

    INT4 = "int4"
    INT8 = "int8"
    FLOAT16 = "float16"
    FLOAT32 = "float32"

    def coarser(self, other: "Encoding") -> "Encoding":
        """Of two wishes the one that costs less."""
        return min(self, other, key=list(Encoding).index)


@dataclass(frozen=True, slots=True)
class StepReport:
    """One local optimizer step."""

    loss: float
    examples: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What a learner has done since the network's start, over all its runs."""

    steps: int
    examples: int
    mixes: int = 0
    """Swaps mixed into the adapter; an adopted adapter brings its own count. A learner leaves it 0, a mixer counts."""


@dataclass(frozen=True, slots=True)
class MixReport:
    """What a mix did. Distances are L2 norms over all adapter values."""

    distance: float
    """Between the two versions that were exchanged."""
    norm: float
    """Of the own adapter's difference to the shared start values, after the mix."""
    kept: float = 1.0
    """Share of the difference that clipping left: 1.0 where it was short enough."""


class Learner(Protocol):
    """Trains an adapter. Called from one worker thread at a time, never concurrently.

    Knows nothing of peers, bytes or encodings: `mixer.AdapterMixer` does that for any learner.
    """

    def progress(self) -> Progress:
        """Local steps and examples so far, restored by `load`."""

    def fingerprint(self) -> Mapping[str, str]:
        """What must be equal among peers and is not in the network file, such as digests of base and tokenizer."""

    def step(self) -> StepReport:
        """One optimizer step. Raises LearnerError."""

    def start(self) -> "Values":
        """The values all nodes of the network start from; always the same names and shapes as `values`."""

    def values(self) -> "Values":
        """A copy of the adapter's current values."""

    def move(self, by: "Values") -> None:
        """adapter += by. Optimizer moments stay as they are."""

    def save(self) -> bytes:
        """Everything needed to go on after a crash: adapter, optimizer moments, data cursor, step count."""

    def load(self, checkpoint: bytes) -> None:
        """Restore what `save` gave. Raises LearnerError when it does not fit this model."""


class Momentum(Protocol):
    """What a Learner offers besides, where `gossip.momentum` is not "local". Names as in `values`."""

    def first_moment(self) -> "Values":
        """A copy of the optimizer's first moment; zeros before the first step."""

    def move_first_moment(self, by: "Values") -> None:
        """first moment += by."""

    def steer(self, moved: "Values") -> None:
        """Quasi-global momentum (arXiv 2102.04761): blend the first moment with what the adapter really moved
        (`values` now minus then, mixes included) over the local steps since the last `steer`."""


class Mixer(Protocol):
    """A learner with the gossip rule around it, as the interpreters of the core use it. One thread at a time,
    but `admit`, which needs no model and may run beside a step."""

    def progress(self) -> Progress:
        """Steps, examples and mixes so far, restored by `load`."""

    def fingerprint(self) -> Mapping[str, str]:
        """The learner's, with digests of names, shapes and start values."""

    def payload_bytes(self, encoding: Encoding) -> int:
        """Exact size of `export(encoding)`; a peer's version of another size is refused before any part is fetched."""

    def step(self) -> StepReport:
        """One optimizer step. Raises LearnerError."""

    def export(self, encoding: Encoding) -> bytes:
        """The current adapter in wire form. Raises LearnerError where it holds a value that is not finite."""

    def admit(self, payload: bytes, encoding: Encoding) -> None:
        """Check a peer's bytes: names, shapes, dtypes, finiteness. Raises RemoteError with the defect."""

    def mix(self, own: bytes, theirs: bytes, encoding: Encoding, weight: float) -> MixReport:
        """adapter += weight * clip(theirs - own), both as they were sent; `theirs` has been admitted."""

    def adopt(self, theirs: bytes, encoding: Encoding, mixes: int) -> MixReport:
        """adapter <- theirs, with its count of mixes: what a node that was away does before it mixes."""

    def save(self) -> bytes:
        """The learner's checkpoint and what the rule needs besides."""

    def load(self, checkpoint: bytes) -> None:
        """Restore what `save` gave. Raises LearnerError when it does not fit."""
