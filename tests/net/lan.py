"""A LAN on one machine: network namespaces on a bridge, each a host with interfaces a test brings up and takes down.

Everything lives in namespaces of its own, deleted in the end. Needs root on Linux with `ip`.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from p2pfed.config import ModelConfig, NetworkConfig
from p2pfed.config_file import dump_network

NAME = "p2pfed-lan"
CHILD_S = 60.0
"""No test waits longer for a line."""


def network(name: str = "lan", **changes: Any) -> NetworkConfig:
    return NetworkConfig(name=name, model=ModelConfig(base="package:glassllm-en", **changes))


class Lan:
    """`with Lan("test", 2) as lan:` hosts 0 and 1, each with an `eth0` on the bridge, down and without an address."""

    def __init__(self, label: str, hosts: int) -> None:
        self.hosts = hosts
        self._label = label
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with self._undo as undo:
            for which in ("hub", *range(self.hosts)):
                run("ip", "netns", "add", self.name(which))
                undo.callback(run, "ip", "netns", "del", self.name(which))
            self.bridge("bridge")
            for host in range(self.hosts):
                self.plug(host, "eth0")
                self.ip(host, "link", "set", "lo", "up")
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def name(self, which: int | str) -> str:
        return f"{NAME}-{os.getpid()}-{self._label}-{which}"

    def bridge(self, name: str) -> None:
        """One more segment."""
        self.ip("hub", "link", "add", name, "type", "bridge")
        self.ip("hub", "link", "set", name, "addrgenmode", "none", "up")

    def plug(self, host: int, device: str, bridge: str = "bridge") -> None:
        """One more interface of that host, down as yet."""
        port = f"{device}.{host}"
        inner = ("peer", "name", device, "netns", self.name(host))
        self.ip("hub", "link", "add", port, "type", "veth", *inner)
        self.ip("hub", "link", "set", port, "master", bridge, "addrgenmode", "none", "up")

    def up(self, host: int, *addresses: str, device: str = "eth0", link_local: bool = False) -> None:
        """`link_local`: with an fe80:: address of its own, ready at once."""
        self.ip(host, "link", "set", device, "addrgenmode", "none", "up")
        if link_local:
            self.ip(host, "address", "add", f"fe80::{host + 1}/64", "dev", device, "nodad")
        for address in addresses:
            nodad = ("nodad",) if ":" in address else ()
            self.ip(host, "address", "add", address, "dev", device, *nodad)

    def ip(self, which: int | str, *words: str) -> None:
        run("ip", "-n", self.name(which), *words)

    def inside(self, host: int, *command: str) -> None:
        run(*self.prefix(host), *command)

    def prefix(self, host: int) -> list[str]:
        return ["ip", "netns", "exec", self.name(host)]

    def child(
        self, host: int, folder: Path, net: NetworkConfig | None = None, off_s: float = 0.0, **config: Any
    ) -> "Child":
        """A node with a toy learner (`lan_child`); `config` as in node.toml, `off_s` what its clock is ahead."""
        return Child(self.prefix(host), folder, net or network(), config, off_s)

    def doctor(self, host: int, folder: Path, net: NetworkConfig | None = None, **config: Any) -> list[dict[str, Any]]:
        """What `p2pfed doctor --network` finds of the network, in that folder's home, and how long it took."""
        config = {"home": str(folder / "home"), **config}
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "doctor.toml"
        file.write_text(dump_network(net or network()))
        command = [*self.prefix(host), sys.executable, "-m", "tests.net.doctor_child", str(file), json.dumps(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_S)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


class Child:
    """A process of `tests.net.lan_child` and the lines it has printed."""

    def __init__(
        self, prefix: list[str], folder: Path, net: NetworkConfig, config: dict[str, Any], off_s: float
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "network.toml"
        self.file.write_text(dump_network(net))
        self.home = folder / "home"
        config = {"home": str(self.home), "data": "toy", "name": folder.name, **config}
        self.started_at = time.time()
        self.lines: list[dict[str, Any]] = []
        self._unread = b""
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.net.lan_child", str(self.file), json.dumps(config), str(off_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def wait(self, condition: Callable[[dict[str, Any]], bool], seconds: float = CHILD_S) -> dict[str, Any]:
        """The first line, past or to come, that fulfils it."""
        seen = 0
        deadline = time.monotonic() + seconds
        while True:
            for line in self.lines[seen:]:
                if condition(line):
                    return line
            seen = len(self.lines)
            if not self._read(max(0.0, deadline - time.monotonic())):
                raise AssertionError(f"nothing like it within {seconds:g} s, only {self.lines}")

    def ready(self) -> dict[str, Any]:
        return self.wait(lambda line: line["event"] == "ready")

    def stop(self) -> None:
        """As Ctrl-C would: goodbyes are said."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=20)

    def processor_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(word) for word in fields[11:13]) / os.sysconf("SC_CLK_TCK")

    def read_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self._read(left):
            pass

    def _read(self, seconds: float) -> bool:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return False
        data = os.read(self.process.stdout.fileno(), 65536)
        if not data:
            raise AssertionError(f"the child ended with {self.process.wait()}: {self.lines}")
        *whole, self._unread = (self._unread + data).split(b"\n")
        self.lines += [json.loads(line) for line in whole]
        return True


def found(peer: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: line["event"] == "found" and line["peer"] == peer


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
