"""Starts `p2pfed` as users do, watches it through its control socket, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from p2pfed.config import NetworkConfig
from p2pfed.config_file import dump_network
from p2pfed.control import ask, socket_path
from p2pfed.errors import LocalError

WAIT_S = 180.0
"""Longest wait for anything; importing torch takes 5 to 30 s where two cores are shared."""
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


class Fleet:
    """Processes by name, state below one folder. Use as a context manager."""

    def __init__(self, folder: Path, network: NetworkConfig) -> None:
        self.folder = folder
        self.network = network
        self.file = folder / "network.toml"
        self.file.write_text(dump_network(network))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def bootstrap(self, name: str = "bootstrap", listen: str = LOOPBACK, flags: tuple[str, ...] = ()) -> str:
        """Starts a bootstrap peer; its multiaddr."""
        self._run(name, "bootstrap", "start", "--listen", listen, *flags)
        return self.address(name)

    def node(self, name: str, data: Path, *flags: str, config: str = "") -> None:
        """Starts a node that listens on loopback; `config` is the text of its node.toml."""
        path = self.folder / f"{name}.toml"
        path.write_text(config)
        self._run(
            name,
            "node",
            "start",
            *("--data", str(data), "--config", str(path), "--listen", LOOPBACK, "--name", name, "--no-mdns"),
            *flags,
        )

    def home(self, name: str) -> Path:
        return self.folder / "homes" / name

    def ask(self, name: str, command: str = "status") -> Any:
        return ask(socket_path(self.home(name), os.environ), command)

    def address(self, name: str) -> str:
        self.wait(name, lambda status: bool(status["addresses"]))
        return str(self.ask(name)["addresses"][0])

    def wait(self, name: str, condition: Callable[[Any], bool]) -> Any:
        """The status that fulfils the condition. Fails with the last status and the log where none does."""
        status: Any = None
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            if self.processes[name].poll() is not None:
                raise AssertionError(f"{name} ended with {self.processes[name].returncode}: {self.log(name)}")
            try:
                status = self.ask(name)
            except LocalError:
                status = None
            if status is not None and condition(status):
                return status
            time.sleep(0.1)
        others = {other: process.poll() for other, process in self.processes.items() if other != name}
        logs = "\n".join(f"{other}: {self.log(other)[-600:]}" for other in others)
        raise AssertionError(f"{name} after {WAIT_S:.0f} s: {status}\n{self.log(name)}\nothers: {others}\n{logs}")

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Sends the signal and waits for the end; the exit status."""
        process = self.processes[name]
        process.send_signal(number)
        return process.wait(WAIT_S)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-3000:]

    def _run(self, name: str, *command: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "p2pfed", *command),
                    *("--network", str(self.file), "--home", str(self.home(name))),
                ],
                stdout=log,
                stderr=log,
                env=environment,
            )
