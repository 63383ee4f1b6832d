"""`p2pfed snapshot take`, of nodes that run in this process."""

import hashlib
import json
from pathlib import Path

import numpy
import pytest

from p2pfed.errors import ExitCode
from p2pfed.wire.tensors import layout_of, unpack_tensors
from tests.cli.conftest import StartNode
from tests.cli.shell import Shell

NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWL1env8z58ZDsaMym82X1sX9FPVh3NL4HKwuYAYsN5bQm"


@pytest.mark.slow
def test_the_mean_of_two_nodes(shell: Shell, network: Path, start_node: StartNode, tmp_path: Path) -> None:
    one = start_node("one")
    start_node("two", *one.addresses())
    out = tmp_path / "consensus"
    take = ("snapshot", "take", "--network", network, "--bootstrap", one.addresses()[0], "--out", out)
    taken = shell(*take, "--settle", "2", "--format", "json").json
    assert sorted(each["name"] for each in taken["nodes"]) == ["one", "two"]
    assert [each["weight"] for each in taken["nodes"]] == [0.5, 0.5]
    payload = (out / "adapter_model.safetensors").read_bytes()
    assert hashlib.sha256(payload).hexdigest() == taken["adapter_sha256"]
    values = unpack_tensors(payload, *layout_of(payload))["vector"]
    assert numpy.isfinite(values).all() and 0.0 < values[0] < 1.0
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["target_modules"]) == ("LORA", 8, ["q_proj", "v_proj"])
    manifest = json.loads((out / "p2pfed.json").read_text())
    assert len(manifest["contributions"]) == 2
    assert "exists" in shell.refused(ExitCode.DISK, *take)


def test_it_refuses(shell: Shell, network: Path) -> None:
    take = ("snapshot", "take", "--network", network, "--out", "consensus")
    assert "names no bootstrap peer" in shell.refused(ExitCode.CONFIG, *take)
    assert "has no /p2p/ID" in shell.refused(ExitCode.CONFIG, *take, "--bootstrap", "/ip4/127.0.0.1/tcp/9")
    assert not Path("consensus").exists()


@pytest.mark.slow
def test_nobody_there(shell: Shell, network: Path) -> None:
    take = ("snapshot", "take", "--network", network, "--out", "consensus", "--bootstrap", NOBODY, "--settle", "1")
    assert "no node could be read" in shell.refused(ExitCode.TRANSPORT, *take)
    assert not Path("consensus").exists()
