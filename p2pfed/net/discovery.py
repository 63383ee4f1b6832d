"""Neighbours on the same network segments, by mDNS: announces this peer and reports others of its network.

One `MdnsLink` an interface and IP version; links come and go with the interfaces (`follow`). Without multicast there
is a sentence to read, never an exception.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from p2pfed.errors import ConfigError
from p2pfed.net.address import Address
from p2pfed.net.interfaces import ADDRESSES_MAX, Interface, addresses_on_link
from p2pfed.net.mdns_link import LinkReport, MdnsLink
from p2pfed.net.mdns_record import TTL_S, Announcement, Packet, Record, from_txt, new_name, response
from p2pfed.ports import PeerId

log = logging.getLogger("p2pfed.net")

KNOWN_MAX = 256
"""Records remembered to tell news from repetition; then the memory starts afresh."""
LINKS_MAX = 16
"""Eight interfaces with both IP versions."""
GOODBYE_S = 0.5
"""For the goodbye on the way out; sending takes microseconds."""

Found = Callable[[PeerId, tuple[str, ...], int], None]


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
        self._name = new_name()
        self._links: dict[tuple[str, int], tuple[MdnsLink, trio.CancelScope, bytes | None]] = {}
        self._known: dict[str, dict[MdnsLink, Announcement]] = {}
        self._nursery: trio.Nursery | None = None
        self._told_off = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing happens before the first `follow`."""
        failure: Exception | None = None
        async with trio.open_nursery() as self._nursery:
            try:
                yield
            except Exception as error:  # noqa: BLE001  raised again below: the nursery would wrap it in a group
                failure = error
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(GOODBYE_S):
                    await self._say_goodbye()
                self._nursery.cancel_scope.cancel()
                self._nursery = None
        if failure is not None:
            raise failure

    def reports(self) -> list[LinkReport]:
        return [link.report for link, _, _ in self._links.values()]

    def follow(self, interfaces: Sequence[Interface]) -> None:
        """Open a link where an interface came, end it where one went, and announce anew where addresses changed."""
        assert self._nursery is not None, "follow() belongs into running()"
        wanted = self._wanted(interfaces)
        for key in [each for each in self._links if each not in wanted]:
            self._end(key)
        for (name, version), host in wanted.items():
            record = self._record(interfaces, name, version)
            before = self._links.get((name, version))
            if before is not None and before[0].host == host and before[2] == record:
                continue
            if before is not None:
                self._end((name, version))
            link = MdnsLink(name, version, host, record, self._name, self._on_packet, self._problem)
            scope = trio.CancelScope()
            self._links[name, version] = (link, scope, record)
            self._nursery.start_soon(self._run, link, scope)

    def _wanted(self, interfaces: Sequence[Interface]) -> dict[tuple[str, int], str]:
        """Own address by link: of each interface that others can hear, loopback only where there is no other."""
        here_only = bool(self._own.listening) and all(_is_loopback(str(each)) for each in self._own.listening)
        outside = [each for each in interfaces if each.multicast and not each.loopback and not here_only]
        if not outside and not here_only and not self._told_off:
            self._told_off = True
            self._problem(
                "mDNS is off: no network interface is up that can multicast; plug this device in, or name its "
                'interface in node.toml as interfaces = ["eth0"]'
            )
        wanted: dict[tuple[str, int], str] = {}
        for each in outside or [each for each in interfaces if each.loopback and each.address.version == 4]:
            wanted.setdefault((each.name, each.address.version), str(each.address))
        return dict(list(wanted.items())[:LINKS_MAX])

    def _record(self, interfaces: Sequence[Interface], name: str, version: int, ttl_s: int = TTL_S) -> bytes | None:
        addresses = addresses_on_link(self._own.listening, interfaces, name)
        own = Announcement(self._own.peer, self._own.network_id, self._own.instance, addresses)
        there = [each for each in interfaces if each.name == name]
        hosts = [str(each.address) for each in sorted(there, key=lambda each: each.address.version != version)]
        return response(self._name, own, hosts, ttl_s) if addresses else None

    async def _run(self, link: MdnsLink, scope: trio.CancelScope) -> None:
        with scope:
            await link.run()

    def _end(self, key: tuple[str, int]) -> None:
        link, scope, _ = self._links.pop(key)
        scope.cancel()
        for announcements in self._known.values():
            announcements.pop(link, None)

    async def _say_goodbye(self) -> None:
        for link, _, record in self._links.values():
            if record is not None:
                await link.say(response(self._name, Announcement(self._own.peer, "", 0, ()), (), ttl_s=0))

    def _on_packet(self, link: MdnsLink, packet: Packet) -> None:
        for record in packet.records:
            if record.name == self._name:
                continue
            if record.strings is None:
                self._known.pop(record.name, None)
                link.report.names.pop(record.name, None)
            else:
                self._hear(link, record, record.strings)

    def _hear(self, link: MdnsLink, record: Record, strings: tuple[bytes, ...]) -> None:
        report = link.report
        try:
            heard = from_txt(strings, report.interface, loopback=_is_loopback(f"/ip4/{link.host}"))
        except ConfigError as error:
            log.debug("mDNS record %.80r ignored: %s", record.name, error)
            return
        if len(report.names) >= KNOWN_MAX:
            report.names.clear()
        report.names[record.name] = None
        self._sighted(Sighting(report, heard))
        if heard.network_id != self._own.network_id or heard.instance == self._own.instance:
            return
        before = self._known.get(record.name, {})
        if before.get(link) == heard:
            return
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[record.name] = after = {**before, link: heard}
        if _addresses(before) != _addresses(after):
            self._found(heard.peer, _addresses(after), heard.instance)


def _addresses(heard: Mapping[MdnsLink, Announcement]) -> tuple[str, ...]:
    """Of one record, by all links it was heard on."""
    return tuple(dict.fromkeys(address for each in heard.values() for address in each.addresses))[:ADDRESSES_MAX]


def _is_loopback(address: str) -> bool:
    return address.startswith(("/ip4/127.", "/ip6/::1/"))
