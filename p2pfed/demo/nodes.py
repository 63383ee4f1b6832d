"""The network of the demo: a bootstrap peer and one node a trade, as the commands an operator types.

All nodes but the last are told the bootstrap peer's address. The last is told nobody: it is found by mDNS. Where
multicast does not work, or it stays alone too long, it gets the address too, and the report says so.
"""

import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pfed.control import ask, socket_path
from p2pfed.demo.interrupt import Interrupt
from p2pfed.demo.live import NodeLine
from p2pfed.demo.processes import Child, Family
from p2pfed.demo.report import NodeFacts
from p2pfed.demo.trades import TITLES, TradeData
from p2pfed.errors import ExitCode, LocalError
from p2pfed.journal import read_journal

LISTEN = "/ip4/127.0.0.1/tcp/0"
COMMAND = "p2pfed.cli.main"
ASK_S = 0.5
"""For one answer of a node; a busy one is asked again, its last answer stays on the screen."""
BOOTSTRAP_S = 60.0
"""From start to address: 2 s on an idle machine."""
LONELY_S = 20.0
"""A node that found nobody for so long, while others are there, is not going to by mDNS (it takes 1 to 3 s)."""
RESTART_S = 1.0


@dataclass(slots=True)
class DemoNode:
    """`up_at`: when it first answered, on the monotonic clock."""

    name: str
    data: TradeData
    home: Path
    child: Child
    status: Mapping[str, Any] = field(default_factory=dict)
    up_at: float | None = None

    @property
    def over(self) -> bool:
        return bool(self.status.get("training_over"))

    @property
    def steps(self) -> int:
        return int(self.status.get("steps") or 0)

    @property
    def swaps(self) -> int:
        return int((self.status.get("swaps") or {}).get("finished") or 0)


class Nodes:
    """`discovery` is the sentence on how the last node found the others."""

    def __init__(
        self, family: Family, work: Path, network_file: Path, steps: int, mdns: bool, interrupt: Interrupt
    ) -> None:
        self._family = family
        self._interrupt = interrupt
        self._work = work
        self._network_file = network_file
        self._steps = steps
        self._mdns = mdns
        self._bootstrap: Child
        self.stopped = False
        self.bootstrap_address = ""
        self.nodes: list[DemoNode] = []
        self.discovery = ""

    def start_bootstrap(self) -> None:
        """Returns when its address is known."""
        home = self._work / "bootstrap"
        arguments = ["bootstrap", "start", "--network", str(self._network_file), "--listen", LISTEN]
        arguments += ["--home", str(home), "--name", "bootstrap", "--no-mdns"]
        self._bootstrap = self._family.start("bootstrap", COMMAND, arguments)

        def known() -> bool:
            self._family.check()
            addresses = _ask(home, "status", {}).get("addresses") or [""]
            self.bootstrap_address = str(addresses[0])
            return bool(self.bootstrap_address)

        self._interrupt.pause(BOOTSTRAP_S, known)
        if not self.bootstrap_address:
            raise LocalError(f"the bootstrap peer told no address in {BOOTSTRAP_S:g} s", ExitCode.DEMO)

    def start_nodes(self, trades: tuple[TradeData, ...]) -> None:
        for data in trades:
            home = self._work / data.trade
            alone = self._mdns and data is trades[-1]
            self.nodes.append(DemoNode(data.trade, data, home, self._start(data, home, told=not alone)))
        last = trades[-1].trade
        self.discovery = (
            f"Node {last} was told no address: it and the others found each other by mDNS."
            if self._mdns
            else f"Multicast does not work on this machine, so node {last} was given the bootstrap peer's address too."
        )

    def poll(self) -> None:
        """Ask all of them; raises LocalError where one has died, Interrupted after a signal."""
        self._family.check()
        if self.stopped:
            return
        for node in self.nodes:
            self._interrupt.check()
            node.status = _ask(node.home, "status", node.status)
            if node.status and node.up_at is None:
                node.up_at = time.monotonic()
        self._help_lonely(time.monotonic())

    @property
    def over(self) -> bool:
        return bool(self.nodes) and all(node.over for node in self.nodes)

    def lines(self) -> list[NodeLine]:
        return [_line(node, self._steps, self.stopped) for node in self.nodes]

    def facts(self) -> tuple[NodeFacts, ...]:
        """Last words, while they still run."""
        return tuple(_facts(node) for node in self.nodes)

    def stop(self) -> None:
        """All of them and the bootstrap peer; their last status stays."""
        self.stopped = True
        self._family.stop([self._bootstrap, *(node.child for node in self.nodes)])

    def _start(self, data: TradeData, home: Path, told: bool) -> Child:
        arguments = ["node", "start", "--network", str(self._network_file), "--data", str(data.train)]
        arguments += ["--listen", LISTEN, "--home", str(home), "--name", data.trade, "--steps-max", str(self._steps)]
        arguments += ["--threads", "1", "--device", "cpu", "--offline"]
        if told:
            arguments += ["--bootstrap", self.bootstrap_address]
        if not self._mdns:
            arguments.append("--no-mdns")
        return self._family.start(data.trade, COMMAND, arguments)

    def _help_lonely(self, now: float) -> None:
        if not self._mdns or not self.nodes:
            return
        last = self.nodes[-1]
        others = [node.up_at for node in self.nodes[:-1] if node.up_at is not None]
        if last.up_at is None or not others or last.status.get("neighbours") or last.swaps:
            return
        if now - max(last.up_at, min(others)) < LONELY_S:
            return
        self._family.stop([last.child], RESTART_S)
        last.child = self._start(last.data, last.home, told=True)
        last.up_at, self._mdns = None, False
        self.discovery = (
            f"Node {last.name} found nobody by mDNS in {LONELY_S:g} s and was then given the bootstrap peer's address."
        )


def _ask(home: Path, command: str, known: Any) -> Any:
    """The answer, or what was known before where there is none now."""
    with suppress(LocalError):
        return ask(socket_path(home, os.environ), command, ASK_S)
    return known


def _line(node: DemoNode, steps: int, stopped: bool) -> NodeLine:
    title = TITLES.get(node.name, node.name)
    if not node.status:
        return NodeLine(node.name, title, "loading the model", steps_max=steps)
    status = node.status
    return NodeLine(
        node.name,
        title,
        _state(node, stopped),
        status["neighbours"],
        status["steps"],
        steps,
        node.swaps,
        status["loss"],
        status["bytes_sent"],
        status["bytes_received"],
        (status["estimate"] or {}).get("consensus_distance"),
    )


def _state(node: DemoNode, stopped: bool) -> str:
    if stopped:
        return "collected"
    if node.over:
        return "done, gossiping"
    return "training" if node.status["neighbours"] else "training alone"


def _facts(node: DemoNode) -> NodeFacts:
    node.status = _ask(node.home, "status", node.status)
    peers = _ask(node.home, "peers", [])
    found = Counter(peer["found_by"] for peer in peers if peer["linked"] and peer["role"] == "node")
    losses = [
        (int(entry.fields["steps"] or 0), float(entry.fields["loss"] or 0.0))
        for entry in read_journal(node.home / "events.jsonl")
        if entry.kind == "trained"
    ]
    return NodeFacts(
        name=node.name,
        trade=node.data.trade,
        title=TITLES.get(node.data.trade, node.data.trade),
        steps=node.steps,
        examples=int(node.status.get("examples") or 0),
        losses=tuple(losses),
        swaps=node.swaps,
        bytes_up=int(node.status.get("bytes_sent") or 0),
        bytes_down=int(node.status.get("bytes_received") or 0),
        neighbours=int(node.status.get("neighbours") or 0),
        found_by=dict(found),
    )
