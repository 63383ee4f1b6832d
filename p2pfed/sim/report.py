"""What a simulation found: counters of every node, the spread over time, and the checks that failed."""

from dataclasses import dataclass


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
class SpreadSample:
    """Root mean square distance of a node's adapter to the mean of all, at one time."""

    at_s: float
    swaps: int
    spread: float


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
    spread: tuple[SpreadSample, ...]
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
