"""Network namespaces on one machine: a peer each, joined by a bridge, or by a switch of our own, slow on purpose.

Unshaped: veth pairs to a bridge, as fast as the kernel copies. Shaped: each peer has an access line of so many bits a
second each way, and between two peers lies so much delay (`links_switch`; netem is not in every kernel).
Everything, the bridge too, lives in namespaces of its own, deleted in the end. Needs root on Linux with `ip`.
"""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.children import CHILD_S, line

NAME = "p2pfed-bench"
DEVICE = "eth0"
HUB = "hub"


@dataclass(frozen=True, slots=True)
class Shape:
    """Of every peer's access line."""

    rate_mbit: float
    round_trip_ms: float
    """Between any two peers, without what queues."""
    loss: float = 0.0
    """Share of all frames that are lost on their way, drawn from a fixed seed."""
    queue_ms: float = 100.0
    """What would wait longer at either end of a line is dropped: 250 kB at 20 Mbit/s, as in a home router."""
    congestion: str | None = None
    """TCP's congestion control for all peers; None: the machine's own."""


def refusal() -> str | None:
    """Why namespaces cannot be made here; None where they can."""
    if sys.platform != "linux":
        return f"network namespaces are Linux's, this is {sys.platform}"
    if shutil.which("ip") is None:
        return "the command ip (iproute2) is missing"
    probe = f"{NAME}-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        return f"namespaces may not be made: {made.stderr.strip()}"
    _ip("netns", "del", probe)
    _sweep()
    return None


class Links:
    """`with Links(4, None) as links:` peers 0 to 3; `links.inside(0)` before a command runs it there."""

    def __init__(self, peers: int, shape: Shape | None) -> None:
        self.peers = peers
        self.shape = shape
        self._undo = ExitStack()

    def inside(self, peer: int) -> list[str]:
        return ["ip", "netns", "exec", self._name(peer)]

    def address(self, peer: int) -> str:
        return f"10.77.0.{peer + 1}"

    def sent_bytes(self, peer: int) -> int:
        """By the interface's own counter, headers of packets included."""
        pids = self._pids(self._name(peer))
        for row in Path(f"/proc/{pids[0]}/net/dev").read_text().splitlines():
            name, _, counters = row.partition(":")
            if name.strip() == DEVICE:
                return int(counters.split()[8])
        raise RuntimeError(f"no {DEVICE} in {self._name(peer)}")

    def processor_s(self, peer: int) -> float:
        """That all processes of this peer have used, those that have ended and were waited for, too."""
        ticks = 0
        for pid in self._pids(self._name(peer)):
            with suppress(FileNotFoundError, ProcessLookupError):
                after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
                ticks += sum(int(word) for word in after_name.split()[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """Every process in the peers' namespaces: those that a child started, too."""
        for peer in range(self.peers):
            for pid in self._pids(self._name(peer)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        with self._undo as undo:
            self._namespace(undo, HUB)
            for peer in range(self.peers):
                self._namespace(undo, peer)
            undo.callback(self.kill)
            if self.shape is None:
                self._bridge()
            else:
                self._switch(undo, self.shape)
            for peer in range(self.peers):
                self._bring_up(peer)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _name(self, which: int | str) -> str:
        return f"{NAME}-{os.getpid()}-{which}"

    def _namespace(self, undo: ExitStack, which: int | str) -> None:
        name = self._name(which)
        _ip("netns", "add", name)
        undo.callback(_ip, "netns", "del", name)

    def _bridge(self) -> None:
        hub = self._name(HUB)
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", hub, "link", "set", "bridge", "addrgenmode", "none", "up")
        for peer in range(self.peers):
            inner = ("peer", "name", DEVICE, "netns", self._name(peer))
            _ip("-n", hub, "link", "add", f"port{peer}", "type", "veth", *inner)
            _ip("-n", hub, "link", "set", f"port{peer}", "master", "bridge", "addrgenmode", "none", "up")

    def _switch(self, undo: ExitStack, shape: Shape) -> None:
        hub = self._name(HUB)
        words = [str(self.peers), *map(str, (shape.rate_mbit, shape.round_trip_ms, shape.loss, shape.queue_ms))]
        switch = subprocess.Popen(
            ["ip", "netns", "exec", hub, sys.executable, "-m", "tests.bench.links_switch", *words],
            stdout=subprocess.PIPE,
            text=True,
        )
        undo.callback(switch.wait)
        undo.callback(switch.kill)
        for peer, device in enumerate(line(switch)):
            _ip("-n", hub, "link", "set", device, "netns", self._name(peer), "name", DEVICE)

    def _bring_up(self, peer: int) -> None:
        name = self._name(peer)
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "address", "add", f"{self.address(peer)}/24", "dev", DEVICE)
        _ip("-n", name, "link", "set", DEVICE, "addrgenmode", "none", "up")
        if self.shape is not None and self.shape.congestion is not None:
            _ip("netns", "exec", name, "sysctl", "-qw", f"net.ipv4.tcp_congestion_control={self.shape.congestion}")

    def _pids(self, name: str) -> list[int]:
        listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True)
        return [int(word) for word in listed.stdout.split()]


def measured(links: Links) -> dict[str, float]:
    """What a plain TCP stream from peer 0 to peer 1 gets, and how long a byte takes there and back."""
    round_trip_ms, mbit_per_s = _probed(links)
    return {"round_trip_ms": round_trip_ms, "tcp_mbit_per_s": mbit_per_s}


def both_ways_s(links: Links, size: int) -> float:
    """How long a plain TCP connection takes for so many bytes from peer 0 to 1 and as many back, both at once."""
    (seconds,) = _probed(links, size)
    return seconds


def _probed(links: Links, *words: int) -> list[float]:
    module, told = [sys.executable, "-m", "tests.bench.links_probe"], [str(word) for word in words]
    server = subprocess.Popen([*links.inside(1), *module, "serve", *told], stdout=subprocess.PIPE, text=True)
    try:
        line(server)
        client = subprocess.run(
            [*links.inside(0), *module, links.address(1), *told],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=CHILD_S,
        )
    finally:
        server.kill()
        server.wait()
    return [float(word) for word in client.stdout.split()]


def _sweep() -> None:
    """What a bench left that was killed outright: the name tells whose it was."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    for row in listed.stdout.splitlines():
        name = row.split()[0]
        owner, _, _ = name.removeprefix(f"{NAME}-").partition("-")
        if name.startswith(f"{NAME}-") and not Path(f"/proc/{owner}").exists():
            _ip("netns", "del", name)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
