"""`p2pfed node`: what stands in the way of a start, and asking running ones."""

import socket
from pathlib import Path

import pytest

from p2pfed.errors import ExitCode
from p2pfed.store import open_home
from tests.cli.conftest import StartNode
from tests.cli.shell import Shell


def test_no_node_is_running(shell: Shell, tmp_path: Path) -> None:
    for command in ("status", "peers", "stop"):
        assert "no node is running" in shell.refused(ExitCode.NOT_RUNNING, "node", command)
    assert "called x" in shell.refused(ExitCode.NOT_RUNNING, "node", "status", "--name", "x")
    assert "no state folder" in shell.refused(ExitCode.NOT_RUNNING, "node", "status", "--home", tmp_path / "none")
    assert "no node is running at" in shell.refused(ExitCode.NOT_RUNNING, "node", "status", "--home", tmp_path)
    assert "no bootstrap peer" in shell.refused(ExitCode.NOT_RUNNING, "bootstrap", "stop")


def test_the_only_running_node_is_found(shell: Shell, start_node: StartNode) -> None:
    node = start_node("solo")
    status = shell("node", "status", "--format", "json").json
    assert status["name"] == "solo"
    assert status["addresses"] == list(node.addresses())
    text = shell("node", "status").out
    assert "alone: no neighbour yet" in text
    assert "none yet; in int4" in text and "nothing known before the first swap" in text
    assert node.addresses()[0] in text
    assert shell("node", "peers").out == "no peer is known yet\n"
    assert shell("node", "peers", "--format", "json").json == []
    assert "no bootstrap peer" in shell.refused(ExitCode.NOT_RUNNING, "bootstrap", "status")


def test_of_several_one_must_be_named(shell: Shell, start_node: StartNode) -> None:
    one = start_node("one")
    start_node("two", *one.addresses())
    sentence = shell.refused(ExitCode.USAGE, "node", "status")
    assert "2 are running" in sentence and "one (" in sentence and "two (" in sentence
    assert shell("node", "status", "--name", "two", "--format", "json").json["name"] == "two"
    home = shell("node", "status", "--name", "one", "--format", "json").json["home"]
    assert shell("node", "status", "--home", home, "--format", "json").json["name"] == "one"
    assert "one" in shell("node", "peers", "--name", "two").out


def test_stop_waits_until_it_has_stopped(shell: Shell, start_node: StartNode) -> None:
    node = start_node("solo")
    stopped = shell("node", "stop", "--format", "json").json
    assert stopped["stopped"] == "solo"
    assert list(Path(stopped["home"]).glob("checkpoint-*"))
    assert node.wait(10.0)
    shell.refused(ExitCode.NOT_RUNNING, "node", "stop")


def test_a_node_that_is_still_starting_is_told_from_none(shell: Shell, network: Path, tmp_path: Path) -> None:
    home = tmp_path / "state" / "p2pfed" / "trial" / "slow"
    with open_home(home):
        (home / "identity.key").touch()
        assert "slow is still starting" in shell.refused(ExitCode.NOT_RUNNING, "node", "status")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ((), ExitCode.CONFIG, "give --data PATH"),
        (("--data", "none.jsonl"), ExitCode.DATA, "none.jsonl"),
        (("--data", "empty.jsonl"), ExitCode.DATA, "no usable row"),
        (("--data", "x", "--bootstrap", "192.0.2.1:4001"), ExitCode.CONFIG, "--bootstrap 192.0.2.1:4001: must be"),
        (("--data", "x", "--bootstrap", "/ip4/192.0.2.1/tcp/1"), ExitCode.CONFIG, "has no /p2p/ID"),
        (("--data", "x", "--listen", "/ip4/300.0.0.1/tcp/1"), ExitCode.CONFIG, "300.0.0.1"),
        (("--data", "x", "--listen", "/dns4/a.example/tcp/1"), ExitCode.CONFIG, "/ip4/HOST/tcp/PORT"),
        (("--data", "x", "--listen", "/ip4/192.0.2.77/tcp/1"), ExitCode.PORT, "cannot listen on 192.0.2.77"),
        (("--data", "x", "--name", "a/b"), ExitCode.CONFIG, "--name a/b: must be"),
        (("--data", "x", "--steps-max", "-1"), ExitCode.CONFIG, "--steps-max -1: must be within"),
        (("--data", "x", "--device", "gpu"), ExitCode.CONFIG, '--device gpu: must be one of "auto"'),
        (("--data", "x", "--config", "none.toml"), ExitCode.CONFIG, "none.toml: cannot be read"),
        (("--config", "wrong.toml"), ExitCode.CONFIG, "wrong.toml:1: thread = 2: unknown key, the nearest known one"),
    ],
)
def test_start_refuses(shell: Shell, network: Path, options: tuple[str, ...], code: ExitCode, words: str) -> None:
    Path("empty.jsonl").touch()
    Path("wrong.toml").write_text("thread = 2\n")
    assert words in shell.refused(code, "node", "start", "--network", network, "--no-mdns", *options)


def test_start_refuses_what_is_in_use(shell: Shell, network: Path, data: Path, tmp_path: Path) -> None:
    start = ("node", "start", "--network", network, "--data", data, "--no-mdns", "--home", tmp_path / "home")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert str(port) in shell.refused(ExitCode.PORT, *start, "--listen", f"/ip4/127.0.0.1/tcp/{port}")
    with open_home(tmp_path / "home"):
        sentence = shell.refused(ExitCode.HOME_LOCKED, *start)
    assert "needs another --name or --home" in sentence


def test_start_refuses_a_damaged_identity(shell: Shell, network: Path, data: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "identity.key").write_bytes(b"?")
    (home / "identity.key").chmod(0o600)
    start = ("node", "start", "--network", network, "--data", data, "--no-mdns", "--home", home)
    assert "is damaged (1 bytes)" in shell.refused(ExitCode.IDENTITY, *start)
    (home / "identity.key").chmod(0o644)
    assert "chmod 600" in shell.refused(ExitCode.IDENTITY, *start)
    assert (home / "identity.key").read_bytes() == b"?", "never replaced"


def test_options_override_the_file(tmp_path: Path) -> None:
    from p2pfed.cli.node import node_config_of

    file = tmp_path / "node.toml"
    file.write_text('data = "a.jsonl"\nthreads = 3\nbootstrap = ["/ip4/192.0.2.1/tcp/1/p2p/x"]\n')
    config = node_config_of(file, data="b.jsonl", bootstrap=None, mdns=False, listen=[], threads=None)
    assert (config.data, config.threads, config.mdns, len(config.bootstrap)) == ("b.jsonl", 3, False, 1)


def test_network_wide_figures_are_told_with_their_error() -> None:
    from p2pfed.cli.node import estimate_words

    figures = {
        "size": 11.8,
        "error": 0.031,
        "loss": 2.3141,
        "examples": 4210.3,
        "consensus_distance": 0.04217,
        "relative_distance": 0.0799,
    }
    assert estimate_words(figures) == (
        "12 nodes, give or take 3 %; mean loss 2.31; 4,210 examples; "
        "consensus distance 0.0422 (8.0 % of the way learnt)"
    )
    assert "not known yet" in estimate_words({**figures, "error": 1.0})
    assert "mean loss -;" in estimate_words({**figures, "loss": None, "relative_distance": None})


def test_swaps_say_why_they_were_declined_and_how_much_was_clipped(shell: Shell, start_node: StartNode) -> None:
    from p2pfed.cli.node import render_status

    start_node("solo")
    status = shell("node", "status", "--format", "json").json
    swaps = {**status["swaps"], "finished": 9, "declined": 4, "declined_by": {"busy": 3, "budget": 1}, "kept": 0.92}
    text = render_status({**status, "mixes": 31, "swaps": swaps})
    assert (
        "9 finished, 4 declined (1 budget, 3 busy); in int4; 31 mixes in the adapter, 8 % of differences clip" in text
    )
