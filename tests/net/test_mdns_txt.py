"""What an mDNS record says: what is said is understood, and no stranger's bytes are believed."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.errors import ConfigError
from p2pfed.net.identity import Identity
from p2pfed.net.mdns_txt import TXT_BYTES_MAX, TXT_STRINGS_MAX, Announcement, from_txt, new_name, split, to_txt

PEER = Identity(bytes([1]) * 32).peer_id
OTHER = Identity(bytes([2]) * 32).peer_id
OWN = Announcement(PEER, "0123456789abcdef", 2**53 - 1, ("/ip4/10.0.0.1/tcp/4001", "/ip6/fd00::1/tcp/4001"))


def told(*strings: bytes) -> Announcement:
    return from_txt(b"".join(bytes((len(each),)) + each for each in strings), "eth0")


def test_what_is_announced_is_understood() -> None:
    assert from_txt(to_txt(OWN), "eth0") == OWN


def test_the_record_is_that_of_the_specification() -> None:
    """A TXT string an address, and a name of chance."""
    *_, last = strings = split(to_txt(OWN))
    assert strings[2:] == [f"dnsaddr={address}/p2p/{PEER}".encode() for address in OWN.addresses]
    assert to_txt(OWN).endswith(bytes((len(last),)) + last)
    label = new_name().partition(".")[0]
    assert 32 <= len(label) <= 63 and label.isalnum() and label == label.lower() and label != new_name()[: len(label)]


def test_the_best_addresses_fit() -> None:
    many = Announcement(PEER, "0" * 16, 2**53, tuple(f"/ip6/2001:db8:1234:5678::{n:x}/tcp/40000" for n in range(1, 65)))
    assert len(to_txt(many)) <= TXT_BYTES_MAX
    understood = from_txt(to_txt(many), "eth0")
    assert 7 <= len(understood.addresses) < 16 and understood.addresses == many.addresses[: len(understood.addresses)]


def test_strings_are_cut_at_their_lengths_and_at_the_bound() -> None:
    assert split(b"") == [] and split(b"\x00") == [b""]
    assert split(b"\x03a=b\x00\x01c") == [b"a=b", b"", b"c"]
    assert split(b"\x03a=b\x09cut off") == [b"a=b"]
    assert len(split(b"\x01x" * 1000)) == TXT_STRINGS_MAX


def test_others_of_libp2p_are_seen_and_told_apart() -> None:
    theirs = told(b"dnsaddr=/ip4/10.0.0.9/udp/4001/quic-v1/p2p/" + OTHER.encode())
    assert theirs.peer == OTHER and theirs.network_id == ""


def test_link_local_addresses_get_the_zone_they_were_heard_in() -> None:
    here = told(b"p2pfed=n", b"instance=1", f"dnsaddr=/ip6/fe80::9/tcp/1/p2p/{OTHER}".encode())
    assert here.addresses == ("/ip6/fe80::9%eth0/tcp/1",)


GOOD = f"dnsaddr=/ip4/10.0.0.9/tcp/1/p2p/{OTHER}".encode()


@pytest.mark.parametrize(
    "address",
    [
        "/dns4/tracker.example/tcp/80",
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/224.0.0.251/tcp/5353",
        "/ip4/10.0.0.1/tcp/0",
        "/ip4/10.0.0.1/tcp/65536",
        "/ip4/10.0.0.1/udp/1",
        "/ip4/127.0.0.1/tcp/1",
        "/ip6/fe80::1%lo/tcp/1",
    ],
)
def test_addresses_nobody_should_dial_are_left_out(address: str) -> None:
    bad = f"dnsaddr={address}/p2p/{OTHER}".encode()
    assert told(b"p2pfed=n", b"instance=1", bad, GOOD).addresses == ("/ip4/10.0.0.9/tcp/1",)
    with pytest.raises(ConfigError):
        told(b"p2pfed=n", b"instance=1", bad)


@pytest.mark.parametrize(
    "strings",
    [
        (),
        (b"p2pfed=n", b"instance=1"),
        (b"p2pfed=n", b"instance=1", b"dnsaddr=/ip4/10.0.0.9/tcp/1/p2p/12D3KooW"),
        (b"p2pfed=n", b"instance=1", b"dnsaddr=/ip4/10.0.0.9/tcp/1"),
        (b"p2pfed=n", b"instance=-1", GOOD),
        (b"p2pfed=n", b"instance=" + b"9" * 21, GOOD),
        (b"p2pfed=n", GOOD),
        (b"p2pfed=n", b"instance=1", GOOD, f"dnsaddr=/ip4/10.0.0.9/tcp/1/p2p/{PEER}".encode()),
        (b"p2pfed=n", b"instance=1", GOOD, b"\xff" * 10),
        (b"p2pfed=n", b"instance=1", GOOD, b"x" * 201),
    ],
)
def test_a_stranger_is_not_believed(strings: tuple[bytes, ...]) -> None:
    with pytest.raises(ConfigError):
        told(*strings)


@given(st.lists(st.sampled_from([GOOD, b"p2pfed=n", b"instance=1", b"=", b"dnsaddr="]) | st.binary(max_size=255)))
def test_any_txt_gives_an_announcement_or_a_config_error(strings: list[bytes]) -> None:
    with contextlib.suppress(ConfigError):
        told(*strings)


@given(st.binary(max_size=9000))
def test_any_bytes_give_an_announcement_or_a_config_error(noise: bytes) -> None:
    with contextlib.suppress(ConfigError):
        from_txt(noise, "eth0")
