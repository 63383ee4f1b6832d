"""The Python API: lives of peers in threads, errors, signals, snapshots."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from p2pfed import api
from p2pfed.errors import ConfigError, ExitCode, LearnerError, LocalError
from p2pfed.net.identity import load_or_create_identity
from p2pfed.store import open_home
from tests.fakes import VectorLearner

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)
WAIT_S = 60.0


@pytest.fixture
def network() -> api.NetworkConfig:
    return api.create_network("trial", "./none", steps_between_swaps=2, momentum="local")


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., api.NodeConfig]:
    def make(name: str, *bootstrap: str, steps_max: int = 20) -> api.NodeConfig:
        home = str(tmp_path / name)
        return api.NodeConfig(
            name=name, home=home, listen=LOOPBACK, bootstrap=bootstrap, mdns=False, steps_max=steps_max
        )

    return make


def wait_for(condition: Callable[[], bool]) -> None:
    poll = threading.Event()
    for _ in range(int(WAIT_S / 0.1)):
        if condition():
            return
        poll.wait(0.1)
    raise AssertionError(f"not within {WAIT_S:.0f} s")


@pytest.mark.slow
def test_two_nodes_meet_through_a_bootstrap_peer_and_average(
    network: api.NetworkConfig,
    config: Callable[..., api.NodeConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("p2pfed.runtime.FIGURES_INTERVAL_S", 0.1)
    with api.Bootstrap(network, config("introducer")) as introducer:
        learners = VectorLearner(1.0, rate=0.0, start=1.0), VectorLearner(-1.0, rate=0.0, start=-1.0)
        nodes = [
            api.Node(network, config(name, *introducer.addresses()), learner)
            for name, learner in zip(("one", "two"), learners, strict=True)
        ]
        with nodes[0] as one, nodes[1] as two:
            wait_for(lambda: one.status()["swaps"]["finished"] > 0 and two.status()["swaps"]["finished"] > 0)
            assert {row["name"] for row in one.peers()} >= {"two"}
            assert introducer.status()["role"] == "bootstrap" and introducer.status()["estimate"] is None
            status = one.status()
            assert status["encoding"] == "int4" and status["mixes"] >= 1 and status["swaps"]["kept"] == 1.0
            wait_for(lambda: any(event.kind == "network" for event in api.events_of(tmp_path / "one")))
            wait_for(lambda: 1.0 <= one.status()["estimate"]["size"] <= 2.0)
            assert [row["encoding"] for row in one.peers() if row["name"] == "two"] == ["int4"]
            assert api.status_of(tmp_path / "one")["name"] == "one"
            assert api.peers_of(tmp_path / "one")
    assert abs(float(learners[0].vector[0])) < 1.0 and abs(float(learners[1].vector[0])) < 1.0
    assert {"neighbour-linked", "mixed", "stopping"} <= {event.kind for event in api.events_of(tmp_path / "one")}
    assert list((tmp_path / "one").glob("checkpoint-*"))


def test_both_devices_with_one_identity_are_told(
    network: api.NetworkConfig, config: Callable[..., api.NodeConfig], tmp_path: Path
) -> None:
    """The last word before a link is closed must arrive."""
    third = api.Node(network, config("third"), VectorLearner(1.0))
    with third, api.Node(network, config("original", *third.addresses()), VectorLearner(1.0)) as original:
        wait_for(lambda: original.status()["neighbours"] == 1)
        (tmp_path / "copy").mkdir(mode=0o700)
        shutil.copy(tmp_path / "original" / "identity.key", tmp_path / "copy" / "identity.key")
        with api.Node(network, config("copy", *third.addresses()), VectorLearner(1.0)) as copy:
            for node in (original, copy):
                wait_for(lambda node=node: "identity" in " ".join(node.status()["notices"]))


def test_a_node_goes_on_where_it_was(network: api.NetworkConfig, config: Callable[..., api.NodeConfig]) -> None:
    for steps in (10, 30):
        learner = VectorLearner(1.0)
        with api.Node(network, config("one", steps_max=steps), learner) as node:
            wait_for(lambda: node.status()["training_over"])
        assert learner.steps == steps


def test_what_goes_wrong_before_it_listens_is_raised_by_start(
    network: api.NetworkConfig, config: Callable[..., api.NodeConfig]
) -> None:
    with pytest.raises(ConfigError, match="no /p2p/ID"):
        api.Node(network, config("one", "/ip4/192.0.2.1/tcp/1"), VectorLearner(1.0)).start()
    with api.Node(network, config("one"), VectorLearner(1.0)):
        with pytest.raises(LocalError, match="in use by process") as caught:
            api.Node(network, config("one"), VectorLearner(1.0)).start()
        assert caught.value.exit_code is ExitCode.HOME_LOCKED


class FailingLearner(VectorLearner):
    def step(self) -> api.StepReport:
        raise LearnerError("the data is gone", ExitCode.DATA)


def test_what_ends_a_running_node_comes_out_alone(
    network: api.NetworkConfig, config: Callable[..., api.NodeConfig]
) -> None:
    node = api.Node(network, config("one"), FailingLearner(1.0))
    with pytest.raises(LearnerError, match="the data is gone"):
        node.start()
        node.wait(WAIT_S)
    with pytest.raises(LearnerError):
        node.stop()


def test_asking_one_that_does_not_run(network: api.NetworkConfig, config: Callable[..., api.NodeConfig]) -> None:
    node = api.Node(network, config("one"), VectorLearner(1.0))
    with pytest.raises(LocalError, match="not running"):
        node.status()
    with node:
        pass
    with pytest.raises(LocalError, match="not running any more"):
        node.status()
    node.stop()
    with pytest.raises(LocalError, match="runs once"):
        node.run()


def test_a_checkpoint_of_an_earlier_form_is_a_sentence(
    network: api.NetworkConfig, config: Callable[..., api.NodeConfig], tmp_path: Path
) -> None:
    with open_home(tmp_path / "one") as home:
        home.save_checkpoint(12, bytes(8) + VectorLearner(1.0).vector.tobytes())
    with pytest.raises(LocalError, match=r"checkpoint of step 12 in .* cannot be used .*take another --home") as caught:
        api.Node(network, config("one"), VectorLearner(1.0)).start()
    assert caught.value.exit_code is ExitCode.CHECKPOINT
    assert list((tmp_path / "one").glob("checkpoint-*")), "nothing is thrown away"


def test_a_network_that_weighs_by_examples_must_know_them(
    network: api.NetworkConfig, config: Callable[..., api.NodeConfig]
) -> None:
    weighing = replace(network, gossip=replace(network.gossip, weighting="examples"))
    with pytest.raises(ConfigError, match="how many rows"):
        api.Node(weighing, config("one"), VectorLearner(1.0)).start()
    with api.Node(weighing, config("one"), VectorLearner(1.0), rows=7) as node:
        assert node.status()["name"] == "one"


def test_who_is_no_member_of_a_fixed_membership_is_told(
    network: api.NetworkConfig, config: Callable[..., api.NodeConfig], tmp_path: Path
) -> None:
    with open_home(tmp_path / "one") as home:
        own = load_or_create_identity(home.path / "identity.key").peer_id
    fixed = replace(network, gossip=replace(network.gossip, members=(own,)))
    with api.Node(fixed, config("one"), VectorLearner(1.0)) as node:
        assert node.status()["peer"] == own
    with pytest.raises(ConfigError, match=r"none of the 1 of gossip\.members"):
        api.Node(fixed, config("two"), VectorLearner(1.0)).start()


def test_create_network_checks_values() -> None:
    network = api.create_network("x", "smollm2-135m", rank=4, seed=7, prompt="p2pfed-absolute/1", alpha=3.0)
    assert (network.adapter.rank, network.adapter.alpha, network.adapter.seed) == (4, 3.0, 7)
    with pytest.raises(ConfigError, match=r"adapter\.rank = 0"):
        api.create_network("x", "smollm2-135m", rank=0)


def test_every_public_name_is_there() -> None:
    assert all(hasattr(api, name) for name in api.__all__)


STUCK = """
import sys, threading
from p2pfed import api
from tests.fakes import VectorLearner

class StuckLearner(VectorLearner):
    def step(self):
        if self.steps == 3:
            print("stuck", flush=True)
            threading.Event().wait(3600)
        return super().step()

network = api.create_network("trial", "./none", momentum="local")
config = api.NodeConfig(home=sys.argv[1], listen=("/ip4/127.0.0.1/tcp/0",), mdns=False)
node = api.Node(network, config, StuckLearner(1.0), log=lambda kind, fields: print(kind, fields, flush=True))
node.run()
print("over", flush=True)
import os; os._exit(0)
"""


def stuck(home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", STUCK, str(home)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
        env=dict(os.environ),
    )


def read_until(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"it ended without {word}")


@pytest.mark.slow
def test_ctrl_c_ends_a_node_whose_step_hangs(tmp_path: Path) -> None:
    process = stuck(tmp_path / "home")
    try:
        read_until(process, "stuck")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=8.0)  # 5 s, and the machine may be busy
    finally:
        process.kill()
    assert "a step was under way and is lost" in out
    assert process.returncode == 0


@pytest.mark.slow
def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    process = stuck(tmp_path / "home")
    try:
        read_until(process, "stuck")
        process.send_signal(signal.SIGINT)
        read_until(process, "stopping")
        process.send_signal(signal.SIGINT)
        assert process.wait(2.0) == -signal.SIGINT
    finally:
        process.kill()
