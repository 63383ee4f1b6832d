"""What a simulated network and its nodes are like. Frozen data; every field names its unit."""

from dataclasses import dataclass

from p2pfed.core.messages import PART_BYTES, Role
from p2pfed.ports import Encoding


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
    """What dialling somebody behind a cut costs."""


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
    delay_s: float = 0.0
    """Added to every message from and to this node, one way."""
    start_s: float = 0.0
    knows: tuple[str, ...] = ()
    """Names of the bootstrap peers it is told of at its start."""
    neighbours_target: int = 8
    links_max: int = 32
    trains: bool = True
    """False: steps take time and change nothing."""
    step_s: float = 1.0
    step_jitter_share: float = 0.1
    steps_between_swaps: int = 4
    steps_max: int = 0
    swap_interval_s: float = 10.0
    learning_rate: float = 0.05
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
