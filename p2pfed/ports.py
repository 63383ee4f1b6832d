"""What the core's interpreters need from the outside, as Protocols: a network, a learner.

Implementations: `net.libp2p.Libp2pTransport` and `net.memory.MemoryTransport` (one test suite for
both); `train.learner.LoraLearner`, `sim.learner.ToyLearner`, or a user's own.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NewType, Protocol

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


@dataclass(frozen=True, slots=True)
class MixReport:
    """What a mix did. Distances are L2 norms over all adapter values."""

    distance: float
    """Between own adapter before the mix and the peer's."""
    norm: float
    """Of own adapter's difference to the shared initial factors, after the mix."""


class Learner(Protocol):
    """Owns the adapter. Called from one worker thread at a time, never concurrently.

    The adapter travels as bytes (`wire.tensors` layout); all nodes of a network start from equal bytes.
    """

    def progress(self) -> Progress:
        """Local steps and examples so far, restored by `load`."""

    def fingerprint(self) -> Mapping[str, str]:
        """What must be equal among peers and is not in the network file: base and tokenizer digests, shapes."""

    def adapter_bytes(self) -> int:
        """Exact size of `export()`; a peer's version of another size is refused before any part is fetched."""

    def step(self) -> StepReport:
        """One optimizer step. Raises LearnerError."""

    def export(self) -> bytes:
        """The current adapter in wire form."""

    def admit(self, payload: bytes) -> None:
        """Check a peer's bytes: names, shapes, dtypes, finiteness. Raises RemoteError with the defect."""

    def mix(self, payload: bytes, weight: float) -> MixReport:
        """adapter <- adapter + weight * (payload - adapter); `payload` has been admitted."""

    def save(self) -> bytes:
        """Everything needed to go on after a crash: adapter, optimizer moments, data cursor, step count."""

    def load(self, checkpoint: bytes) -> None:
        """Restore what `save` gave. Raises LearnerError when it does not fit this model."""
