"""Processes in the namespaces of a test internet, asked through their control sockets: files know no namespaces."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from p2pfed.config import GossipConfig, ModelConfig, NetworkConfig, NodeConfig
from p2pfed.config_file import dump_network, dump_node
from p2pfed.control import ask, socket_path
from p2pfed.errors import P2pfedError
from tests.net.topology import Internet

WAIT_S = 100.0


class Nodes:
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


def _pause() -> None:
    subprocess.run(["sleep", "0.5"], check=True)
