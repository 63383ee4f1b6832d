"""The programs in examples/ run as their pages say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2pfed import api
from tests.fakes import VectorLearner

ROOT = Path(__file__).parent.parent


def run(*arguments: str | Path) -> str:
    ended = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_own_learner() -> None:
    out = run("examples/own_learner.py")
    assert "[ 2. -1.] and [ 2. -1.]" in out


@pytest.mark.slow
@pytest.mark.model
def test_learn_and_snapshot(tmp_path: Path) -> None:
    out = run("examples/learn_and_snapshot.py", tmp_path)
    assert "mean of 2 nodes after 80 steps" in out
    before, now = (float(word) for word in out.splitlines()[-1].split() if word.replace(".", "").isdigit())
    assert now < 0.5 * before
    assert (tmp_path / "consensus" / "adapter_config.json").is_file()


def test_watch(tmp_path: Path) -> None:
    config = api.NodeConfig(
        name="one", home=str(tmp_path / "one"), listen=("/ip4/127.0.0.1/tcp/0",), mdns=False, steps_max=8
    )
    with api.Node(api.create_network("trial", "./none", momentum="local"), config, VectorLearner(1.0)):
        assert "one: training" in run("examples/watch.py", tmp_path / "one")
    out = run("examples/watch.py", tmp_path / "one")
    assert "no node is running" in out and "2 trained" in out
