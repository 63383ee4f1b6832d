"""`p2pfed doctor --network` among hosts on a LAN: each broken assumption ends in a sentence that says what to do."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from p2pfed.net.identity import load_identity
from tests.bench.links import refusal
from tests.net.lan import Lan, network

DOCTOR_S = 14.5
"""Of the 20 s for all of it; the rest is for the packages and the model."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif((why := refusal()) is not None, reason=why or ""),
]


def sentences(found: list[dict[str, Any]], subject: str, level: str) -> str:
    """Message and remedy of all findings of that subject and level; the whole where there is none, to read."""
    chosen = [each for each in found if each["subject"].startswith(subject) and each["level"] == level]
    assert chosen, f"no {level} for {subject} in {found}"
    return " | ".join(f"{each['message']} -> {each['remedy']}" for each in chosen)


def test_peers_by_each_means_and_the_field_that_differs(tmp_path: Path) -> None:
    with Lan("doctor", 3) as lan:
        for host in range(3):
            lan.up(host, f"10.77.0.{host + 1}/24", f"fd00:77::{host + 1}/64")
        other = network(revision="abc")
        with lan.child(0, tmp_path / "one") as one, lan.child(1, tmp_path / "two", other) as two:
            address = f"{one.ready()['addresses'][0]}/p2p/{one.ready()['peer']}"
            two.ready()
            found = lan.doctor(2, tmp_path / "here", bootstrap=[address])
        for version in (4, 6):
            assert "heard back" in sentences(found, f"multicast on eth0 (IPv{version})", "ok")
        assert "one (" in sentences(found, "LAN", "ok") and "eth0 (IPv4, IPv6)" in sentences(found, "LAN", "ok")
        assert 'model.revision is "abc" there and "" here' in sentences(found, "LAN", "warn")
        assert "the same network.toml" in sentences(found, "LAN", "warn")
        assert "answers at /ip4/10.77.0.1/tcp/" in sentences(found, "seed", "ok")
        assert "against 2 peers" in sentences(found, "clock skew", "ok")
        assert float(found[-1]["message"]) < DOCTOR_S
        assert not (tmp_path / "here" / "home").exists(), "looking changes nothing"


@pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is missing")
def test_blocked_ports(tmp_path: Path) -> None:
    """Multicast over IPv4, and the port of the node that runs here: each its sentence."""
    with Lan("blocked", 1) as lan:
        lan.up(0, "10.77.0.1/24", "fd00:77::1/64")
        with lan.child(0, tmp_path / "one", listen=["/ip4/0.0.0.0/tcp/4004"]) as one:
            one.ready()
            lan.inside(0, "iptables", "-A", "INPUT", "-p", "udp", "--dport", "5353", "-j", "DROP")
            lan.inside(0, "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "4004", "-j", "DROP")
            found = lan.doctor(0, tmp_path / "one")
        multicast = sentences(found, "multicast on eth0 (IPv4)", "warn")
        assert "224.0.0.251" in multicast and "firewall" in multicast and "the other IP version works" in multicast
        own = sentences(found, "own node", "warn")
        assert "10.77.0.1/tcp/4004" in own and "allow TCP port 4004" in own
        assert float(found[-1]["message"]) < DOCTOR_S


def test_one_identity_on_two_devices_and_a_clock_off_by_hours(tmp_path: Path) -> None:
    with Lan("copied", 3) as lan:
        for host in range(3):
            lan.up(host, f"10.77.0.{host + 1}/24")
        with lan.child(0, tmp_path / "one", off_s=-5 * 3600) as one:
            peer = one.ready()["peer"]
            copy = tmp_path / "two" / "home" / "identity.key"
            copy.parent.mkdir(parents=True, mode=0o700)
            shutil.copy(one.home / "identity.key", copy)
            assert load_identity(copy).peer_id == peer
            with lan.child(1, tmp_path / "two") as two:
                two.ready()
                found = lan.doctor(2, tmp_path / "here")
                copied = sentences(found, "identity", "warn")
                assert "10.77.0.1" in copied and "10.77.0.2" in copied and "identity.key" in copied
            found = lan.doctor(2, tmp_path / "here")
            clock = sentences(found, "clock skew", "warn")
            assert "5 HOURS behind" in clock and "time server" in clock
            found = lan.doctor(1, tmp_path / "two")
            assert "runs on another device already" in sentences(found, "identity", "fail")


def test_nobody_there_and_nothing_that_listens(tmp_path: Path) -> None:
    with Lan("alone", 2) as lan:
        for host in range(2):
            lan.up(host, f"10.77.0.{host + 1}/24")
        stranger = "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq"
        seeds = [f"/ip4/10.77.0.{host}/tcp/4001/p2p/{stranger}" for host in (2, 77)]
        found = lan.doctor(0, tmp_path / "here", bootstrap=[*seeds, f"/ip4/203.0.113.1/tcp/4001/p2p/{stranger}"])
        seed = sentences(found, "seed", "warn")
        assert "nothing listens at /ip4/10.77.0.2/tcp/4001" in seed and "start p2pfed there" in seed
        assert "no way to /ip4/203.0.113.1/tcp/4001" in seed and "10.77.0.77" in seed
        assert "none of 3 answers" in seed
        assert "no other peer of network" in sentences(found, "LAN", "ok")
        assert "would train alone" in sentences(found, "peers", "warn")
        assert float(found[-1]["message"]) < DOCTOR_S


def test_a_device_without_a_network(tmp_path: Path) -> None:
    with Lan("offline", 1) as lan:
        found = lan.doctor(0, tmp_path / "here")
        assert "no network interface is up" in sentences(found, "multicast", "warn")
        assert "interfaces" in sentences(found, "multicast", "warn")
