"""Own addresses: which are told to whom, and where a node listens."""

import ipaddress
import socket
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import trio
import trio.testing

from p2pfed.errors import ExitCode, LocalError
from p2pfed.net import interfaces
from p2pfed.net.address import parse_address
from p2pfed.net.interfaces import (
    Interface,
    addresses_on_link,
    interface_changes,
    listen_plan,
    missing_interfaces,
    own_addresses,
    usable_interfaces,
)

EVERYWHERE = (parse_address("/ip4/0.0.0.0/tcp/4001"), parse_address("/ip6/::/tcp/4001"))


def on(name: str, *addresses: str) -> list[Interface]:
    return [Interface(name, ipaddress.ip_address(address)) for address in addresses]


LO = on("lo", "127.0.0.1", "::1")


def machine(monkeypatch: pytest.MonkeyPatch, **names: tuple[str, ...]) -> None:
    def entry(address: str) -> Any:
        family, mask = (socket.AF_INET6, "ffff:ffff::") if ":" in address else (socket.AF_INET, "255.255.0.0")
        return SimpleNamespace(family=family, address=address, netmask=None if name_of(address) == "lo" else mask)

    def name_of(address: str) -> str:
        return next(name for name, addresses in names.items() if address in addresses)

    found = {name.replace("_", "-"): [entry(each) for each in addresses] for name, addresses in names.items()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    stats = {name: SimpleNamespace(isup=name != "eth9", flags="up,multicast") for name in found}
    monkeypatch.setattr(psutil, "net_if_stats", lambda: stats)


def test_container_bridges_are_left_out_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(
        monkeypatch,
        lo=("127.0.0.1",),
        eth0=("192.0.2.5", "fe80::1%eth0"),
        eth9=("192.0.2.9",),
        docker0=("172.17.0.1",),
        br_0a1b=("172.18.0.1",),
        virbr0=("192.168.122.1",),
        br0=("192.0.2.6",),
    )
    assert {each.name for each in usable_interfaces()} == {"lo", "eth0", "br0"}
    assert {each.name for each in usable_interfaces(["docker0"])} == {"lo", "docker0"}
    assert str(next(each.address for each in usable_interfaces() if each.link_local)) == "fe80::1", "without its zone"
    networks = [str(each.network) for each in usable_interfaces() if each.name in ("eth0", "lo")]
    assert networks == ["192.0.0.0/16", "fe80::/32", "None"]


def test_an_interface_that_is_not_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, lo=("127.0.0.1",), eth0=("192.0.2.5",))
    assert missing_interfaces(["eth0"]) is None
    assert "eht0, which this device does not have now; it has eth0, lo" in str(missing_interfaces(["eht0", "eth0"]))


def test_what_is_told_far_and_near() -> None:
    here = [*LO, *on("eth0", "192.0.2.5", "2001:db8::5", "fe80::5"), *on("wlan0", "10.0.0.5", "fe80::6")]
    far = own_addresses(EVERYWHERE, here)
    assert far == (
        "/ip4/192.0.2.5/tcp/4001",
        "/ip4/10.0.0.5/tcp/4001",
        "/ip6/2001:db8::5/tcp/4001",
    )
    near = addresses_on_link(EVERYWHERE, here, "wlan0")
    assert near == ("/ip4/10.0.0.5/tcp/4001", "/ip6/fe80::6/tcp/4001", far[0], far[2])


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ([*LO], ("/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/4001")),
        ([*LO, *on("eth0", "169.254.7.7")], ("/ip4/169.254.7.7/tcp/4001",)),
        ([*LO, *on("eth0", "fd00::5")], ("/ip6/fd00::5/tcp/4001",)),
        ([*LO, *on("eth0", "fe80::5")], ()),
        ([], ()),
    ],
)
def test_loopback_is_told_only_where_there_is_nothing_else(there: list[Interface], told: tuple[str, ...]) -> None:
    assert own_addresses(EVERYWHERE, there) == told


def test_an_address_that_was_named_is_told_as_it_is() -> None:
    named = (parse_address("/ip4/192.0.2.5/tcp/1"),)
    assert own_addresses(named, on("eth0", "10.0.0.1")) == ("/ip4/192.0.2.5/tcp/1",)


def test_changes_are_told_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([on("eth0", "10.0.0.1"), on("eth0", "10.0.0.1"), on("eth0", "10.0.0.2"), []])
    monkeypatch.setattr(interfaces, "usable_interfaces", lambda wanted: tuple(next(states)))

    async def main() -> list[tuple[Interface, ...]]:
        seen = []
        async for each in interface_changes():
            seen.append(each)
            if not each:
                return seen
        return seen

    seen = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert [[str(each.address) for each in state] for state in seen] == [["10.0.0.1"], ["10.0.0.2"], []]


def test_one_port_for_both_versions() -> None:
    plan = listen_plan([parse_address("/ip4/0.0.0.0/tcp/0"), parse_address("/ip6/::/tcp/0")])
    assert plan[0].port and len({each.port for each in plan}) == 1


def test_without_ipv6_its_wildcard_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "_has_ipv6", lambda: False)
    assert [each.host for each in listen_plan((*EVERYWHERE[:1], parse_address("/ip6/::/tcp/0")))] == ["0.0.0.0"]
    assert len(listen_plan([parse_address("/ip6/::1/tcp/0")])) == 1, "what is named is not left out"


def test_a_port_in_use_is_said() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = parse_address(f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}")
        with pytest.raises(LocalError, match="free it or choose another") as caught:
            listen_plan([address])
    assert caught.value.exit_code is ExitCode.PORT
