"""Who may link with whom, where that is laid down: shapes from the literature, to compare with what grows by itself.

In a shape a node knows its neighbours from the start and can link with nobody else; it seeks them all.
"""

import random
from dataclasses import dataclass, replace

from p2pfed.core.messages import Role
from p2pfed.errors import ConfigError
from p2pfed.sim.options import NodeOptions
from p2pfed.sim.table import nearest

SHAPES = ("grown", "ring", "line", "star", "random", "cliques")
ATTEMPTS_MAX = 200
"""Random pairings tried before a random graph is called impossible; half a dozen do for any that is not tiny."""


@dataclass(frozen=True, slots=True)
class Topology:
    """grown: by discovery, as in reality. cliques: two complete halves and one link between them."""

    kind: str = "grown"
    degree: int = 8
    """Neighbours of each node in a random graph."""


def linked(nodes: tuple[NodeOptions, ...], topology: Topology, seed: int) -> tuple[NodeOptions, ...]:
    """The nodes with their neighbours laid down; bootstrap peers stay outside."""
    if topology.kind not in SHAPES:
        raise ConfigError(f"topology {topology.kind!r}: {nearest(topology.kind, SHAPES)}")
    if topology.kind == "grown":
        return nodes
    names = [node.name for node in nodes if node.role is Role.NODE]
    near: dict[str, dict[str, None]] = {name: {} for name in names}
    for one, other in edges(len(names), topology, random.Random(f"{seed}/topology")):
        near[names[one]][names[other]] = near[names[other]][names[one]] = None
    return tuple(_with(node, tuple(near[node.name])) if node.name in near else node for node in nodes)


def edges(count: int, topology: Topology, rng: random.Random) -> list[tuple[int, int]]:
    """Pairs of node numbers from 0."""
    if count < 2:
        return []
    match topology.kind:
        case "line":
            return [(at, at + 1) for at in range(count - 1)]
        case "ring":
            return [(at, at + 1) for at in range(count - 1)] + ([(count - 1, 0)] if count > 2 else [])
        case "star":
            return [(0, at) for at in range(1, count)]
        case "cliques":
            half = count // 2
            halves = (range(half), range(half, count))
            return [(a, b) for part in halves for a in part for b in part if a < b] + [(half - 1, half)]
    return _random_graph(count, topology.degree, rng)


def _random_graph(count: int, degree: int, rng: random.Random) -> list[tuple[int, int]]:
    """Every node with `degree` neighbours: ends are shuffled and paired, pairs that will not do are dealt again."""
    if not 0 < degree < count or degree * count % 2:
        raise ConfigError(f"{count} nodes of degree {degree} each: the degree is below the nodes, their product even")
    for _ in range(ATTEMPTS_MAX):
        pairs: dict[tuple[int, int], None] = {}
        ends = [at for at in range(count) for _ in range(degree)]
        while ends:
            rng.shuffle(ends)
            left: list[int] = []
            for one, other in zip(ends[::2], ends[1::2], strict=True):
                pair = (min(one, other), max(one, other))
                if one == other or pair in pairs:
                    left += [one, other]
                else:
                    pairs[pair] = None
            if len(left) == len(ends):
                break  # only pairs that will not do are left: begin anew
            ends = left
        if not ends:
            return list(pairs)
    raise ConfigError(f"no random graph of {count} nodes of degree {degree} was found")


def _with(node: NodeOptions, names: tuple[str, ...]) -> NodeOptions:
    links_max = max(node.links_max, len(names))
    return replace(node, links_only=names, neighbours_target=len(names), links_max=links_max, knows=())
