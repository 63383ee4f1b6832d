"""A scenario is data: nodes, wires, faults with times, and what must come out. `load` reads TOML;
`simulation.run` runs it.

Node names are a group's prefix and a number from 1; "n1..n8" in a list stands for eight of them.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from p2pfed.core.messages import Role
from p2pfed.errors import ConfigError
from p2pfed.ports import Encoding
from p2pfed.sim.options import NetworkOptions, NodeOptions

NODES_MAX = 4096
KINDS = ("cut", "heal", "crash", "restart", "stop", "break-links")
RANGE = re.compile(r"([a-z-]+)(\d+)\.\.([a-z-]+)(\d+)")

Built = TypeVar("Built")


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
    known = ("about", "seed", "duration_s", "sample_interval_s", "network", "nodes", "faults", "expect")
    _refuse_unknown(table, known, "scenario")
    nodes = tuple(node for group in table.get("nodes", ()) for node in _group(group))
    if not 1 <= len(nodes) <= NODES_MAX:
        raise ConfigError(f"a scenario of {len(nodes)} nodes, not 1 to {NODES_MAX}")
    names = [node.name for node in nodes]
    if len(names) != len(dict.fromkeys(names)):
        raise ConfigError("two nodes of the scenario have one name; give each group its own prefix")
    bootstraps = tuple(node.name for node in nodes if node.role is Role.BOOTSTRAP)
    nodes = tuple(replace(node, knows=node.knows or bootstraps) for node in nodes)
    faults = tuple(_fault(fault, names) for fault in table.get("faults", ()))
    top = {key: table[key] for key in ("seed", "duration_s", "sample_interval_s") if key in table}
    network = _build(NetworkOptions, table.get("network", {}), "network")
    expect = _build(Expectation, table.get("expect", {}), "expect")
    return _build(Scenario, top, "scenario", name=name, nodes=nodes, network=network, faults=faults, expect=expect)


def _group(table: Mapping[str, Any]) -> list[NodeOptions]:
    """`count` nodes of equal options; `stagger_s` apart in their start."""
    values = dict(table)
    count, prefix = values.pop("count", 1), values.pop("prefix", "n")
    stagger_s, start_s = values.pop("stagger_s", 0.0), values.pop("start_s", 0.0)
    if type(count) is not int or not 0 <= count <= NODES_MAX:
        raise ConfigError(f"nodes: count is {count!r}, not a number of nodes up to {NODES_MAX}")
    return [
        _build(NodeOptions, values, "nodes", name=f"{prefix}{number}", start_s=start_s + stagger_s * (number - 1))
        for number in range(1, count + 1)
    ]


def _fault(table: Mapping[str, Any], names: list[str]) -> Fault:
    values = dict(table)
    chosen = _expand(values.pop("nodes", ()))
    groups = tuple(_expand(group) for group in values.pop("groups", ()))
    fault = _build(Fault, values, "faults", nodes=chosen, groups=groups)
    if fault.kind not in KINDS:
        raise ConfigError(f"fault {fault.kind!r} is none of {', '.join(KINDS)}")
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


def _build(kind: type[Built], table: Mapping[str, Any], where: str, **given: object) -> Built:
    """A dataclass of a table: unknown keys, missing keys and wrong types are ConfigErrors."""
    hints = get_type_hints(kind)
    names = [each.name for each in fields(kind) if each.name not in given]  # type: ignore[arg-type]
    _refuse_unknown(table, names, where)
    values = {name: _value(hints[name], value, f"{where}.{name}") for name, value in table.items()}
    for each in fields(kind):  # type: ignore[arg-type]
        wanted = each.default is MISSING and each.default_factory is MISSING
        if wanted and each.name not in values and each.name not in given:
            raise ConfigError(f"{where} lacks {each.name}")
    return kind(**values, **given)


def _value(hint: object, value: object, name: str) -> object:
    if hint is Role and value in list(Role):
        return Role(str(value))
    if hint is Encoding and value in list(Encoding):
        return Encoding(str(value))
    if hint in (float, float | None) and type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    if hint in (int, int | None) and type(value) is int:
        return value
    if hint in (bool, str) and type(value) is hint:
        return value
    if hint == tuple[str, ...] and isinstance(value, list) and all(type(item) is str for item in value):
        return tuple(value)
    if hint == tuple[tuple[str, str], ...] and isinstance(value, dict):
        return tuple(sorted((str(key), str(item)) for key, item in value.items()))
    raise ConfigError(f"{name} is {value!r}, which is of another type")


def _refuse_unknown(table: Mapping[str, Any], known: list[str] | tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{where} has no key {key!r}; it has {', '.join(known)}")
