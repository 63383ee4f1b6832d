"""Real peers behind routers of five kinds: the right diagnosis, and links between all pairs that theory allows.

One internet for the module: a bootstrap peer, and two nodes of each kind that want a link with every other node.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest

from p2pfed.config import GossipConfig, ModelConfig, NetworkConfig, NodeConfig
from p2pfed.config_file import dump_network, dump_node
from p2pfed.control import ask, socket_path
from p2pfed.errors import P2pfedError
from tests.net.topology import PORT, Internet, Kind, refusal

pytestmark = [pytest.mark.slow, pytest.mark.skipif(refusal() is not None, reason=str(refusal()))]

WAIT_S = 100.0
NAMES = {kind: (f"{kind.value}-1", f"{kind.value}-2") for kind in Kind}
VERDICTS = {
    Kind.PUBLIC: ("direct", "none"),
    Kind.FULL_CONE: ("mapped", "one port for all"),
    Kind.PORT_RESTRICTED: ("relay-only", "one port for all"),
    Kind.SYMMETRIC: ("relay-only", "another port for each"),
    Kind.NO_INBOUND: ("relay-only", "none"),
}
RELAYED = [
    {Kind.PORT_RESTRICTED, Kind.SYMMETRIC},  # nobody knows the port that the other would have to let in
    {Kind.SYMMETRIC},
    {Kind.SYMMETRIC, Kind.NO_INBOUND},
    {Kind.NO_INBOUND},  # each drops the other's first packet
]
"""Pairs that theory leaves to a relay; all others are direct."""


class Nodes:
    """Processes in namespaces, asked through their control sockets: files know no namespaces."""

    def __init__(self, net: Internet, folder: Path) -> None:
        self.net = net
        self.folder = folder
        self.network = NetworkConfig(
            "nat", ModelConfig("vector"), gossip=GossipConfig(encoding="float32", swap_interval_s=1.0)
        )
        self.started_at = time.monotonic()

    def start(self, name: str, role: str, config: NodeConfig) -> None:
        home = self.folder / name
        network, node = self.folder / "network.toml", self.folder / f"{name}.toml"
        network.write_text(dump_network(self.network))
        node.write_text(dump_node(replace(config, home=str(home), name=name, mdns=False)))
        with (self.folder / f"{name}.log").open("wb") as log:
            subprocess.Popen(
                [*self.net.inside(name), sys.executable, "-m", "tests.net.nat_peer", network, node, role],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def ask(self, name: str, command: str = "status") -> Any:
        return ask(socket_path(self.folder / name, os.environ), command)

    def until(self, what: str, condition: Callable[[], object]) -> Any:
        deadline = time.monotonic() + WAIT_S
        value: object = None
        while time.monotonic() < deadline:
            try:
                if value := condition():
                    return value
            except (P2pfedError, OSError):
                pass
            _pause()
        raise AssertionError(f"not within {WAIT_S:.0f} s: {what}; last {value!r}")

    def link(self, one: str, two: str) -> dict[str, Any] | None:
        """How `one` sees its link to `two`."""
        for row in self.ask(one, "peers"):
            if row["name"] == two and row["linked"]:
                return dict(row)
        return None

    def describe(self) -> str:
        lines = []
        for names in NAMES.values():
            for name in names:
                lines.append(f"{name}: {self.ask(name)['reachability']} {self.ask(name)['addresses']}")
                for row in self.ask(name, "peers"):
                    lines.append(f"    {row['name']} {row['linked']} {row['address']} {row['last_failure']}")
        return "\n".join(lines)


def _pause() -> None:
    subprocess.run(["sleep", "0.5"], check=True)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Internet() as net:
        nodes = Nodes(net, tmp_path_factory.mktemp("nat"))
        listen = (f"/ip4/0.0.0.0/tcp/{PORT}",)
        net.add("boot")
        for kind, names in NAMES.items():
            for name in names:
                net.add(name, kind)
        nodes.start("boot", "bootstrap", NodeConfig(listen=listen))
        boot = f"/ip4/{net.public('boot')}/tcp/{PORT}/p2p/{nodes.until('bootstrap', lambda: nodes.ask('boot'))['peer']}"
        for names in NAMES.values():
            for name in names:
                nodes.start(name, "node", NodeConfig(listen=listen, bootstrap=(boot,), neighbours_max=10, steps_max=4))
        for names in NAMES.values():
            for name in names:
                nodes.until(name, lambda name=name: nodes.ask(name))
        yield nodes


@pytest.mark.parametrize("kind", list(Kind))
def test_the_diagnosis_is_right(nodes: Nodes, kind: Kind) -> None:
    for name in NAMES[kind]:

        def settled(name: str = name) -> bool:
            found = nodes.ask(name)["reachability"]
            return (found["verdict"], found["nat"]) == VERDICTS[kind]

        try:
            nodes.until(f"{name} {VERDICTS[kind]}", settled)
        except AssertionError as error:
            raise AssertionError(f"{error}: {nodes.ask(name)['reachability']}") from None
        sentence = nodes.ask(name)["reachability"]["sentence"]
        assert nodes.net.public(name) in sentence
        if VERDICTS[kind][0] == "relay-only":
            assert f"relayed through {nodes.net.public('boot')}; to be direct, " in sentence
            assert str(PORT) in sentence


@pytest.mark.parametrize("kinds", list(combinations_with_replacement(Kind, 2)), ids=" and ".join)
def test_every_pair_has_a_link_by_the_best_way(nodes: Nodes, kinds: tuple[Kind, Kind]) -> None:
    one, two = NAMES[kinds[0]][0], NAMES[kinds[1]][1]
    relayed = set(kinds) in RELAYED

    def linked() -> bool:
        rows = nodes.link(one, two), nodes.link(two, one)
        return all(row is not None and ("p2p-circuit" in row["address"]) == relayed for row in rows)

    try:
        nodes.until(f"a {'relayed' if relayed else 'direct'} link of {one} and {two}", linked)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{nodes.describe()}") from None
    nodes.until("bytes both ways", lambda: _moved(nodes.link(one, two)) and _moved(nodes.link(two, one)))


def test_everybody_swaps(nodes: Nodes) -> None:
    for names in NAMES.values():
        for name in names:
            nodes.until(f"a swap of {name}", lambda name=name: nodes.ask(name)["swaps"]["finished"] > 0)


def _moved(row: dict[str, Any] | None) -> bool:
    return row is not None and row["bytes_sent"] > 0 and row["bytes_received"] > 0
