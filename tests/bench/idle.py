"""What a bootstrap peer takes, idle and with fifty peers, and how soon the command line answers.

The peers are of five networks, each with its link, registered in the DHT, and identified. RSS beside that of a bare
`import libp2p`, CPU as a share of one core over twenty idle seconds; `p2pfed --help` beside `python -c pass`.
`python -m tests.bench.idle` prints one JSON line; aims: RSS under 90 MB with fifty peers, CPU under 1 %,
help under 0.3 s.
"""

import dataclasses
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import trio

from p2pfed.config import NetworkConfig
from p2pfed.config_file import dump_network
from p2pfed.core.events import Started
from p2pfed.core.membership import MembershipSettings
from p2pfed.core.messages import PROTOCOL_VERSION, Hello, Role
from p2pfed.core.peer import PeerSettings, PeerState
from p2pfed.net.dht.key import network_key
from p2pfed.net.dht.service import Dht
from p2pfed.net.driver import Driver
from p2pfed.net.identify import identify
from p2pfed.net.identity import new_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.net.seeds import parse_seed
from p2pfed.ports import Encoding
from p2pfed.presets import PRESETS
from tests.bench.children import say
from tests.processes.fleet import Fleet

SETTLE_S = 5.0
IDLE_S = 20.0
HELP_RUNS = 7
PEERS = 50
NETWORKS = 5
FIRST = PRESETS["smollm2-135m"]


def networks() -> list[NetworkConfig]:
    return [dataclasses.replace(FIRST, name=f"idle-{number}") for number in range(NETWORKS)]


class Visitor:
    """A peer that holds its link and seeks nobody."""

    def __init__(self, network: NetworkConfig) -> None:
        self.network_id = network.network_id
        self.transport = Libp2pTransport(new_identity(), ("/ip4/127.0.0.1/tcp/0",))
        self.dht = Dht(self.transport, random.Random(1))
        rng = random.Random(self.transport.peer)
        self.hello = Hello(
            version=PROTOCOL_VERSION,
            network_id=network.network_id,
            network=network.fields(),
            fingerprint=(),
            role=Role.OBSERVER,
            encoding=Encoding.INT4,
            instance=rng.getrandbits(53),
            name="",
            addresses=(),
            time_s=0.0,
        )
        settings = PeerSettings(membership=MembershipSettings(neighbours_target=0))
        self.state = PeerState(self.hello, self.transport.peer, settings, rng)
        self.driver = Driver(
            self.transport,
            network.network_id,
            on_report=lambda _: None,
            on_remember=lambda _: None,
            wall_clock=time.time,
        )

    async def visit(self, seed: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        fixed = parse_seed(seed).fixed
        assert fixed is not None
        peer, address = fixed
        async with self.transport.running(), trio.open_nursery() as nursery:
            nursery.start_soon(self.driver.run, self.state, self.hello, [Started()])
            await self.driver.ready()
            nursery.start_soon(self.driver._dial, peer, (address,))
            self.dht.table.name(peer, (address,))
            await self.dht.find(network_key(self.network_id), self.transport.addresses())
            await identify(self.transport, peer, address)
            task_status.started()


def with_peers(seed: str, measured: Callable[[], None]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(PEERS):
                await nursery.start(Visitor(networks()[number % NETWORKS]).visit, seed)
            await trio.to_thread.run_sync(measured)
            nursery.cancel_scope.cancel()

    trio.run(main)


def measure() -> dict[str, float]:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder), FIRST) as fleet:
        more: list[str] = []
        for network in networks():
            file = Path(folder) / f"{network.name}.toml"
            file.write_text(dump_network(network))
            more += ["--network", str(file)]
        seed = fleet.bootstrap(flags=("--no-mdns", *more))  # as the kit in bootstrap/ runs it
        process = psutil.Process(fleet.processes["bootstrap"].pid)

        def look(name: str) -> None:
            time.sleep(SETTLE_S)
            before = sum(process.cpu_times()[:2])
            time.sleep(IDLE_S)
            cpu_s = sum(process.cpu_times()[:2]) - before
            figures[f"{name}_rss_mb"] = process.memory_info().rss / 1e6
            figures[f"{name}_cpu_percent"] = 100.0 * cpu_s / IDLE_S

        def with_all() -> None:
            look("fifty_peers")
            status = fleet.ask("bootstrap")
            figures["linked"] = sum(each["linked"] for each in status["networks"])
            figures["providers"] = status["dht"]["providers"]

        look("bootstrap")
        with_peers(seed, with_all)
    bare = subprocess.run(
        [sys.executable, "-c", "import psutil, libp2p; print(psutil.Process().memory_info().rss)"],
        capture_output=True,
        text=True,
        check=True,
    )
    help_s, python_s = (_median_s(words) for words in (["-m", "p2pfed", "--help"], ["-c", "pass"]))
    return {
        **figures,
        "import_libp2p_rss_mb": int(bare.stdout) / 1e6,
        "ratio_rss_to_import_libp2p": figures["bootstrap_rss_mb"] * 1e6 / int(bare.stdout),
        "help_s": help_s,
        "ratio_help_to_python": help_s / python_s,
    }


def _median_s(words: list[str]) -> float:
    seconds = []
    for _ in range(HELP_RUNS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


if __name__ == "__main__":
    say(measure())
