"""`p2pfed network`."""

from pathlib import Path

import pytest

from p2pfed.config_file import load_network
from p2pfed.errors import ExitCode
from tests.cli.shell import Shell

PEER = "12D3KooWL1env8z58ZDsaMym82X1sX9FPVh3NL4HKwuYAYsN5bQm"
ADDRESS = f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}"


def test_create_writes_a_commented_file_and_says_what_comes_next(shell: Shell) -> None:
    result = shell(
        "network",
        "create",
        "lifts",
        "--model",
        "smollm2-135m",
        "--bootstrap",
        ADDRESS,
        "--rank",
        "4",
        "--momentum",
        "local",
        "--encoding",
        "int8",
    )
    network = load_network(Path("lifts.toml"))
    assert network.name == "lifts"
    assert network.bootstrap == (ADDRESS,)
    assert (network.adapter.rank, network.adapter.alpha) == (4, 8.0), "alpha keeps its proportion"
    assert (network.gossip.encoding, network.gossip.steps_between_swaps) == ("int8", 4)
    assert network.gossip.momentum == "local"
    assert network.network_id in result.out
    assert "p2pfed node start --network lifts.toml" in result.out
    assert "# " in Path("lifts.toml").read_text()


def test_create_answers_in_json_and_makes_the_folder(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    described = shell("network", "create", "lifts", "--model", "./model", "--out", out, "--format", "json").json
    assert described["file"] == str(out / "lifts.toml")
    assert described["network_id"] == load_network(out / "lifts.toml").network_id


def test_create_never_overwrites(shell: Shell, network: Path) -> None:
    before = network.read_bytes()
    sentence = shell.refused(ExitCode.CONFIG, "network", "create", "trial", "--model", "smollm2-135m")
    assert "trial.toml exists" in sentence
    assert network.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("x", "--model", "promethus-7b"), 'the nearest preset is "prometheus-7b"'),
        (("x", "--model", "smollm2-135m", "--encoding", "int3"), 'gossip.encoding = "int3": must be one of "int4"'),
        (("bad name", "--model", "smollm2-135m"), 'name = "bad name": must be'),
        (("../x", "--model", "smollm2-135m"), "must be"),
        (("x", "--model", "smollm2-135m", "--rank", "0"), "adapter.rank = 0: must be within 1 to 1024"),
        (("x", "--model", "smollm2-135m", "--prompt", "p2pfed-absolut/1"), 'the nearest is "p2pfed-absolute/1"'),
        (("x", "--model", "smollm2-135m", "--bootstrap", "/ip4/192.0.2.1/tcp/4001"), "no /p2p/ID"),
        (("x", "--model", "smollm2-135m", "--bootstrap", "192.0.2.1:4001"), "is not of the form"),
    ],
)
def test_create_refuses(shell: Shell, arguments: tuple[str, ...], words: str) -> None:
    assert words in shell.refused(ExitCode.CONFIG, "network", "create", *arguments)
    assert not list(Path().glob("*.toml"))


def test_show(shell: Shell, network: Path) -> None:
    loaded = load_network(network)
    assert loaded.network_id in shell("network", "show", network).out
    shown = shell("network", "show", network, "--format", "json").json
    assert shown["network_id"] == loaded.network_id
    assert shown["fields"]["adapter.rank"] == loaded.adapter.rank


def test_show_tells_long_values_too(shell: Shell, network: Path) -> None:
    """In the hello they are digests."""
    members = [PEER[:-2] + end for end in ("m1", "m2", "m3", "m4", "m5", "m6")]
    network.write_text(network.read_text().replace("members = []", f"members = {members}".replace("'", '"')))
    assert shell("network", "show", network, "--format", "json").json["fields"]["gossip.members"] == members
    assert ", ".join(members) in shell("network", "show", network).out


def test_show_names_what_is_wrong_in_the_file(shell: Shell, network: Path) -> None:
    network.write_text(network.read_text().replace("rank = 8", "rnak = 8"))
    sentence = shell.refused(ExitCode.CONFIG, "network", "show", network)
    assert "adapter.rnak = 8: unknown key, the nearest known one is" in sentence
    assert "No such file" in shell.refused(ExitCode.CONFIG, "network", "show", "none.toml")
