"""Neighbours on the same network segments, by mDNS: announces this peer and reports others of its network.

One `MdnsResponder` (python-zeroconf) an interface and IP version, each with a record of its own name; they come and go
with the interfaces (`follow`). Without multicast there is a sentence to read, never an exception.
On Linux a responder hears what is said on the other interfaces too: by the addresses in a record it is left to the
responder it was meant for.
"""

import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from p2pfed.errors import ConfigError
from p2pfed.net.address import Address, parse_address
from p2pfed.net.interfaces import ADDRESSES_MAX, Interface, addresses_on_link
from p2pfed.net.mdns_responder import Heard, LinkReport, MdnsResponder, Record
from p2pfed.net.mdns_txt import Announcement, from_txt, new_name, to_txt
from p2pfed.ports import PeerId

log = logging.getLogger("p2pfed.net")

KNOWN_MAX = 256
"""Records remembered to tell news from repetition; then the memory starts afresh."""
LINKS_MAX = 16
"""Eight interfaces with both IP versions."""
HOSTS_TOLD_MAX = 2
"""Addresses in A and AAAA records, for who reads no TXT; more would not fit into a small packet."""

Found = Callable[[PeerId, tuple[str, ...], int], None]
Link = tuple[str, int]
"""Interface and IP version."""


@dataclass(frozen=True, slots=True)
class Own:
    """Who announces itself, on each link. `listening` empty: announce nothing, only listen."""

    peer: PeerId
    network_id: str
    instance: int
    listening: tuple[Address, ...]
    """With 0.0.0.0 and :: as such: the addresses told differ from link to link."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A record as it was heard, of any network, for the doctor."""

    link: LinkReport
    announcement: Announcement


class MdnsDiscovery:
    def __init__(
        self,
        own: Own,
        found: Found,
        problem: Callable[[str], None],
        sighted: Callable[[Sighting], None] = lambda _: None,
    ) -> None:
        """`found`: news of this network's peers; `problem`: sentences for the operator; `sighted`: all heard."""
        self._own = own
        self._found = found
        self._problem = problem
        self._sighted = sighted
        self._interfaces: tuple[Interface, ...] = ()
        self._links: dict[Link, tuple[MdnsResponder, trio.CancelScope]] = {}
        self._names: dict[Link, str] = {}
        self._known: dict[str, Announcement] = {}
        self._nursery: trio.Nursery | None = None
        self._told_off = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing happens before the first `follow`. On the way out, goodbyes are said."""
        failure: Exception | None = None
        async with trio.open_nursery() as self._nursery:
            try:
                yield
            except Exception as error:  # noqa: BLE001  raised again below: the nursery would wrap it in a group
                failure = error
            finally:
                self._nursery.cancel_scope.cancel()
                self._nursery = None
        if failure is not None:
            raise failure

    def reports(self) -> list[LinkReport]:
        return [responder.report for responder, _ in self._links.values()]

    def follow(self, interfaces: Sequence[Interface]) -> None:
        """Start a responder where an interface came, end it where one went, and anew where addresses changed."""
        assert self._nursery is not None, "follow() belongs into running()"
        self._interfaces = tuple(interfaces)
        wanted = self._wanted()
        for link in [each for each in self._links if each not in wanted]:
            self._links.pop(link)[1].cancel()
            del self._names[link]
        for link, host in wanted.items():
            where, record = self._where(link, host), self._record(link)
            before: MdnsResponder | None = None
            if link in self._links:
                before, scope = self._links[link]
                if before.where == where and before.record == record:
                    continue
                scope.cancel()
            responder = MdnsResponder(*link, where, record, self._on_heard, self._problem)
            scope = trio.CancelScope()
            self._links[link] = responder, scope
            self._nursery.start_soon(_run, responder, scope, before)

    def _wanted(self) -> dict[Link, str]:
        here_only = bool(self._own.listening) and all(_is_loopback(each.host) for each in self._own.listening)
        wanted = multicast_links(self._interfaces, here_only)
        if not here_only and not self._told_off and all(_is_loopback(host) for host in wanted.values()):
            self._told_off = True
            self._problem(
                "mDNS is off: no network interface is up that can multicast; plug this device in, or name its "
                'interface in node.toml as interfaces = ["eth0"]'
            )
        return wanted

    def _where(self, link: Link, host: str) -> str | int:
        """For zeroconf: the address, or the number of the interface where the address is on two."""
        if link[1] == 4 or sum(str(each.address) == host for each in self._interfaces) == 1:
            return host
        try:
            return socket.if_nametoindex(link[0])
        except OSError:  # it has just gone: the responder will say so
            return host

    def _record(self, link: Link) -> Record | None:
        """None: nothing to tell there. Link-local IPv6 addresses are told over IPv6 alone, which knows the zone."""
        interface, version = link
        addresses = addresses_on_link(self._own.listening, self._interfaces, interface)
        if version == 4:
            addresses = tuple(each for each in addresses if not each.startswith("/ip6/fe80:"))
        name = self._names.setdefault(link, new_name())
        if not addresses:
            return None
        own = Announcement(self._own.peer, self._own.network_id, self._own.instance, addresses)
        there = [each for each in self._interfaces if each.name == interface and each.address.version == version]
        hosts = [str(each.address) for each in sorted(there, key=_link_local_first)]
        return Record(name, to_txt(own), parse_address(addresses[0]).port, tuple(hosts[:HOSTS_TOLD_MAX]))

    def _on_heard(self, responder: MdnsResponder, heard: Heard) -> None:
        for link, name in self._names.items():
            if name == heard.name:
                if heard.text is not None and link in self._links:
                    self._links[link][0].note_own()
                return
        if heard.text is None:
            self._known.pop(heard.name, None)
            responder.report.names.pop(heard.name, None)
        elif heard.text and not self._elsewhere(responder.report, heard.hosts):
            self._hear(responder.report, heard.name, heard.text)

    def _elsewhere(self, report: LinkReport, hosts: Sequence[str]) -> bool:
        """Whether a record with these addresses was said on another interface of ours, where it is heard as well."""
        places: set[str] = set()
        for host in hosts:
            address, _, zone = host.partition("%")
            if zone:
                return zone != _index(report.interface)
            ip = ipaddress.ip_address(address)
            there = (each for each in self._interfaces if each.network is not None and ip in each.network)
            places.update(each.name for each in there if not each.link_local)
        return bool(places) and report.interface not in places

    def _hear(self, report: LinkReport, name: str, text: bytes) -> None:
        try:
            heard = from_txt(text, report.interface, loopback=self._is_here(report.interface))
        except ConfigError as error:
            log.debug("mDNS record %.80r ignored: %s", name, error)
            return
        if len(report.names) >= KNOWN_MAX:
            report.names.clear()
        report.names[name] = None
        self._sighted(Sighting(report, heard))
        if heard.network_id != self._own.network_id or heard.instance == self._own.instance:
            return
        if self._known.get(name) == heard:
            return
        before = self._addresses(heard)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[name] = heard
        if before != (after := self._addresses(heard)):
            self._found(heard.peer, after, heard.instance)

    def _addresses(self, of: Announcement) -> tuple[str, ...]:
        """Of one process, by all its records: it has one for each of its links."""
        same = [each for each in self._known.values() if (each.peer, each.instance) == (of.peer, of.instance)]
        return tuple(dict.fromkeys(address for each in same for address in each.addresses))[:ADDRESSES_MAX]

    def _is_here(self, interface: str) -> bool:
        return any(each.loopback for each in self._interfaces if each.name == interface)


def multicast_links(interfaces: Sequence[Interface], here_only: bool = False) -> dict[Link, str]:
    """Own address by link: of each interface that others can hear, loopback only where there is no other.

    IPv6 speaks from the link-local address, where there is one: only then a packet says on which interface it came.
    """
    outside = [each for each in interfaces if each.multicast and not each.loopback and not here_only]
    links: dict[Link, str] = {}
    here = [each for each in interfaces if each.loopback and each.address.version == 4]
    for each in sorted(outside or here, key=_link_local_first):
        links.setdefault((each.name, each.address.version), str(each.address))
    return dict(sorted(links.items())[:LINKS_MAX])


async def _run(responder: MdnsResponder, scope: trio.CancelScope, before: MdnsResponder | None) -> None:
    """After the one before has said goodbye: that would take back what the new one announces."""
    with scope:
        if before is not None:
            await before.closed.wait()
        await responder.run()
    responder.closed.set()


def _link_local_first(interface: Interface) -> bool:
    """Of IPv6, to sort by; of IPv4 such an address is what one has without DHCP."""
    return interface.link_local == (interface.address.version == 4)


def _index(interface: str) -> str:
    try:
        return str(socket.if_nametoindex(interface))
    except OSError:  # it has just gone
        return ""


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
