"""What a simulated network and its nodes are like. Frozen data; every field names its unit."""

from dataclasses import dataclass
from enum import StrEnum

from p2pfed.core.messages import PART_BYTES, Role
from p2pfed.ports import Encoding


class Nat(StrEnum):
    """Who can be dialled. A symmetric one gives each conversation a port of its own, which nobody can guess."""

    PUBLIC = "public"
    CONE = "cone"
    SYMMETRIC = "symmetric"


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """The wires between nodes. Shares are probabilities from 0 to 1."""

    delay_s: float = 0.02
    """One way, between any two nodes, on top of what each node adds."""
    jitter_s: float = 0.01
    """Uniform, added to each message; never reorders a link's messages."""
    drop_share: float = 0.0
    """Messages that vanish on a link that goes on: worse than TCP, but an overflowing relay does it."""
    break_interval_s: float = 0.0
    """Mean life of a link, drawn exponentially; 0: links do not break by themselves."""
    notice_s: float = 1.0
    """Longest time until an end learns that its link broke."""
    dial_failure_share: float = 0.0
    dial_timeout_s: float = 10.0
    """What dialling somebody costs who does not answer: behind a cut or a NAT, or none of its topology."""
    hole_punching: bool = True
    """Without it only public peers can be dialled."""
    relay_delay_s: float = 0.0
    """Added one way where both ends are behind symmetric NATs and a relay carries the link; 0: they find no way."""
    codec: bool = True
    """False: messages travel as objects, and their bytes are reckoned. For thousands of nodes."""


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """One simulated peer."""

    name: str
    peer: str = ""
    """Peer id; from the name where empty. Two nodes with one id are a copied identity."""
    role: Role = Role.NODE
    fields: tuple[tuple[str, str], ...] = ()
    """Network fields that differ from everybody else's: another network."""
    fingerprint: tuple[tuple[str, str], ...] = ()
    uplink_bytes_s: float = 1.25e6
    """Shared by its links, which take turns; in order within each."""
    downlink_bytes_s: float = 0.0
    """Shared by all that comes in; 0: no limit."""
    nat: Nat = Nat.PUBLIC
    delay_s: float = 0.0
    """Added to every message from and to this node, one way."""
    start_s: float = 0.0
    knows: tuple[str, ...] = ()
    """Names of the bootstrap peers it is told of at its start."""
    remembers: int = 0
    """So many other nodes of the scenario, drawn at random, it knows as from an earlier run."""
    links_only: tuple[str, ...] = ()
    """Nodes it can link with; empty: with all. Those it knows from the start."""
    neighbours_target: int = 8
    links_max: int = 32
    trains: bool = True
    """False: steps take time and change nothing."""
    learner: str = "toy"
    """"toy" or "quadratic" (`population`)."""
    step_s: float = 1.0
    step_range: float = 1.0
    """The slowest such device over the fastest: their steps lie evenly in logarithm around `step_s`."""
    step_sigma: float = 0.0
    """Deviation of the logarithm of `step_s` from node to node."""
    step_jitter_share: float = 0.1
    """Of one step's time, uniform."""
    steps_between_swaps: int = 4
    steps_max: int = 0
    swap_interval_s: float = 10.0
    learning_rate: float = 0.05
    noise: float = 0.0
    """Deviation of each value of a quadratic's gradient."""
    clip: float = 3.0
    """As `gossip.clip`; toys do not clip."""
    attack: str = ""
    """One of `attackers.ATTACKS`; empty: honest."""
    attack_scale: float = 4.0
    values: int = 16
    """Length of the adapter, in floats."""
    weight: int = 1
    members: tuple[str, ...] = ()
    """Names of a fixed membership, which swaps by the schedule."""
    swap_day_bytes: int = 0
    link_day_bytes: int = 0
    encoding: Encoding = Encoding.FLOAT32
    part_bytes: int = PART_BYTES
    admit_s: float = 0.01
    checkpoint_interval_s: float = 60.0
