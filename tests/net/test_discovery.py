"""mDNS among the processes of one machine: on loopback, and what `follow` makes of interfaces."""

import ipaddress
import threading
import time
from collections.abc import Callable
from unittest.mock import Mock

import pytest
import trio
from zeroconf import ServiceStateChange, Zeroconf

from p2pfed.demo.multicast import multicast_works
from p2pfed.net import mdns_responder
from p2pfed.net.address import parse_address
from p2pfed.net.discovery import MdnsDiscovery, Own, Sighting, multicast_links
from p2pfed.net.identity import Identity
from p2pfed.net.interfaces import Interface
from p2pfed.net.mdns_responder import Heard, LinkReport, MdnsResponder, Record
from p2pfed.net.mdns_txt import SERVICE, Announcement, to_txt

PEERS = tuple(Identity(bytes([number]) * 32).peer_id for number in range(1, 5))
LO = Interface("lo", ipaddress.ip_address("127.0.0.1"))
PACKET_BYTES = 1232
"""IPv6's smallest MTU less the headers: what no link breaks into fragments."""


def own(number: int, network_id: str = "abc") -> Own:
    return Own(PEERS[number], network_id, 1000 + number, (parse_address(f"/ip4/127.0.0.1/tcp/{4000 + number}"),))


def name(mdns: MdnsDiscovery) -> str:
    """Of its record on loopback, where other programs of this machine may be heard too."""
    return mdns._names["lo", 4]


def ignore(*_: object) -> None:
    pass


loopback = pytest.mark.skipif(not multicast_works(), reason="no multicast on loopback here")


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110  what is heard comes from sockets, and a test waits for all of it
            await trio.sleep(0.01)


@loopback
def test_peers_on_loopback_find_each_other_and_say_goodbye() -> None:
    heard: dict[int, list[int]] = {0: [], 1: [], 2: []}
    sightings: list[Sighting] = []
    left: list[LinkReport] = []

    async def main() -> None:
        one = MdnsDiscovery(own(0), lambda peer, addresses, instance: heard[0].append(instance), ignore)
        two = MdnsDiscovery(own(1), lambda peer, addresses, instance: heard[1].append(instance), ignore)
        stranger = MdnsDiscovery(own(2, "other"), lambda *found: heard[2].append(0), ignore, sightings.append)
        async with one.running(), stranger.running():
            one.follow([LO])
            stranger.follow([LO])
            async with two.running():
                two.follow([LO])
                await until(
                    lambda: bool(heard[0] and heard[1]) and {*PEERS[:2]} <= {s.announcement.peer for s in sightings}
                )
                await until(lambda: {name(two), name(stranger)} <= set(one.reports()[0].names))
                leaving = name(two)
            await until(lambda: leaving not in one.reports()[0].names)
            assert name(stranger) in one.reports()[0].names
            left.extend(one.reports())

    trio.run(main)
    assert heard == {0: [1001], 1: [1000], 2: []}, "repetition is no news, and other networks are nobody"
    assert {s.announcement.network_id for s in sightings if s.announcement.peer in PEERS} == {"abc"}
    assert left[0].heard_own and left[0].problem is None


def responder(interface: str = "eth0", version: int = 4) -> MdnsResponder:
    return MdnsResponder(interface, version, "10.0.0.1", None, ignore, ignore)


def hear(mdns: MdnsDiscovery, on: MdnsResponder, name: str, heard: Announcement, *hosts: str) -> None:
    mdns._on_heard(on, Heard(f"{name}.{SERVICE}", to_txt(heard), hosts))


def test_one_peer_has_the_addresses_of_all_its_records() -> None:
    """It has a name for each of its links; the same name on two of ours is no news."""
    found: list[tuple[str, ...]] = []
    mdns = MdnsDiscovery(own(0), lambda peer, addresses, instance: found.append(addresses), ignore)
    links = [responder("eth0"), responder("eth1")]
    near, far = "/ip4/10.0.0.2/tcp/1", "/ip4/10.1.0.2/tcp/1"
    hear(mdns, links[0], "a", Announcement(PEERS[1], "abc", 1, (near, far)))
    hear(mdns, links[1], "a", Announcement(PEERS[1], "abc", 1, (near, far)))
    hear(mdns, links[1], "b", Announcement(PEERS[1], "abc", 1, (far,)))
    hear(mdns, links[1], "c", Announcement(PEERS[2], "abc", 1, ("/ip4/10.0.0.9/tcp/1",)))
    hear(mdns, links[0], "a", Announcement(PEERS[1], "abc", 1, ("/ip4/10.0.0.3/tcp/1",)))
    assert found == [(near, far), ("/ip4/10.0.0.9/tcp/1",), ("/ip4/10.0.0.3/tcp/1", far)]
    mdns._on_heard(links[0], Heard(f"a.{SERVICE}", None))
    hear(mdns, links[0], "b", Announcement(PEERS[1], "abc", 1, (far, near)))
    assert found[3:] == [(far, near)], "a record that is gone counts no more"


def test_a_record_belongs_to_the_interface_its_addresses_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of our sockets hears what is said on all interfaces."""
    monkeypatch.setattr("p2pfed.net.discovery._index", {"eth0": "2", "eth1": "3"}.get)
    places: list[tuple[str, str]] = []
    mdns = MdnsDiscovery(
        own(0), ignore, ignore, lambda seen: places.append((seen.link.interface, seen.announcement.addresses[0]))
    )
    mdns._interfaces = tuple(
        Interface(name, ipaddress.ip_interface(text).ip, True, ipaddress.ip_interface(text).network)
        for name, text in (("eth0", "10.0.0.1/24"), ("eth1", "10.1.0.1/24"), ("eth0", "fe80::1/64"))
    )
    heard = [
        ("four", "/ip4/10.1.0.2/tcp/1", "10.1.0.2"),
        ("six", "/ip6/fe80::2/tcp/1", "fe80::2%3"),
        ("far", "/ip4/192.0.2.9/tcp/1", "192.0.2.9"),
    ]
    for interface in ("eth0", "eth1"):
        for name, address, host in heard:
            hear(mdns, responder(interface), name, Announcement(PEERS[1], "abc", 1, (address,)), host)
    assert places == [
        ("eth0", "/ip4/192.0.2.9/tcp/1"),
        ("eth1", "/ip4/10.1.0.2/tcp/1"),
        ("eth1", "/ip6/fe80::2%eth1/tcp/1"),
        ("eth1", "/ip4/192.0.2.9/tcp/1"),
    ]


def test_ipv6_speaks_from_the_link_local_address_and_ipv4_from_a_given_one() -> None:
    there = [
        Interface(name, ipaddress.ip_address(text))
        for name, text in (("eth0", "169.254.0.1"), ("eth0", "10.0.0.1"), ("eth0", "fd00::1"), ("eth0", "fe80::1"))
    ]
    assert multicast_links([LO, *there]) == {("eth0", 4): "10.0.0.1", ("eth0", 6): "fe80::1"}
    assert multicast_links([LO]) == {("lo", 4): "127.0.0.1"} == multicast_links([LO, *there], here_only=True)


def test_link_local_addresses_are_told_over_ipv6_only() -> None:
    mdns = MdnsDiscovery(Own(PEERS[0], "abc", 1, (parse_address("/ip6/::/tcp/4001"),)), ignore, ignore)
    mdns._interfaces = (Interface("eth0", ipaddress.ip_address("fe80::1")), Interface("eth0", LO.address))
    six = mdns._record(("eth0", 6))
    assert six is not None and b"/ip6/fe80::1/tcp/4001/" in six.text and six.hosts == ("fe80::1",)
    assert mdns._record(("eth0", 4)) is None


def test_one_s_own_identity_with_another_instance_is_reported() -> None:
    found: list[object] = []
    mdns = MdnsDiscovery(own(0), lambda *each: found.append(each), ignore)
    hear(mdns, responder(), "a", Announcement(PEERS[0], "abc", 1000, ("/ip4/10.0.0.2/tcp/1",)))
    hear(mdns, responder(), "b", Announcement(PEERS[0], "abc", 7, ("/ip4/10.0.0.2/tcp/1",)))
    assert found == [(PEERS[0], ("/ip4/10.0.0.2/tcp/1",), 7)]


def test_memory_is_bounded() -> None:
    mdns = MdnsDiscovery(own(0), ignore, ignore)
    link = responder()
    for number in range(1000):
        hear(mdns, link, f"n{number}", Announcement(PEERS[1], "abc", number, ("/ip4/10.0.0.2/tcp/1",)))
        link._on_change(Mock(), SERVICE, f"n{number}.{SERVICE}", ServiceStateChange.Removed)
    assert len(mdns._known) <= 256 and len(link.report.names) <= 256 and len(link._waiting) == 64


def test_a_machine_without_a_network_gets_one_sentence() -> None:
    sentences: list[str] = []
    everywhere = Own(PEERS[0], "abc", 1, (parse_address("/ip4/0.0.0.0/tcp/4001"),))

    async def main() -> None:
        mdns = MdnsDiscovery(everywhere, ignore, sentences.append)
        async with mdns.running():
            mdns.follow([])
            mdns.follow([])

    trio.run(main)
    assert len(sentences) == 1 and "no network interface is up" in sentences[0] and "node.toml" in sentences[0]


def test_an_interface_that_is_not_there_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns_responder, "OPEN_RETRY_S", 0.01)
    monkeypatch.setattr(mdns_responder, "CERTAIN_S", 0.0)
    sentences: list[str] = []

    async def main() -> None:
        mdns = MdnsDiscovery(own(0), ignore, sentences.append)
        async with mdns.running():
            mdns.follow([Interface("gone0", ipaddress.ip_address("127.0.0.7"))])
            await until(lambda: bool(sentences))
            await trio.sleep(0.05)

    trio.run(main)
    assert len(sentences) == 1 and "gone0 (IPv4)" in sentences[0]


@loopback
def test_py_libp2p_reads_our_record() -> None:
    """Its listener, which is zeroconf's, and so knows nothing of our code; and we see that it is another program."""
    from libp2p.discovery.events.peerDiscovery import peerDiscovery
    from libp2p.discovery.mdns.broadcaster import PeerBroadcaster
    from libp2p.discovery.mdns.listener import PeerListener
    from libp2p.peer.peerstore import PeerStore

    seen: list[tuple[str, list[str]]] = []
    peerDiscovery.register_peer_discovered_handler(
        lambda info: seen.append((str(info.peer_id), [str(address) for address in info.addrs]))
    )
    sightings: list[Sighting] = []
    ours = (str(PEERS[0]), ["/ip4/127.0.0.1/tcp/4000"])

    def theirs() -> list[Announcement]:
        return [each.announcement for each in sightings if each.announcement.peer == PEERS[3]]

    def py_libp2p(done: Callable[[], bool]) -> None:
        zeroconf = Zeroconf(interfaces=["127.0.0.1"])
        try:
            listener = PeerListener(PeerStore(), zeroconf, SERVICE, f"theirs.{SERVICE}")
            PeerBroadcaster(zeroconf, SERVICE, f"theirs.{SERVICE}", str(PEERS[3]), 4009).register()
            deadline = time.monotonic() + 10
            while not done() and time.monotonic() < deadline:
                time.sleep(0.01)
            listener.stop()
        finally:
            zeroconf.close()

    async def main() -> None:
        mdns = MdnsDiscovery(own(0), ignore, ignore, sightings.append)
        async with mdns.running():
            mdns.follow([LO])
            await trio.to_thread.run_sync(py_libp2p, lambda: ours in seen and bool(theirs()))

    trio.run(main)
    assert ours in seen
    assert theirs()[0].network_id == ""


@loopback
def test_a_newcomer_is_answered() -> None:
    """The first one has long said all it says by itself."""
    heard: list[int] = []

    async def main() -> None:
        one = MdnsDiscovery(own(0), ignore, ignore)
        two = MdnsDiscovery(own(1), lambda peer, addresses, instance: heard.append(instance), ignore)
        async with one.running():
            one.follow([LO])
            await until(lambda: bool(one.reports()) and one.reports()[0].heard_own)
            await trio.sleep(1.0)
            async with two.running():
                two.follow([LO])
                await until(lambda: bool(heard))

    trio.run(main)
    assert heard == [1000]


@loopback
def test_after_a_flood_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns_responder, "FLOOD_PAUSE_S", 0.1)
    sentences: list[str] = []
    heard: list[int] = []

    async def main() -> None:
        one = MdnsDiscovery(own(0), lambda peer, addresses, instance: heard.append(instance), sentences.append)
        two = MdnsDiscovery(own(1), ignore, ignore)
        async with one.running(), two.running():
            one.follow([LO])
            await until(lambda: one.reports()[0].heard_own)
            for _ in range(mdns_responder.RECORDS_PER_S_MAX + 1):
                one._links["lo", 4][0]._on_change(Mock(), SERVICE, f"x.{SERVICE}", ServiceStateChange.Removed)
            await until(lambda: bool(sentences))
            two.follow([LO])
            await until(lambda: bool(heard))

    trio.run(main)
    assert heard == [1001] and len(sentences) == 1 and "somebody announces" in sentences[0]


@loopback
def test_questions_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """For networks that are joined later: each is a new browser's, and the old one's thread ends."""
    monkeypatch.setattr(mdns_responder, "ASK_INTERVAL_S", 0.2)
    asked: list[object] = []
    browse = MdnsResponder._browse
    monkeypatch.setattr(MdnsResponder, "_browse", lambda self, zeroconf: asked.append(0) or browse(self, zeroconf))

    async def main() -> None:
        mdns = MdnsDiscovery(own(0), ignore, ignore)
        async with mdns.running():
            mdns.follow([LO])
            await until(lambda: len(asked) > 3)
            assert sum("ServiceBrowser" in each.name for each in threading.enumerate()) <= 2

    trio.run(main)


@loopback
def test_a_new_address_is_told_after_the_goodbye_of_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same name, so that it takes the place of the old one where the goodbye is lost."""
    close = MdnsResponder._close
    monkeypatch.setattr(MdnsResponder, "_close", lambda self: (time.sleep(0.3), close(self)))
    heard: list[tuple[str, ...]] = []
    other = Interface("lo", ipaddress.ip_address("127.0.0.2"))

    async def main() -> None:
        everywhere = Own(PEERS[0], "abc", 1, (parse_address("/ip4/0.0.0.0/tcp/4001"),))
        one = MdnsDiscovery(everywhere, ignore, ignore)
        two = MdnsDiscovery(own(1), lambda peer, addresses, instance: heard.append(addresses), ignore)
        async with one.running(), two.running():
            two.follow([LO])
            one.follow([LO])
            await until(lambda: len(heard) == 1)
            one.follow([other])
            await until(lambda: len(heard) == 2)
            await trio.sleep(0.5)
            assert name(one) in two.reports()[0].names

    trio.run(main)
    assert heard == [("/ip4/127.0.0.1/tcp/4001",), ("/ip4/127.0.0.2/tcp/4001",)]


@loopback
def test_the_largest_record_is_one_small_packet() -> None:
    addresses = tuple(f"/ip6/2001:db8:1234:5678::{n:x}/tcp/40000" for n in range(1, 65))
    text = to_txt(Announcement(PEERS[0], "0" * 16, 2**53, addresses))
    record = Record(f"{'ab' * 16}.{SERVICE}", text, 4001, ("2001:db8:1234:5678::1", "2001:db8:1234:5678::2"))
    zeroconf = Zeroconf(interfaces=["127.0.0.1"])
    try:
        (packet,) = zeroconf.generate_service_broadcast(mdns_responder._info(record), None).packets()
    finally:
        zeroconf.close()
    assert 960 < len(packet) <= PACKET_BYTES
