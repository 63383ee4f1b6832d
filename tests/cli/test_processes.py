"""Processes of their own: what is printed, signals, ports."""

import json
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.cli.shell import Shell, process

STOP_S = 5.0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_bootstrap_peer_tells_its_address_and_stops_cleanly(
    network: Path, tmp_path: Path, number: signal.Signals
) -> None:
    start = ("bootstrap", "start", "--network", network, "--no-mdns", "--home", tmp_path / "home")
    running = process(*start, "--listen", "/ip4/127.0.0.1/tcp/0", "--log-format", "json")
    try:
        assert running.stdout is not None
        address = running.stdout.readline().strip()
        assert address.startswith("/ip4/127.0.0.1/tcp/") and "/p2p/12D3KooW" in address
        begun = time.monotonic()
        running.send_signal(number)
        _, err = running.communicate(timeout=STOP_S)
        assert time.monotonic() - begun < STOP_S
    finally:
        running.kill()
    assert running.returncode == 0
    last = json.loads(err.splitlines()[-1])
    assert last["event"] == "stopped"
    assert str(tmp_path / "home") in last["kept"]


@pytest.mark.slow
def test_a_public_address_is_what_is_told(shell: Shell, network: Path, tmp_path: Path) -> None:
    start = ("bootstrap", "start", "--network", network, "--no-mdns", "--home", tmp_path / "home")
    public = "/dns4/peers.example.org/tcp/4001"
    running = process(*start, "--listen", "/ip4/127.0.0.1/tcp/0", "--public-address", public)
    try:
        assert running.stdout is not None
        assert running.stdout.readline().startswith(f"{public}/p2p/12D3KooW")
        status = shell("bootstrap", "status", "--home", tmp_path / "home", "--format", "json").json
        assert status["role"] == "bootstrap"
        assert "introducing newcomers" in shell("bootstrap", "status", "--home", tmp_path / "home").out
        assert shell("bootstrap", "peers", "--home", tmp_path / "home").out == "no peer is known yet\n"
        assert shell("bootstrap", "stop", "--home", tmp_path / "home").code == 0
        _, err = running.communicate(timeout=STOP_S)
    finally:
        running.kill()
    assert running.returncode == 0
    assert "stopped" in err.splitlines()[-1]


@pytest.mark.slow
def test_one_bootstrap_peer_serves_two_networks(shell: Shell, network: Path, tmp_path: Path) -> None:
    assert shell("network", "create", "second", "--model", "glassllm-en").code == 0
    start = ("bootstrap", "start", "--network", network, "--network", Path("second.toml").absolute(), "--no-mdns")
    running = process(*start, "--home", tmp_path / "home", "--listen", "/ip4/127.0.0.1/tcp/0")
    try:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("/ip4/127.0.0.1/tcp/")
        status = shell("bootstrap", "status", "--home", tmp_path / "home", "--format", "json").json
        assert [each["network"] for each in status["networks"]] == ["trial", "second"]
        out = shell("bootstrap", "status", "--home", tmp_path / "home").out
        assert "introducing newcomers of 2 networks" in out
        assert "trial (" in out and "second (" in out
        assert shell("bootstrap", "stop", "--home", tmp_path / "home").code == 0
        running.communicate(timeout=STOP_S)
    finally:
        running.kill()
    assert running.returncode == 0


@pytest.mark.slow
def test_a_port_in_use_is_one_sentence(network: Path, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        listen = f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}"
        start = ("bootstrap", "start", "--network", network, "--no-mdns", "--home", tmp_path / "home")
        running = process(*start, "--listen", listen)
        _, err = running.communicate(timeout=60.0)
    assert running.returncode == 13
    assert len(err.splitlines()) == 1 and "docs/exit-codes/13-port.md" in err


@pytest.mark.slow
def test_ctrl_c_during_a_snapshot_is_a_word_and_130(network: Path, tmp_path: Path) -> None:
    with socket.socket() as silent:  # takes connections and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        first = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}/p2p/12D3KooWL1env8z58ZDsaMym82X1sX9FPVh3NL4HKwuYAYsN5bQm"
        take = ("snapshot", "take", "--network", network, "--bootstrap", first, "--out", tmp_path / "consensus")
        running = process(*take)
        try:
            silent.settimeout(60.0)
            dialled, _ = silent.accept()
            with dialled:
                running.send_signal(signal.SIGINT)
                _, err = running.communicate(timeout=STOP_S)
        finally:
            running.kill()
    assert running.returncode == 130
    assert err == "p2pfed: interrupted\n"
    assert not (tmp_path / "consensus").exists()
