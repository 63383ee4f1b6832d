"""What a simulation found: counters of every node, spread and loss over time, and the checks that failed."""

from array import array
from dataclasses import asdict, dataclass
from typing import Any

NODES_TOLD_MAX = 200
"""Nodes with a line of their own in JSON; of larger networks only the sums are told."""


class Swaps:
    """Every swap that both partners mixed: when, and the numbers of both. Three plain arrays: there may be millions."""

    def __init__(self) -> None:
        self.times = array("d")
        self.ones = array("l")
        self.others = array("l")

    def __len__(self) -> int:
        return len(self.times)

    def add(self, now: float, one: int, other: int) -> None:
        self.times.append(now)
        self.ones.append(one)
        self.others.append(other)


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node over all its runs."""

    name: str
    running: bool
    neighbours: int
    steps: int
    begun: int
    answered: int
    finished: int
    declined: int
    aborted: int
    half_done: int
    faults: int
    partners: int
    """Different peers it finished a swap with."""
    bytes_sent: int
    events: int
    log: tuple[tuple[str, int], ...]
    """Entries of its event log, by kind."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The honest nodes that ran at one time."""

    at_s: float
    nodes: int
    swaps: int
    bytes_sent: int
    """By all nodes, so far."""
    spread: float
    """Consensus distance: root mean square distance of a node's adapter to the mean of all."""
    gap: float | None
    """Mean over nodes of the loss above the optimum of all; None where nothing is learnt."""
    gap_worst: float | None
    gap_mean_adapter: float | None
    """Of the mean of all adapters, which nobody holds."""


@dataclass(frozen=True, slots=True)
class SimulationReport:
    scenario: str
    seed: int
    duration_s: float
    nodes: tuple[NodeReport, ...]
    swaps: int
    """Mixed by both partners: what really happened, not what nodes believe."""
    half_done: int
    """Mixed by one partner alone, really."""
    half_done_counted: int
    """What the nodes counted; at least the above, as a lost acknowledgement looks the same to them."""
    spread: tuple[Sample, ...]
    contraction: float | None
    """Speed against random pair averaging: 1.0 is equal; None where nothing could be told."""
    drift: float
    """Norm of the change of the mean adapter by half-done swaps and restarts."""
    events: int
    messages: tuple[tuple[str, int], ...]
    history: str
    """Digest of every event: equal for equal scenarios and seeds."""
    problems: tuple[str, ...]

    @property
    def bytes_a_node(self) -> float:
        return sum(node.bytes_sent for node in self.nodes) / max(1, len(self.nodes))

    @property
    def neighbours_mean(self) -> float:
        """Of the nodes that ran at the end."""
        running = [node.neighbours for node in self.nodes if node.running]
        return sum(running) / max(1, len(running))

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        plain = asdict(self)
        plain["messages"] = dict(self.messages)
        plain["nodes_total"] = len(self.nodes)
        plain["bytes_a_node"] = self.bytes_a_node
        plain["events_a_node"] = self.events / max(1, len(self.nodes))
        plain["neighbours_mean"] = self.neighbours_mean
        plain["declined_a_swap"] = sum(node.declined for node in self.nodes) / max(1, self.swaps)
        plain["nodes"] = [{**asdict(node), "log": dict(node.log)} for node in self.nodes[:NODES_TOLD_MAX]]
        return plain
