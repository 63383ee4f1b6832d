"""A scenario is data: nodes, wires, faults with times, and what must come out. `load` reads TOML;
`simulation.run` runs it.

Node names are a group's prefix and a number from 1; "n1..n8" in a list stands for eight of them.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from p2pfed.core.messages import Role
from p2pfed.errors import ConfigError
from p2pfed.sim.attackers import ATTACKS
from p2pfed.sim.options import NetworkOptions, NodeOptions
from p2pfed.sim.population import LEARNERS
from p2pfed.sim.table import build, nearest, refuse_unknown
from p2pfed.sim.topology import Topology, linked

NODES_MAX = 100_000
VALUES_MAX = 1_000_000
TOP = ("about", "seed", "duration_s", "sample_interval_s")
TABLES = (*TOP, "network", "topology", "nodes", "churn", "faults", "expect")
KINDS = ("cut", "heal", "crash", "restart", "stop", "break-links")
RANGE = re.compile(r"([a-z-]+)(\d+)\.\.([a-z-]+)(\d+)")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong (or right again), at one time."""

    at_s: float
    kind: str
    nodes: tuple[str, ...] = ()
    """Whom it hits: crash, restart, stop, break-links."""
    groups: tuple[tuple[str, ...], ...] = ()
    """For cut: who can still talk to each other. Nodes in no group form one more."""
    reset: bool = False
    """For cut: links end audibly instead of falling silent."""
    power_loss: bool = False
    """For crash: links fall silent instead of being reset."""
    keep: bool = True
    """For restart: from the checkpoint and the remembered peers."""


@dataclass(frozen=True, slots=True)
class Churn:
    """Nodes that come and go by themselves: each is up and down in turn, for times drawn exponentially.

    Drawn from a stream of its own, node by node: runs with equal seeds and churn have equal outages, whatever differs.
    """

    down_share: float = 0.0
    """Of the nodes, down at any one time; 0: no churn."""
    outage_s: float = 60.0
    """Mean length of an outage."""
    from_s: float = 0.0
    until_s: float = 1e18
    """Nobody goes down after this; who is down comes back when its time is over."""
    nodes: tuple[str, ...] = ()
    """Whom it hits; empty: all that are no bootstrap peers."""
    power_loss: bool = False
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must come out besides the invariants, which hold in every scenario."""

    quiet: bool = True
    """At the end links are mutual and every node has a neighbour."""
    components: int = 1
    balanced: bool = False
    """No node trains: what changed the sum of all adapters is exactly the half-done swaps and the restarts."""
    half_done_max: int | None = None
    swaps_min: int = 1
    partners_share_min: float = 0.0
    """Of the neighbours a node has at the end, with how many it finished a swap: nobody is starved."""
    contraction_min: float | None = None
    """Of the speed of random pair averaging."""
    contraction_max: float | None = None
    spread_share_max: float | None = None
    """Spread at the end over the largest spread seen."""
    gap_share_max: float | None = None
    """Mean loss above the optimum at the end over that at the first sample."""
    log: tuple[str, ...] = ()
    """Kinds that must be in some node's event log."""
    log_absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    seed: int
    duration_s: float
    nodes: tuple[NodeOptions, ...]
    network: NetworkOptions = field(default_factory=NetworkOptions)
    faults: tuple[Fault, ...] = ()
    churn: Churn = field(default_factory=Churn)
    expect: Expectation = field(default_factory=Expectation)
    sample_interval_s: float = 5.0

    def with_seed(self, seed: int) -> "Scenario":
        return replace(self, seed=seed)


def load(path: Path) -> Scenario:
    """Read a scenario file. Raises ConfigError with the key and the value."""
    try:
        return parse(tomllib.loads(path.read_text(encoding="utf-8")), path.stem)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name} is not TOML: {error}") from error


def parse(table: Mapping[str, Any], name: str) -> Scenario:
    """A scenario of the plain values of a TOML file."""
    known = (
        "about",
        "seed",
        "duration_s",
        "sample_interval_s",
        "network",
        "topology",
        "nodes",
        "churn",
        "faults",
        "expect",
    )
    refuse_unknown(table, known, "scenario")
    nodes = tuple(node for group in table.get("nodes", ()) for node in _group(group))
    if not 1 <= len(nodes) <= NODES_MAX:
        raise ConfigError(f"a scenario of {len(nodes)} nodes, not 1 to {NODES_MAX}")
    names = [node.name for node in nodes]
    if len(names) != len(dict.fromkeys(names)):
        raise ConfigError("two nodes of the scenario have one name; give each group its own prefix")
    bootstraps = tuple(node.name for node in nodes if node.role is Role.BOOTSTRAP)
    nodes = tuple(replace(node, knows=node.knows or bootstraps) for node in nodes)
    nodes = linked(nodes, build(Topology, table.get("topology", {}), "topology"), table.get("seed", 0))
    for node in nodes:
        _check(node)
    churn = _churn(table.get("churn", {}), names)
    faults = tuple(_fault(fault, names) for fault in table.get("faults", ()))
    top = {key: table[key] for key in TOP[1:] if key in table}
    network = build(NetworkOptions, table.get("network", {}), "network")
    expect = build(Expectation, table.get("expect", {}), "expect")
    parts = {"network": network, "faults": faults, "churn": churn, "expect": expect}
    return build(Scenario, top, "scenario", name=name, nodes=nodes, **parts)


def _group(table: Mapping[str, Any]) -> list[NodeOptions]:
    """`count` nodes of equal options; `stagger_s` apart in their start."""
    values = dict(table)
    count, prefix = values.pop("count", 1), values.pop("prefix", "n")
    stagger_s, start_s = values.pop("stagger_s", 0.0), values.pop("start_s", 0.0)
    if type(count) is not int or not 0 <= count <= NODES_MAX:
        raise ConfigError(f"nodes: count is {count!r}, not a number of nodes up to {NODES_MAX}")
    first = build(NodeOptions, values, "nodes", name=prefix, start_s=start_s)
    return [
        replace(first, name=f"{prefix}{number}", start_s=start_s + stagger_s * (number - 1))
        for number in range(1, count + 1)
    ]


def _check(node: NodeOptions) -> None:
    """What a type cannot say."""
    if node.learner not in LEARNERS:
        raise ConfigError(f"learner {node.learner!r}: {nearest(node.learner, LEARNERS)}")
    if node.attack and node.attack not in ATTACKS:
        raise ConfigError(f"attack {node.attack!r}: {nearest(node.attack, ATTACKS)}")
    for name in ("step_s", "step_range", "uplink_bytes_s", "swap_interval_s"):
        if not getattr(node, name) > 0.0:
            raise ConfigError(f"nodes.{name} is {getattr(node, name)!r}, not above 0")
    if not 1 <= node.values <= VALUES_MAX or node.steps_between_swaps < 1:
        raise ConfigError(f"{node.values} values (1 to {VALUES_MAX}), {node.steps_between_swaps} steps (1 or more)")


def _churn(table: Mapping[str, Any], names: list[str]) -> Churn:
    values = dict(table)
    chosen = _expand(values.pop("nodes", ()))
    churn = build(Churn, values, "churn", nodes=chosen)
    if not 0.0 <= churn.down_share < 1.0 or not churn.outage_s > 0.0:
        raise ConfigError(f"churn of {churn.down_share} down (0 to below 1) for {churn.outage_s} s (above 0)")
    for name in chosen:
        if name not in names:
            raise ConfigError(f"churn names {name!r}, which is no node")
    return churn


def _fault(table: Mapping[str, Any], names: list[str]) -> Fault:
    values = dict(table)
    chosen = _expand(values.pop("nodes", ()))
    groups = tuple(_expand(group) for group in values.pop("groups", ()))
    fault = build(Fault, values, "faults", nodes=chosen, groups=groups)
    if fault.kind not in KINDS:
        raise ConfigError(f"fault {fault.kind!r}: {nearest(fault.kind, KINDS)}")
    for name in [*chosen, *(name for group in groups for name in group)]:
        if name not in names:
            raise ConfigError(f"fault {fault.kind!r} at {fault.at_s} s names {name!r}, which is no node")
    return fault


def _expand(names: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    expanded: list[str] = []
    for name in names:
        found = RANGE.fullmatch(name)
        if found is None:
            expanded.append(name)
        else:
            expanded += [f"{found[1]}{number}" for number in range(int(found[2]), int(found[4]) + 1)]
    return tuple(expanded)
