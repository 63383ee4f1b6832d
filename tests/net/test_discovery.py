"""mDNS: what is announced comes back, strangers' TXT is checked, and a machine without multicast only warns."""

import contextlib

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.errors import ConfigError
from p2pfed.net import discovery
from p2pfed.net.discovery import Announcement, MdnsDiscovery, from_txt, to_txt
from p2pfed.net.identity import Identity
from p2pfed.net.interfaces import Interface

PEERS = tuple(Identity(bytes([number]) * 32).peer_id for number in range(1, 5))


def announcement(number: int, network_id: str = "0123456789abcdef") -> Announcement:
    return Announcement(PEERS[number], network_id, 1000 + number, (f"/ip4/127.0.0.1/tcp/{4000 + number}",))


def as_bytes(txt: dict[str, str]) -> dict[bytes, bytes | None]:
    return {key.encode(): value.encode() for key, value in txt.items()}


def test_what_is_announced_is_understood() -> None:
    own = Announcement(PEERS[0], "abc", 2**64 - 1, tuple(f"/ip6/fd00::{n}/tcp/{n}" for n in range(1, 17)))
    assert from_txt(as_bytes(to_txt(own))) == own


@pytest.mark.parametrize(
    "key, value",
    [
        ("id", b"12D3KooW"),
        ("id", b"\xff" * 52),
        ("id", None),
        ("inst", b"-1"),
        ("inst", b"9" * 21),
        ("inst", None),
        ("a0", b"/dns4/tracker.example/tcp/80"),
        ("a0", b"/ip4/0.0.0.0/tcp/1"),
        ("a0", b"/ip4/224.0.0.251/tcp/5353"),
        ("a0", b"/ip4/10.0.0.1/tcp/0"),
        ("a0", b"/ip4/10.0.0.1/tcp/65536"),
        ("a0", b"/ip4/10.0.0.1/udp/1"),
        ("a0", b"x" * 201),
    ],
)
def test_a_stranger_is_not_believed(key: str, value: bytes | None) -> None:
    txt = as_bytes(to_txt(announcement(0)))
    txt[key.encode()] = value
    with pytest.raises(ConfigError):
        from_txt(txt)


@given(
    st.dictionaries(
        st.sampled_from([b"id", b"net", b"inst", b"a0", b"a15", b"zz"]), st.none() | st.binary(max_size=255)
    )
)
def test_any_txt_gives_an_announcement_or_a_config_error(txt: dict[bytes, bytes | None]) -> None:
    with contextlib.suppress(ConfigError):
        from_txt(txt)


def test_a_machine_without_multicast_gets_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Interface("gone0", discovery.ipaddress.ip_address("192.0.2.77"))
    monkeypatch.setattr(discovery, "usable_interfaces", lambda: (nowhere,))

    async def main() -> list[str]:
        mdns = MdnsDiscovery(announcement(0), lambda *found: None)
        async with mdns.running():
            return mdns.warnings

    warnings = trio.run(main)
    assert len(warnings) == 1
    assert "192.0.2.77" in warnings[0]


def test_repetition_is_not_news_and_other_networks_are_nobody() -> None:
    heard = []
    mdns = MdnsDiscovery(announcement(0), lambda *found: heard.append(found))
    for other in (announcement(1), announcement(1), announcement(2, "other"), announcement(0)):
        mdns._report(other)
    assert heard == [(PEERS[1], ("/ip4/127.0.0.1/tcp/4001",), 1001)]


@pytest.mark.slow
def test_peers_on_loopback_find_each_other() -> None:
    async def main() -> None:
        heard: dict[int, set[int]] = {0: set(), 1: set()}
        done = trio.Event()

        def found(me: int, instance: int) -> None:
            heard[me].add(instance)
            if all(heard.values()):
                done.set()

        one = MdnsDiscovery(announcement(0), lambda peer, addresses, instance: found(0, instance), loopback=True)
        two = MdnsDiscovery(announcement(1), lambda peer, addresses, instance: found(1, instance), loopback=True)
        stranger = MdnsDiscovery(announcement(2, "other"), lambda *found: None, loopback=True)
        with trio.move_on_after(10):
            async with one.running(), two.running(), stranger.running():
                await done.wait()
        if not done.is_set():
            pytest.skip(f"no multicast here: {one.warnings or 'nothing was heard in 10 s'}")
        assert heard == {0: {1001}, 1: {1000}}

    trio.run(main)
