"""mDNS among the processes of one machine: on loopback, and what `follow` makes of interfaces."""

import ipaddress
import time
from collections.abc import Callable

import pytest
import trio

from p2pfed.demo.multicast import multicast_works
from p2pfed.net import mdns_link
from p2pfed.net.address import parse_address
from p2pfed.net.discovery import MdnsDiscovery, Own, Sighting
from p2pfed.net.identity import Identity
from p2pfed.net.interfaces import Interface
from p2pfed.net.mdns_link import LinkReport, MdnsLink
from p2pfed.net.mdns_record import SERVICE, Announcement, parse, query, response

PEERS = tuple(Identity(bytes([number]) * 32).peer_id for number in range(1, 5))
LO = Interface("lo", ipaddress.ip_address("127.0.0.1"))
Sink = Callable[..., None]


def own(number: int, network_id: str = "abc") -> Own:
    return Own(PEERS[number], network_id, 1000 + number, (parse_address(f"/ip4/127.0.0.1/tcp/{4000 + number}"),))


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
                await until(lambda: bool(heard[0] and heard[1]) and len({s.announcement.peer for s in sightings}) == 2)
                await until(lambda: len(one.reports()[0].names) == 2)
            await until(lambda: len(one.reports()[0].names) == 1)
            left.extend(one.reports())

    trio.run(main)
    assert heard == {0: [1001], 1: [1000], 2: []}, "repetition is no news, and other networks are nobody"
    assert {sighting.announcement.network_id for sighting in sightings} == {"abc"}
    assert left[0].sent and left[0].heard_own and left[0].problem is None


def hear(mdns: MdnsDiscovery, link: MdnsLink, name: str, heard: Announcement) -> None:
    packet = parse(response(f"{name}._p2p._udp.local.", heard, ()))
    assert packet is not None
    mdns._on_packet(link, packet)


def test_what_is_heard_on_two_links_is_one_peer_with_the_addresses_of_both() -> None:
    found: list[tuple[str, ...]] = []
    mdns = MdnsDiscovery(own(0), lambda peer, addresses, instance: found.append(addresses), ignore)
    links = [MdnsLink(name, 4, "10.0.0.1", None, "x", ignore, ignore) for name in ("eth0", "eth1")]
    near, far = "/ip4/10.0.0.2/tcp/1", "/ip4/10.1.0.2/tcp/1"
    hear(mdns, links[0], "a", Announcement(PEERS[1], "abc", 1, (near, far)))
    hear(mdns, links[0], "a", Announcement(PEERS[1], "abc", 1, (near, far)))
    hear(mdns, links[1], "a", Announcement(PEERS[1], "abc", 1, (far,)))
    hear(mdns, links[0], "a", Announcement(PEERS[1], "abc", 1, ("/ip4/10.0.0.3/tcp/1",)))
    assert found == [(near, far), ("/ip4/10.0.0.3/tcp/1", far)]


def test_one_s_own_identity_with_another_instance_is_reported() -> None:
    found: list[object] = []
    mdns = MdnsDiscovery(own(0), lambda *each: found.append(each), ignore)
    link = MdnsLink("eth0", 4, "10.0.0.1", None, "x", ignore, ignore)
    hear(mdns, link, "a", Announcement(PEERS[0], "abc", 1000, ("/ip4/10.0.0.2/tcp/1",)))
    hear(mdns, link, "b", Announcement(PEERS[0], "abc", 7, ("/ip4/10.0.0.2/tcp/1",)))
    assert found == [(PEERS[0], ("/ip4/10.0.0.2/tcp/1",), 7)]


def test_memory_is_bounded() -> None:
    mdns = MdnsDiscovery(own(0), ignore, ignore)
    link = MdnsLink("eth0", 4, "10.0.0.1", None, "x", ignore, ignore)
    for number in range(1000):
        hear(mdns, link, f"n{number}", Announcement(PEERS[1], "abc", number, ("/ip4/10.0.0.2/tcp/1",)))
    assert len(mdns._known) <= 256 and len(link.report.names) <= 256


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
    monkeypatch.setattr(mdns_link, "REOPEN_S", 0.01)
    sentences: list[str] = []

    async def main() -> None:
        mdns = MdnsDiscovery(own(0), ignore, sentences.append)
        async with mdns.running():
            mdns.follow([Interface("gone0", ipaddress.ip_address("127.0.0.7"))])
            await until(lambda: bool(sentences))
            await trio.sleep(0.05)

    monkeypatch.setattr("p2pfed.net.discovery._is_loopback", lambda address: False)
    monkeypatch.setattr(Interface, "loopback", property(lambda self: False))
    trio.run(main)
    assert len(sentences) == 1 and "gone0 (IPv4)" in sentences[0]


@loopback
def test_py_libp2p_reads_our_record() -> None:
    """Its listener, which is zeroconf's, and so knows nothing of our code; and we see that it is another program."""
    from libp2p.discovery.events.peerDiscovery import peerDiscovery
    from libp2p.discovery.mdns.broadcaster import PeerBroadcaster
    from libp2p.discovery.mdns.listener import PeerListener
    from libp2p.peer.peerstore import PeerStore
    from zeroconf import Zeroconf

    seen: list[tuple[str, list[str]]] = []
    peerDiscovery.register_peer_discovered_handler(
        lambda info: seen.append((str(info.peer_id), [str(address) for address in info.addrs]))
    )
    sightings: list[Sighting] = []

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
            await trio.to_thread.run_sync(py_libp2p, lambda: bool(seen and sightings))

    trio.run(main)
    assert (str(PEERS[0]), ["/ip4/127.0.0.1/tcp/4000"]) in seen
    assert sightings[0].announcement.peer == PEERS[3] and not sightings[0].announcement.network_id


@loopback
def test_a_newcomer_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one has long said all it says by itself."""
    monkeypatch.setattr(mdns_link, "SPEAK_AT_S", (0.0,))
    monkeypatch.setattr(mdns_link, "ASK_INTERVAL_FIRST_S", 60.0)
    heard: list[int] = []

    async def main() -> None:
        one = MdnsDiscovery(own(0), ignore, ignore)
        two = MdnsDiscovery(own(1), lambda peer, addresses, instance: heard.append(instance), ignore)
        async with one.running():
            one.follow([LO])
            await until(lambda: one.reports()[0].heard_own > 0)
            async with two.running():
                two.follow([LO])
                await until(lambda: bool(heard))

    trio.run(main)
    assert heard == [1000]


def test_who_knows_us_is_not_answered_again() -> None:
    name = f"{'ab' * 16}.{SERVICE}"
    link = MdnsLink("eth0", 4, "10.0.0.1", b"record", name, ignore, ignore)

    async def main() -> None:
        await link._take(query([name]))
        assert not link._asked.is_set()
        await link._take(query([]))
        assert link._asked.is_set()

    trio.run(main)
