"""This device's network interfaces: which addresses to tell others, and where to look for neighbours.

Interfaces inside of one machine (container and VM bridges) are left out unless the user names them.
"""

import ipaddress
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import trio

from p2pfed.errors import ExitCode, LocalError
from p2pfed.net.address import Address

BRIDGE_PREFIXES = (
    *("docker", "br-", "veth", "virbr", "podman", "cni", "lxc", "lxd", "incus"),
    *("cali", "flannel", "kube", "vboxnet", "vmnet"),
)
"""Inside of one machine: nobody else can reach an address there. A plain br0 is a LAN's, and is used."""
POLL_S = 2.0
"""Between two looks at the interfaces: one takes 0.11 ms (measured), so less than 0.01 % of a core."""
ADDRESSES_MAX = 16
"""Own addresses told of (core.messages.ADDRESSES_MAX)."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One address of one interface."""

    name: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    """Without a zone: `name` says it."""
    multicast: bool = True
    """False: a tunnel to somebody, which has no neighbours to announce to."""
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    """Whose addresses are those of neighbours, where the system says."""

    @property
    def loopback(self) -> bool:
        return self.address.is_loopback

    @property
    def link_local(self) -> bool:
        return self.address.is_link_local


def usable_interfaces(wanted: Sequence[str] = ()) -> tuple[Interface, ...]:
    """Addresses of interfaces that are up, loopback included; only of those `wanted`, where some are."""
    status = psutil.net_if_stats()
    found = []
    for name, entries in sorted(psutil.net_if_addrs().items()):
        if name not in status or not status[name].isup:
            continue
        multicast = "multicast" in status[name].flags
        for entry in entries:
            if entry.family in (socket.AF_INET, socket.AF_INET6):
                address = ipaddress.ip_address(entry.address.partition("%")[0])
                asked_for = name in wanted if wanted else not name.startswith(BRIDGE_PREFIXES)
                if not address.is_unspecified and (asked_for or address.is_loopback):
                    found.append(Interface(name, address, multicast, _network(entry.address, entry.netmask)))
    return tuple(found)


def _network(address: str, mask: str | None) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        bits = int(ipaddress.ip_address(mask or "")).bit_count()
        return ipaddress.ip_network(f"{address.partition('%')[0]}/{bits}", strict=False)
    except ValueError:
        return None


def missing_interfaces(wanted: Sequence[str]) -> str | None:
    """A sentence about names this device has no interface for; None where it has them all."""
    there = psutil.net_if_addrs()
    missing = [name for name in wanted if name not in there]
    if not missing:
        return None
    return (
        f"node.toml names the interfaces {', '.join(missing)}, which this device does not have now; it has "
        f"{', '.join(sorted(there))}"
    )


async def interface_changes(wanted: Sequence[str] = ()) -> AsyncIterator[tuple[Interface, ...]]:
    """What there is now, then again after each change: an interface or an address that came or went."""
    before: tuple[Interface, ...] | None = None
    while True:
        now = usable_interfaces(wanted)
        if now != before:
            before = now
            yield now
        await trio.sleep(POLL_S)


def host_and_port(name: tuple[Any, ...]) -> tuple[str, int]:
    """Of what getpeername says: a link-local address with its zone, without which it cannot be dialled again."""
    host, port = str(name[0]), int(name[1])
    if len(name) == 4 and name[3] and "%" not in host:
        host = f"{host}%{socket.if_indextoname(name[3])}"
    return host, port


def own_addresses(listening: Sequence[Address], interfaces: Sequence[Interface]) -> tuple[str, ...]:
    """What 0.0.0.0 and :: stand for, for others anywhere; loopback only where there is nothing else.

    IPv6 link-local addresses mean nothing away from their link: `addresses_on_link` has them, and a device that has no
    others tells none.
    """
    outside = [each for each in interfaces if not each.loopback]
    return _concrete(listening, [each for each in outside if not each.link_local]) or _concrete(
        listening, [each for each in outside if each.address.version == 4] if outside else interfaces
    )


def addresses_on_link(listening: Sequence[Address], interfaces: Sequence[Interface], name: str) -> tuple[str, ...]:
    """For the neighbours on interface `name`: its own addresses first, then the others; link-local without a zone."""
    there = [each for each in interfaces if each.name == name]
    ordinary = [each for each in there if not each.link_local]
    near = _concrete(listening, [*ordinary, *(each for each in there if each.link_local)])
    return tuple(dict.fromkeys((*near, *own_addresses(listening, interfaces))))[:ADDRESSES_MAX]


def _concrete(listening: Sequence[Address], interfaces: Sequence[Interface]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for bound in listening:
        host = ipaddress.ip_address(bound.host)
        if not host.is_unspecified:
            found[str(bound)] = None
            continue
        for each in interfaces:
            if each.address.version == host.version:
                found[str(Address(bound.kind, str(each.address), bound.port))] = None
    return tuple(found)[:ADDRESSES_MAX]


def listen_plan(wanted: Sequence[Address]) -> tuple[Address, ...]:
    """The same without /ip6/:: where this device has no IPv6, and with one free port for all that left it open.

    Raises LocalError(PORT) where this device cannot listen.
    """
    plan = [each for each in wanted if each.host != "::" or len(wanted) == 1 or _has_ipv6()]
    if sum(each.port == 0 for each in plan) > 1:
        port = _free_port([each.host for each in plan if each.port == 0])
        plan = [Address(each.kind, each.host, each.port or port) for each in plan]
    for each in plan:
        probe_port(each.host, each.port)
    return tuple(plan)


def probe_port(host: str, port: int) -> None:
    """Raises LocalError(PORT) where this device cannot listen there.

    libp2p listens with SO_REUSEPORT: a second process would take half of our connections without an error.
    """
    with _bound(host, port):
        pass


PORT_TRIES = 16
"""A port free for IPv4 is nearly always free for IPv6."""


def _free_port(hosts: Sequence[str]) -> int:
    failure: LocalError | None = None
    for _ in range(PORT_TRIES):
        with _bound(hosts[0], 0) as first:
            port = int(first.getsockname()[1])
        try:
            for host in hosts:
                probe_port(host, port)
        except LocalError as error:
            failure = error
        else:
            return port
    assert failure is not None
    raise failure


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        probe = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise LocalError(f"cannot listen on {host}: {error.strerror}", ExitCode.PORT) from error
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind((host, port))
    except OSError as error:
        probe.close()
        raise LocalError(
            f"cannot listen on {host} port {port} ({error.strerror}); free it or choose another",
            ExitCode.PORT,
        ) from error
    return probe


def _has_ipv6() -> bool:
    try:
        probe_port("::", 0)
    except LocalError:
        return False
    return True
