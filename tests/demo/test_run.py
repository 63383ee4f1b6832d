"""The whole demo with a real model of 0.85 M parameters: five processes that gossip, six that measure, one report."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from p2pfed.demo.measurement import Kind
from p2pfed.demo.processes import child_environment
from p2pfed.demo.run import run_demo
from p2pfed.demo.trades import TRADES
from p2pfed.errors import ConfigError, ExitCode, LocalError
from tests.demo.small import small_settings, write_small_data
from tests.demo.test_processes import ROOT, STOP_S, lives, until

NODES_UP_S = 240.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pytest.importorskip("glassllm", reason="the small model comes from the package glassllm")
    write_small_data(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(600)
def test_the_whole_demo(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PFED_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    report = run_demo(out=out, settings=small_settings(data), seed=3)
    assert psutil.Process().children(recursive=True) == []
    assert [each.kind for each in report.measurements] == [Kind.BASE, *[Kind.ISOLATED] * 4, Kind.CONSENSUS]
    assert report.consensus.all.loss < 0.6 * report.base.all.loss
    assert {node.trade for node in report.nodes} == set(TRADES)
    for node in report.nodes:
        assert node.steps == 12 and node.swaps > 0 and node.neighbours > 0 and node.bytes_up > 0
        assert node.losses[-1][0] == 12 and node.losses[-1][1] < node.losses[0][1]
    for each in report.of(Kind.ISOLATED):
        assert len(each.losses) == 12
    last = report.nodes[-1]
    assert "mdns" in last.found_by or "inbound" in last.found_by or "address" in report.discovery
    assert json.loads((out / "report.json").read_text())["network_id"] == report.network_id
    assert "<!doctype html>" in (out / "report.html").read_text()[:20]
    assert {path.name for path in (out / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "p2pfed.json",
    }


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(600)
def test_ctrl_c_in_the_middle(data: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    environment = {
        **child_environment(os.environ),
        "PYTHONPATH": str(ROOT),
        "P2PFED_CACHE": str(tmp_path / "cache"),
        "TMPDIR": str(scratch),
    }
    command = [sys.executable, "-m", "tests.demo.run_small", str(data), str(tmp_path / "out")]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert until(lambda: len(list(scratch.glob("*/*/events.jsonl"))) >= 3, NODES_UP_S), "no nodes came up"
        children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        assert len(children) >= 5
        before = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=4 * STOP_S)
        assert time.monotonic() - before < STOP_S
    finally:
        process.kill()
    assert process.returncode == ExitCode.INTERRUPTED
    assert b"SIGINT" in words and b"kept: the converted base model in the cache" in words
    assert not any(lives(pid) for pid in children)
    assert list(scratch.glob("p2pfed-demo-*")) == []


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "adapter"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work", encoding="ascii")
    with pytest.raises(LocalError, match="not a snapshot of p2pfed"):
        run_demo(out=tmp_path)
    assert (mine / "thesis.txt").is_file()


def test_steps_must_be_some(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be 1 or more"):
        run_demo(steps=0, out=tmp_path)
