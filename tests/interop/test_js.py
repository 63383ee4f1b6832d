"""js-libp2p visits a bootstrap peer of ours: TCP, Noise, Yamux, identify, ping, and our node in the DHT.

Its packages, of the versions in package.json, are installed once into the user's cache folder. Skipped where
there is no node, or no package registry to be reached.
"""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from p2pfed import __version__, api
from p2pfed.config import ModelConfig, NetworkConfig
from p2pfed.net.dht.key import network_cid
from p2pfed.net.identify import IDENTIFY_PROTOCOL, PING_PROTOCOL
from tests.fakes import VectorLearner
from tests.processes.fleet import LOOPBACK, Fleet

HERE = Path(__file__).parent
ASK_S = 15.0
INSTALL_S = 200.0
VISIT_S = 60.0
NETWORK = NetworkConfig("interop", ModelConfig("package:glassllm-en"))


@pytest.fixture(scope="module")
def folder() -> Path:
    """Where visit.mjs finds its packages."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    wanted = (HERE / "package.json").read_bytes()
    folder = platformdirs.user_cache_path("p2pfed") / f"interop-{hashlib.sha256(wanted).hexdigest()[:12]}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_bytes(wanted)
        _npm(folder, ASK_S, npm, "view", "libp2p", "version")  # says soon where there is no registry
        _npm(folder, INSTALL_S, npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts")
        (folder / "installed").touch()
    return folder


def _npm(folder: Path, seconds: float, *command: str) -> None:
    try:
        run = subprocess.run(
            [*command, "--fetch-retries=0"], cwd=folder, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"no package registry answered within {seconds:.0f} s")
    if run.returncode:
        pytest.skip(f"the packages of js-libp2p cannot be had: {' '.join(run.stderr.split())[:200]}")


def visit(folder: Path, address: str, cid: str) -> Any:
    script = folder / "visit.mjs"
    script.write_bytes((HERE / "visit.mjs").read_bytes())  # its imports are looked for beside it
    run = subprocess.run(["node", script, address, cid], capture_output=True, text=True, timeout=VISIT_S)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.slow
def test_js_libp2p_identifies_pings_and_finds_our_peers_in_the_dht(folder: Path, tmp_path: Path) -> None:
    with Fleet(tmp_path, NETWORK) as fleet:
        seed = fleet.bootstrap(flags=("--no-mdns",))
        config = api.NodeConfig(
            home=str(tmp_path / "node"), listen=(LOOPBACK,), bootstrap=(seed,), mdns=False, steps_max=1
        )
        with api.Node(NETWORK, config, VectorLearner(1.0)) as node:
            fleet.wait("bootstrap", lambda status: status["dht"]["providers"] == 1)
            (address,) = node.addresses()
            told = visit(folder, seed, network_cid(NETWORK.network_id))
            status = fleet.ask("bootstrap")
    assert told["agent"] == f"p2pfed/{__version__}"
    assert {IDENTIFY_PROTOCOL, PING_PROTOCOL, "/ipfs/kad/1.0.0", "/p2pfed/hello/1"} <= set(told["protocols"])
    assert (told["encryption"], told["multiplexer"]) == ("/noise", "/yamux/1.0.0")
    assert told["listening"] == [seed.partition("/p2p/")[0]]
    assert told["observed"].startswith("/ip4/127.0.0.1/tcp/")
    assert 0 <= told["rtt"] < 10_000
    where, _, peer = address.partition("/p2p/")
    assert told["providers"] == {peer: [where]}
    assert status["dht"] == {"servers": 1, "providers": 2, "serves": True}, "js is a DHT server and a provider now"
    assert status["notices"] == []
