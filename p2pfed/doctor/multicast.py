"""Does multicast work here? On each interface and IP version a real mDNS question is sent and must be heard again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import trio

from p2pfed.doctor.echo import Echo, echo
from p2pfed.doctor.finding import Finding, ok, warn
from p2pfed.net.discovery import Link, MdnsDiscovery, Own, Sighting, multicast_links
from p2pfed.net.interfaces import missing_interfaces, usable_interfaces
from p2pfed.net.mdns_responder import GROUPS, PORT
from p2pfed.ports import PeerId

HEARD_S = 1.2
"""Answers take 0.2 s, and a second question goes out after 1.1 s."""
NO_LINK = "plug this device in, or name its interface in node.toml as interfaces; until then nodes need --bootstrap"
REMEDY = "allow UDP port {port} to and from {group} in this device's firewall; until then give nodes --bootstrap"


@dataclass(slots=True)
class Heard:
    """What mDNS gave within some time."""

    echoes: list[Echo] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def others(self, echo: Echo) -> int:
        """Peers and programs that were heard there."""
        there = (each for each in self.sightings if _link(each) == (echo.interface, echo.version))
        return len({each.announcement.peer for each in there})


def check_multicast(interfaces: Sequence[str] = ()) -> Iterator[Finding]:
    """Without a network: only whether packets get out and in."""
    if missing := missing_interfaces(interfaces):
        yield warn("interfaces", missing, "correct interfaces in node.toml")
    yield from multicast_findings(trio.run(listen, interfaces, HEARD_S))


async def listen(interfaces: Sequence[str], seconds: float) -> Heard:
    """Ask who is there, say nothing of oneself. Takes 1.3 s at least where multicast does not work."""
    heard = Heard()
    nobody = Own(PeerId(""), "", 0, ())
    there = usable_interfaces(interfaces)
    mdns = MdnsDiscovery(nobody, lambda *_: None, heard.problems.append, heard.sightings.append)
    async with mdns.running():
        mdns.follow(there)
        async with trio.open_nursery() as nursery:
            for (name, version), host in multicast_links(there).items():
                nursery.start_soon(_echo, heard, name, version, host)
            await trio.sleep(seconds)
    return heard


async def _echo(heard: Heard, name: str, version: int, host: str) -> None:
    heard.echoes.append(await echo(name, version, host))


def multicast_findings(heard: Heard) -> Iterator[Finding]:
    """One for each interface and IP version: sent and heard."""
    if not heard.echoes or any("no network interface is up" in sentence for sentence in heard.problems):
        yield warn("multicast", "no network interface is up, only this device itself can be heard", NO_LINK)
    working = {each.interface for each in heard.echoes if each.heard}
    for each in sorted(heard.echoes, key=lambda each: (each.interface, each.version)):
        subject = f"multicast on {each.interface} (IPv{each.version})"
        counts = f"mDNS questions sent: {each.sent}, heard back: {each.heard}; other peers heard: {heard.others(each)}"
        if each.heard:
            yield ok(subject, counts)
            continue
        if not each.sent:
            counts = f"nothing can be sent: {each.problem}"
        else:
            counts = f"what is sent to {GROUPS[each.version]} does not come back, so a firewall blocks UDP port {PORT}"
        also = "the other IP version works there" if each.interface in working else "peers on this LAN are not found"
        yield warn(subject, f"{counts}; {also}", REMEDY.format(port=PORT, group=GROUPS[each.version]))


def _link(sighting: Sighting) -> Link:
    return sighting.link.interface, sighting.link.version
