"""Asks the router to pass a port on: NAT-PMP first (RFC 6886, one datagram), then UPnP (miniupnpc, in a thread).

Never an error for the node: without a router that offers it there is None, after MAP_S at most. A mapping is a lease
of LEASE_S, renewed by asking again, and given back at a clean stop.
"""

import ipaddress
import logging
import socket
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from p2pfed.net.address import Address

log = logging.getLogger("p2pfed.net")

LEASE_S = 3600
"""A router forgets a node that died within the hour."""
MAP_S = 12.0
"""For both protocols; a router that takes longer is treated as one that has neither."""
UNMAP_S = 1.5
"""Of a clean stop's time; the lease ends by itself."""
DISCOVER_MS = 2000
"""For routers to answer UPnP's search; its specification lets them wait as long."""
PMP_PORT = 5351
PMP_WAITS_S = (0.25, 0.5, 1.0)
"""RFC 6886 doubles from 250 ms; it goes on for a minute, we have UPnP to try."""
PMP_TCP = 2
PMP_ANSWER = 128
ROUTES = Path("/proc/net/route")
ROUTE_GATEWAY = 0x0003
"""RTF_UP and RTF_GATEWAY."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """`external` as the router says: of a router behind a router it leads nowhere. `by`: UPnP or NAT-PMP."""

    external: Address
    inner_port: int
    by: str


async def ask_mapping(port: int, gateway: str | None = None) -> Mapping | None:
    """For TCP `port` of this device, the same port outside where it is free. Never raises."""
    mapping: Mapping | None = None
    with trio.move_on_after(MAP_S):
        gateway = gateway or default_gateway()
        if gateway is not None:
            mapping = await _ask_pmp(gateway, port)
        if mapping is None:
            mapping = await _in_thread(partial(_map_upnp, port))
    return mapping


async def drop_mapping(mapping: Mapping, gateway: str | None = None) -> None:
    """Never raises, takes UNMAP_S at most."""
    with trio.move_on_after(UNMAP_S):
        if mapping.by == "UPnP":
            await _in_thread(partial(_unmap_upnp, mapping.external.port))
        elif (gateway := gateway or default_gateway()) is not None:
            await _pmp(gateway, struct.pack(">BBHHHI", 0, PMP_TCP, 0, mapping.inner_port, 0, 0), 16)


def default_gateway(routes: Path = ROUTES) -> str | None:
    """Of IPv4, by Linux's table; None on other systems: there UPnP alone is tried."""
    try:
        lines = routes.read_text().splitlines()[1:]
    except OSError:
        return None
    for words in map(str.split, lines):
        if len(words) > 3 and words[1] == "00000000" and int(words[3], 16) & ROUTE_GATEWAY == ROUTE_GATEWAY:
            return socket.inet_ntoa(struct.pack("<I", int(words[2], 16)))
    return None


async def _ask_pmp(gateway: str, port: int) -> Mapping | None:
    answer = await _pmp(gateway, struct.pack(">BB", 0, 0), 12)
    if answer is None:
        return None
    host = socket.inet_ntoa(answer[8:12])
    answer = await _pmp(gateway, struct.pack(">BBHHHI", 0, PMP_TCP, 0, port, port, LEASE_S), 16)
    if answer is None:
        return None
    inner, outer, lease_s = struct.unpack(">HHI", answer[8:16])
    if inner != port or not outer or not lease_s or not _dialled(host):
        log.debug("odd NAT-PMP answer of %s: %s", gateway, answer.hex())
        return None
    return Mapping(Address("ip4", host, outer), port, "NAT-PMP")


async def _pmp(gateway: str, ask: bytes, size: int) -> bytes | None:
    """The answer to `ask` if it is a success of `size` bytes from the gateway itself."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        try:
            await udp.connect((gateway, PMP_PORT))
            for wait_s in PMP_WAITS_S:
                await udp.send(ask)
                with trio.move_on_after(wait_s):
                    while True:
                        answer = await udp.recv(64)
                        if len(answer) == size and answer[0] == 0 and answer[1] == PMP_ANSWER + ask[1]:
                            return answer if answer[2:4] == b"\0\0" else None
        except OSError as error:  # nobody listens there
            log.debug("no NAT-PMP at %s: %s", gateway, error)
    return None


def _map_upnp(port: int) -> Mapping | None:
    from miniupnpc import UPnP  # only where a router has to be asked

    upnp = UPnP()
    upnp.discoverdelay = DISCOVER_MS
    if not upnp.discover():
        return None
    upnp.selectigd()
    host = upnp.externalipaddress()
    outer = next((p for p in (port, port + 1, port + 2) if _is_free(upnp, p, port)), None)
    if not host or not _dialled(host) or outer is None:
        return None
    if not upnp.addportmapping(outer, "TCP", upnp.lanaddr, port, "p2pfed", "", LEASE_S):
        return None
    return Mapping(Address("ip4", host, outer), port, "UPnP")


def _is_free(upnp: "object", outer: int, port: int) -> bool:
    """Nobody's, or ours from before."""
    taken = upnp.getspecificportmapping(outer, "TCP")  # type: ignore[attr-defined]
    return not taken or (taken[0] == upnp.lanaddr and taken[1] == port)  # type: ignore[attr-defined]


def _unmap_upnp(outer: int) -> None:
    from miniupnpc import UPnP

    upnp = UPnP()
    upnp.discoverdelay = DISCOVER_MS // 4
    if upnp.discover():
        upnp.selectigd()
        upnp.deleteportmapping(outer, "TCP")


def _dialled(host: str) -> bool:
    """An address somebody could dial; the router's word."""
    try:
        ip = ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return not (ip.is_unspecified or ip.is_loopback or ip.is_multicast)


async def _in_thread(function: "partial[Mapping | None] | partial[None]") -> Mapping | None:
    """miniupnpc raises bare Exceptions with the router's words."""
    try:
        return await trio.to_thread.run_sync(function, abandon_on_cancel=True)  # type: ignore[call-arg]
    except Exception as error:  # noqa: BLE001  a router's answers may break anything; the node goes on without
        log.debug("UPnP: %s", error)
        return None
