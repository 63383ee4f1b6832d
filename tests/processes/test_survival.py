"""What a node survives: kill -9, dead bootstrap peers, a copied identity, Ctrl-C."""

import json
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from p2pfed.config import GossipConfig
from p2pfed.presets import PRESETS
from tests.processes.fleet import Fleet

NETWORK = replace(PRESETS["glassllm-en"], name="survival", gossip=GossipConfig(2, swap_interval_s=0.5))
OFTEN = "checkpoint_interval_s = 0.2\n"
LITTLE = ("--steps-max", "30")
"""For nodes that are there to be met: they leave the cores to those under test and go on swapping."""

pytestmark = [pytest.mark.slow, pytest.mark.model]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    rows = ["Alice was beginning to get very tired.", "The Queen was in a furious passion.", "Off with her head!"]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows * 4))
    return path


@pytest.mark.timeout(240)
def test_kill_9_at_any_instant_then_it_goes_on_where_it_was(tmp_path: Path, data: Path) -> None:
    chance = random.Random(9)
    with Fleet(tmp_path, NETWORK) as fleet:
        fleet.node("other", data, *LITTLE)
        other = fleet.address("other")
        fleet.node("victim", data, "--bootstrap", other, config=OFTEN)
        before = fleet.wait("victim", lambda status: status["steps"] > 20 and status["swaps"]["finished"] > 2)
        for _ in range(3):
            time.sleep(chance.uniform(0.0, 0.5))
            known = fleet.ask("victim")["steps"]
            assert fleet.kill("victim") == -signal.SIGKILL
            # No bootstrap address this time: it remembers its neighbour.
            fleet.node("victim", data, config=OFTEN)
            after = fleet.wait("victim", lambda status: status["neighbours"] == 1)
            assert after["peer"] == before["peer"]
            assert after["steps"] > known / 2, "it began anew"
        assert fleet.ask("other")["notices"] == []
        fleet.wait("victim", lambda status: status["swaps"]["finished"] > 0)


@pytest.mark.timeout(200)
def test_it_trains_alone_while_every_bootstrap_peer_is_dead_and_joins_when_one_appears(
    tmp_path: Path, data: Path
) -> None:
    with Fleet(tmp_path, NETWORK) as fleet:
        bootstrap = fleet.bootstrap()
        fleet.kill("bootstrap")
        for name in ("one", "two"):
            fleet.node(name, data, "--bootstrap", bootstrap, *LITTLE)
        for name in ("one", "two"):
            status = fleet.wait(name, lambda status: status["steps"] > 10)
            assert "alone" in status["doing"]
        fleet.bootstrap(listen=bootstrap.partition("/p2p/")[0])
        for name in ("one", "two"):
            fleet.wait(name, lambda status: status["neighbours"] == 1 and status["swaps"]["finished"] > 0)


@pytest.mark.timeout(200)
def test_two_nodes_with_one_copied_identity_are_both_told(tmp_path: Path, data: Path) -> None:
    with Fleet(tmp_path, NETWORK) as fleet:
        fleet.node("third", data, *LITTLE)
        third = fleet.address("third")
        fleet.node("original", data, "--bootstrap", third, *LITTLE)
        fleet.wait("original", lambda status: status["neighbours"] == 1)
        fleet.home("copy").mkdir(mode=0o700)
        shutil.copy(fleet.home("original") / "identity.key", fleet.home("copy") / "identity.key")
        fleet.node("copy", data, "--bootstrap", third, *LITTLE)
        for name in ("original", "copy"):
            status = fleet.wait(name, lambda status: bool(status["notices"]))
            assert "identity" in status["notices"][0]
        assert any("identity" in notice for notice in fleet.ask("third")["notices"])


@pytest.mark.timeout(120)
def test_ctrl_c_ends_it_within_5_s_with_a_checkpoint(tmp_path: Path, data: Path) -> None:
    with Fleet(tmp_path, NETWORK) as fleet:
        fleet.node("one", data)
        fleet.wait("one", lambda status: status["steps"] > 5)
        begun = time.monotonic()
        status = fleet.kill("one", signal.SIGINT)
        assert time.monotonic() - begun < 5.0
        assert status in (0, 130), fleet.log("one")
        assert list(fleet.home("one").glob("checkpoint-*")), "what was learnt is kept"
        assert "Traceback" not in fleet.log("one")
