"""Does multicast work here? On each interface and IP version a real mDNS question is sent and must be heard again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import trio

from p2pfed.doctor.finding import Finding, ok, warn
from p2pfed.net.discovery import MdnsDiscovery, Own, Sighting
from p2pfed.net.interfaces import missing_interfaces, usable_interfaces
from p2pfed.net.mdns_link import GROUPS, PORT, LinkReport
from p2pfed.ports import PeerId

HEARD_S = 1.2
"""One's own packet takes microseconds; the second question goes out after 1.1 s, for an address that was not ready."""
NO_LINK = "plug this device in, or name its interface in node.toml as interfaces; until then nodes need --bootstrap"
REMEDY = "allow UDP port {port} to and from {group} in this device's firewall; until then give nodes --bootstrap"


@dataclass(slots=True)
class Heard:
    """What mDNS gave within some time."""

    links: list[LinkReport] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_multicast(interfaces: Sequence[str] = ()) -> Iterator[Finding]:
    """Without a network: only whether packets get out and in."""
    if missing := missing_interfaces(interfaces):
        yield warn("interfaces", missing, "correct interfaces in node.toml")
    yield from multicast_findings(trio.run(listen, interfaces, HEARD_S))


async def listen(interfaces: Sequence[str], seconds: float) -> Heard:
    """Ask who is there, say nothing of oneself."""
    heard = Heard()
    nobody = Own(PeerId(""), "", 0, ())
    mdns = MdnsDiscovery(nobody, lambda *_: None, heard.problems.append, heard.sightings.append)
    async with mdns.running():
        mdns.follow(usable_interfaces(interfaces))
        await trio.sleep(seconds)
        heard.links = mdns.reports()
    return heard


def multicast_findings(heard: Heard) -> Iterator[Finding]:
    """One for each interface and IP version: sent and heard."""
    if not heard.links or any("no network interface is up" in sentence for sentence in heard.problems):
        yield warn("multicast", "no network interface is up, only this device itself can be heard", NO_LINK)
    working = {link.interface for link in heard.links if link.heard_own}
    for link in sorted(heard.links, key=lambda link: (link.interface, link.version)):
        subject = f"multicast on {link.interface} (IPv{link.version})"
        counts = f"{link.sent} mDNS packets sent, {link.heard_own} of them heard back, {link.heard} heard from others"
        if link.heard_own:
            yield ok(subject, counts)
            continue
        if link.problem is not None:
            counts = link.problem
        elif not link.sent:
            counts = f"nothing can be sent: {link.send_problem or 'the address is not ready'}"
        also = "the other IP version works there" if link.interface in working else "peers on this LAN are not found"
        yield warn(subject, f"{counts}; {also}", REMEDY.format(port=PORT, group=GROUPS[link.version]))
