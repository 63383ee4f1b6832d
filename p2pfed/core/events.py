"""What happened (events, past tense) and what to do (effects, imperative): the core's whole surface.

A link is one session with one peer, numbered by the interpreter. Timers are values: never
cancelled, a stale one does nothing. Times are seconds on the interpreter's monotonic clock.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from p2pfed.core.messages import Hello, Message, PeerRecord, Version
from p2pfed.ports import Encoding, PeerId

LinkId = int


class FoundBy(StrEnum):
    """How a peer became known."""

    MDNS = "mdns"
    BOOTSTRAP = "bootstrap"
    DHT = "dht"
    PEERS = "peers"
    REMEMBERED = "remembered"
    INBOUND = "inbound"


class TimerKind(StrEnum):
    MAINTAIN = "maintain"
    SWAP = "swap"
    SWAP_STALL = "swap-stall"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Timer:
    """`key` tells timers of one kind apart: a peer id, a swap number, a nonce, or ""."""

    kind: TimerKind
    key: str = ""


# Events


@dataclass(frozen=True, slots=True)
class Started:
    """The interpreter is ready. `peers` are those remembered from the last run."""

    peers: tuple[PeerRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerFound:
    """Hearsay from discovery. `instance` where the announcement told it (mDNS does)."""

    peer: PeerId
    addresses: tuple[str, ...]
    found_by: FoundBy
    instance: int | None = None


@dataclass(frozen=True, slots=True)
class DialFailed:
    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class PeerRefused:
    """The peer answered but is not of this network; `difference` names the field and both values."""

    peer: PeerId
    difference: str


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A gossip link stands and both hellos were exchanged. `outbound`: this side opened it."""

    link: LinkId
    peer: PeerId
    hello: Hello
    outbound: bool
    address: str
    clock_skew_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LinkDown:
    """`fault` True: the peer broke the protocol (RemoteError), not the network."""

    link: LinkId
    reason: str
    fault: bool = False


@dataclass(frozen=True, slots=True)
class MessageReceived:
    link: LinkId
    message: Message


@dataclass(frozen=True, slots=True)
class Trained:
    """The local steps asked for are done and `version` is published. Totals count from this node's first start.

    `loss` is smoothed; None before the first step of this run.
    """

    version: Version
    steps: int
    examples: int
    loss: float | None


@dataclass(frozen=True, slots=True)
class StepSkipped:
    """A local step gave no finite loss and changed nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """The learner looked at a received version; `problem` None: it may be mixed."""

    digest: bytes
    problem: str | None


@dataclass(frozen=True, slots=True)
class Mixed:
    """The mix of swap `swap` was applied and `version` published. Distances as in `ports.MixReport`."""

    swap: int
    distance: float
    norm: float
    kept: float
    version: Version


@dataclass(frozen=True, slots=True)
class Published:
    """What Publish asked for: the adapter as it is, in another encoding than `Trained` and `Mixed` bring."""

    version: Version


@dataclass(frozen=True, slots=True)
class TimerFired:
    timer: Timer


@dataclass(frozen=True, slots=True)
class StopAsked:
    reason: str


Event = (
    Started
    | PeerFound
    | DialFailed
    | PeerRefused
    | LinkUp
    | LinkDown
    | MessageReceived
    | Trained
    | StepSkipped
    | Admitted
    | Mixed
    | Published
    | TimerFired
    | StopAsked
)


# Effects


@dataclass(frozen=True, slots=True)
class Dial:
    """Try the addresses in turn; answer with LinkUp, DialFailed or PeerRefused."""

    peer: PeerId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CloseLink:
    """End a link. What was sent over it before still goes out, parts need not."""

    link: LinkId
    reason: str


@dataclass(frozen=True, slots=True)
class Send:
    link: LinkId
    message: Message


@dataclass(frozen=True, slots=True)
class SendPart:
    """Send part `index` of an own version, read at the moment it is sent. Other messages of the link go first."""

    link: LinkId
    digest: bytes
    index: int


@dataclass(frozen=True, slots=True)
class KeepPart:
    """A part whose hash was checked. `version` says how much to reserve."""

    version: Version
    index: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Admit:
    """All parts are here: let the learner look; answer with Admitted."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Mix:
    """Apply between two local steps: adapter += weight * clip(theirs - own), both as sent; answer with Mixed.

    `own` names the own version that the partner was sent; empty where there is none (observers).
    """

    swap: int
    own: bytes
    digest: bytes
    weight: float


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take the received version as the own adapter, with its count of mixes; answer with Mixed."""

    swap: int
    digest: bytes
    mixes: int


@dataclass(frozen=True, slots=True)
class Forget:
    """The bytes of a received version are not needed any more."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Retire:
    """An own version is not served any more."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Train:
    """Do `steps` local steps, publish in the device's own encoding; answer with Trained. 0: publish what is there."""

    steps: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Export the current adapter in this encoding too; answer with Published."""

    encoding: Encoding


@dataclass(frozen=True, slots=True)
class SetTimer:
    timer: Timer
    at: float


@dataclass(frozen=True, slots=True)
class Remember:
    """Peers worth dialling after a restart, best first."""

    peers: tuple[PeerRecord, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """One entry of the node's event log. `kind` is a kebab-case word, `fields` plain values."""

    kind: str
    fields: dict[str, str | int | float | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finish:
    """Goodbyes are queued: the interpreter flushes and ends."""


Effect = (
    Dial
    | CloseLink
    | Send
    | SendPart
    | KeepPart
    | Admit
    | Mix
    | Adopt
    | Forget
    | Retire
    | Train
    | Publish
    | SetTimer
    | Remember
    | Report
    | Finish
)
