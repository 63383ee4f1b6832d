"""This device's network interfaces: which addresses to tell others, and where to look for neighbours."""

import ipaddress
import socket
from dataclasses import dataclass

import psutil

from p2pfed.errors import ExitCode, LocalError

BRIDGE_PREFIXES = ("docker", "br-", "veth", "virbr", "podman", "cni", "lxc", "lxd")
"""Inside of one machine: nobody else can reach an address there."""


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address

    @property
    def loopback(self) -> bool:
        return self.address.is_loopback


def usable_interfaces() -> tuple[Interface, ...]:
    """Addresses of interfaces that are up, without container bridges and link-local ones; loopback included."""
    status = psutil.net_if_stats()
    found = []
    for name, entries in sorted(psutil.net_if_addrs().items()):
        if name.startswith(BRIDGE_PREFIXES) or not (name in status and status[name].isup):
            continue
        for entry in entries:
            if entry.family in (socket.AF_INET, socket.AF_INET6):
                address = ipaddress.ip_address(entry.address.partition("%")[0])
                if not address.is_link_local and not address.is_unspecified:
                    found.append(Interface(name, address))
    return tuple(found)


def concrete_hosts(host: str) -> tuple[str, ...]:
    """What 0.0.0.0 or :: stands for; loopback only where there is nothing else."""
    wanted = ipaddress.ip_address(host)
    if not wanted.is_unspecified:
        return (host,)
    all_of_version = [i for i in usable_interfaces() if i.address.version == wanted.version]
    outside = [i for i in all_of_version if not i.loopback]
    return tuple(str(i.address) for i in outside or all_of_version)


def probe_port(host: str, port: int) -> None:
    """Raises LocalError(PORT) where this device cannot listen there.

    libp2p listens with SO_REUSEPORT: a second process would take half of our connections without an error.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LocalError(
                f"cannot listen on {host} port {port} ({error.strerror}); free it or choose another",
                ExitCode.PORT,
            ) from error
