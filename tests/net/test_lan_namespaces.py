"""mDNS between hosts: network namespaces on a bridge, a node each, and what happens to their interfaces."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from p2pfed.net.interfaces import POLL_S
from tests.bench.links import refusal
from tests.net.lan import Child, Lan, found

KNOWN_S = 3.0
"""From when the second node listens until both know each other; `tests.bench.lan` measures it 20 times."""

TENTATIVE_S = 4.0
"""Duplicate address detection: up to a second before it, and three of it, as the test asks for."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif((why := refusal()) is not None, reason=why or ""),
]


def problem(line: dict[str, object]) -> bool:
    return line["event"] == "log" and line["kind"] == "mdns"


def linked(child: Child) -> dict[str, Any]:
    return child.wait(lambda line: line["event"] == "log" and line["kind"] == "neighbour-linked")


def meet(one: Child, other: Child) -> float:
    """Seconds from when `other`, the later one, listens until both know each other."""
    first, second = one.ready(), other.ready()
    times = [one.wait(found(second["peer"]))["at"], other.wait(found(first["peer"]))["at"]]
    return max(times) - second["at"]


@pytest.mark.parametrize("run", range(4))
def test_two_hosts_know_each_other_within_three_seconds(run: int, tmp_path: Path) -> None:
    with Lan(f"meet{run}", 2) as lan:
        for host in range(2):
            lan.up(host, f"10.77.0.{host + 1}/24")
        with lan.child(0, tmp_path / "one") as one:
            one.ready()
            with lan.child(1, tmp_path / "two") as two:
                assert meet(one, two) < KNOWN_S
                assert linked(one) and linked(two)


@pytest.mark.parametrize("kind", ["unique-local", "link-local"])
def test_hosts_with_ipv6_only(kind: str, tmp_path: Path) -> None:
    with Lan(f"six-{kind}", 2) as lan:
        for host in range(2):
            given = (f"fd00:77::{host + 1}/64",) if kind == "unique-local" else ()
            lan.up(host, *given, link_local=kind == "link-local")
        with lan.child(0, tmp_path / "one") as one:
            one.ready()
            with lan.child(1, tmp_path / "two") as two:
                assert meet(one, two) < KNOWN_S
                address = one.wait(found(two.ready()["peer"]))["addresses"][0]
                assert address.startswith("/ip6/fd00:77::2/" if kind == "unique-local" else "/ip6/fe80::2%eth0/")
                assert ("%eth0/" in linked(one)["fields"]["address"]) == (kind == "link-local")
                assert linked(two)


def test_an_interface_that_comes_up_later(tmp_path: Path) -> None:
    with Lan("late", 2) as lan:
        lan.up(0, "10.77.0.1/24")
        with lan.child(0, tmp_path / "one") as one, lan.child(1, tmp_path / "two") as two:
            here, late = one.ready()["peer"], two.ready()["peer"]
            assert "mDNS is off" in two.wait(problem)["fields"]["warning"]
            lan.up(1, "10.77.0.2/24")
            plugged = time.time()
            assert two.wait(found(here))["at"] - plugged < POLL_S + KNOWN_S
            assert one.wait(found(late))["addresses"][0].startswith("/ip4/10.77.0.2/")
            changed = two.wait(lambda line: line["event"] == "log" and line["kind"] == "addresses-changed")
            assert "/ip4/10.77.0.2/" in changed["fields"]["listening"] and "127.0.0.1" not in str(changed)
            assert linked(two)


def test_an_ipv6_address_that_is_not_ready_at_once(tmp_path: Path) -> None:
    """The system asks others whether they have it; until then nothing can be sent from it."""
    with Lan("tentative", 2) as lan:
        lan.inside(1, "sysctl", "-q", "net.ipv6.conf.eth0.dad_transmits=3")
        lan.up(0, link_local=True)
        with lan.child(0, tmp_path / "one") as one, lan.child(1, tmp_path / "two") as two:
            here, late = one.ready()["peer"], two.ready()["peer"]
            two.wait(problem)
            lan.ip(1, "link", "set", "eth0", "up")
            plugged = time.time()
            assert two.wait(found(here))["at"] - plugged < POLL_S + TENTATIVE_S + KNOWN_S
            assert one.wait(found(late))["addresses"][0].startswith("/ip6/fe80::")


def test_an_interface_gets_another_address(tmp_path: Path) -> None:
    with Lan("moved", 2) as lan:
        for host in range(2):
            lan.up(host, f"10.77.0.{host + 1}/24")
        with lan.child(0, tmp_path / "one") as one, lan.child(1, tmp_path / "two") as two:
            meet(one, two)
            peer = two.ready()["peer"]
            lan.ip(1, "address", "del", "10.77.0.2/24", "dev", "eth0")
            lan.ip(1, "address", "add", "10.77.0.9/24", "dev", "eth0")
            moved = one.wait(
                lambda line: found(peer)(line) and line["addresses"][0].startswith("/ip4/10.77.0.9/"), POLL_S + KNOWN_S
            )
            assert "10.77.0.2" not in str(moved["addresses"])


@pytest.mark.parametrize("asked", [False, True], ids=["by default", "when asked for"])
def test_container_bridges(asked: bool, tmp_path: Path) -> None:
    """The hosts hear each other on what looks like a container's bridge: only who names it is there."""
    config = {"interfaces": ["docker0"]} if asked else {}
    with Lan(f"bridge-{asked}", 2) as lan:
        for host in range(2):
            lan.plug(host, "docker0")
            lan.up(host, f"172.17.0.{host + 1}/16", device="docker0")
        with lan.child(0, tmp_path / "one", **config) as one, lan.child(1, tmp_path / "two", **config) as two:
            one.ready()
            if asked:
                meet(one, two)
                assert one.wait(found(two.ready()["peer"]))["addresses"][0].startswith("/ip4/172.17.0.2/")
                return
            assert "172.17" not in str(two.ready()["addresses"])
            one.read_for(KNOWN_S)
            assert not [line for line in one.lines if line["event"] == "found"]


def test_a_host_on_two_segments_tells_each_its_own_address(tmp_path: Path) -> None:
    with Lan("two", 2) as lan:
        lan.bridge("other")
        for host in range(2):
            lan.plug(host, "eth1", "other")
            lan.up(host, f"10.77.0.{host + 1}/24")
            lan.up(host, f"10.78.0.{host + 1}/24", device="eth1")
        with lan.child(0, tmp_path / "one") as one, lan.child(1, tmp_path / "two", interfaces=["eth1"]) as two:
            one.ready()
            meet(one, two)
            assert one.wait(found(two.ready()["peer"]))["addresses"][0].startswith("/ip4/10.78.0.2/")
            assert "10.77.0.2" not in str([line for line in one.lines if line["event"] == "found"])
            (seen,) = [each["message"] for each in lan.doctor(0, tmp_path / "one") if "two (" in each["message"]]
            assert "heard by mDNS on eth1 (IPv4), answers" in seen, "each socket hears its own segment only"


def test_garbage_on_the_port_harms_nobody(tmp_path: Path) -> None:
    with Lan("garbage", 2) as lan:
        for host in range(2):
            lan.up(host, f"10.77.0.{host + 1}/24")
        with lan.child(0, tmp_path / "one") as one:
            one.ready()
            noise = subprocess.Popen([*lan.prefix(1), sys.executable, "-c", GARBAGE, "10.77.0.2"])
            try:
                one.read_for(3.0)
            finally:
                noise.kill()
                noise.wait()
            with lan.child(1, tmp_path / "two") as two:
                meet(one, two)
                assert linked(one)


GARBAGE = """
import random, socket, sys
rng = random.Random(5)
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
channel.bind(("", 5353))
channel.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
while True:
    head = bytes((0, 0, rng.choice((0, 0x84)), 0, 0, rng.randrange(3), 0, rng.randrange(9), 0, 0, 0, rng.randrange(9)))
    name = b"\\x04_p2p\\x04_udp\\x05local\\x00"
    channel.sendto(head + name + rng.randbytes(rng.randrange(1300)), ("224.0.0.251", 5353))
"""


def test_a_flood_of_records_costs_discovery_and_not_the_processor(tmp_path: Path) -> None:
    with Lan("flood", 2) as lan:
        for host in range(2):
            lan.up(host, f"10.77.0.{host + 1}/24")
        with lan.child(0, tmp_path / "one") as one:
            one.ready()
            noise = subprocess.Popen([*lan.prefix(1), sys.executable, "-c", FLOOD, "10.77.0.2"])
            try:
                assert "eth0 (IPv4) is off" in one.wait(problem)["fields"]["warning"]
                before = one.processor_s()
                one.read_for(3.0)
                assert one.processor_s() - before < 1.0
            finally:
                noise.kill()
                noise.wait()


FLOOD = """
import os, socket, sys
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
channel.bind(("", 5353))
channel.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
service = b"\\x04_p2p\\x04_udp\\x05local\\x00"
text = b"\\x0bp2pfed=abcd\\x0ainstance=1"
while True:
    name = b"\\x20" + os.urandom(16).hex().encode() + service
    pointer = service + bytes((0, 12, 0, 1, 0, 0, 0, 120, 0, len(name))) + name
    record = name + bytes((0, 16, 0, 1, 0, 0, 0, 120, 0, len(text))) + text
    channel.sendto(bytes((0, 0, 0x84, 0, 0, 0, 0, 2, 0, 0, 0, 0)) + pointer + record, ("224.0.0.251", 5353))
"""


@pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is missing")
@pytest.mark.parametrize("chain", ["INPUT", "OUTPUT"])
def test_a_firewall_before_multicast_is_one_sentence(chain: str, tmp_path: Path) -> None:
    with Lan(f"wall-{chain}", 1) as lan:
        lan.up(0, "10.77.0.1/24")
        lan.inside(0, "iptables", "-A", chain, "-p", "udp", "--dport", "5353", "-j", "DROP")
        with lan.child(0, tmp_path / "one") as one:
            one.ready()
            sentence = one.wait(problem)["fields"]["warning"]
            assert "eth0 (IPv4)" in sentence and "UDP port 5353" in sentence and "--bootstrap" in sentence
            one.read_for(3.0)
            assert len([line for line in one.lines if problem(line)]) == 1
