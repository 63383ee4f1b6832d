"""mDNS packets: what is said is understood, by others too, and no stranger's bytes are believed."""

import contextlib

import dns.message
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.errors import ConfigError
from p2pfed.net.identity import Identity
from p2pfed.net.mdns_record import (
    SERVICE,
    TXT_BYTES_MAX,
    Announcement,
    Packet,
    concerns_us,
    from_txt,
    new_name,
    parse,
    query,
    response,
    services_response,
    to_txt,
)

PEER = Identity(bytes([1]) * 32).peer_id
OTHER = Identity(bytes([2]) * 32).peer_id
OWN = Announcement(PEER, "0123456789abcdef", 2**53 - 1, ("/ip4/10.0.0.1/tcp/4001", "/ip6/fd00::1/tcp/4001"))
NAME = f"{'ab' * 16}.{SERVICE}"
PACKET_BYTES = 1232
"""IPv6's smallest MTU less the headers: what no link breaks into fragments."""


def told(*strings: bytes) -> Announcement:
    return from_txt(strings, "eth0")


def test_what_is_announced_is_understood() -> None:
    packet = parse(response(NAME, OWN, ["10.0.0.1", "fd00::1"]))
    assert packet is not None
    (record,) = packet.records
    assert record.name == NAME and record.strings is not None
    assert from_txt(record.strings, "eth0") == OWN


def test_the_record_is_that_of_the_specification() -> None:
    """PTR to a name of chance, TXT with a dnsaddr string an address, in the packet's bytes; read without our code."""
    message = dns.message.from_wire(response(NAME, OWN, ["10.0.0.1"]))
    assert message.flags & 0x8400 == 0x8400 and message.id == 0
    (pointer,) = [each for each in message.answer if each.rdtype == dns.rdatatype.PTR]
    assert pointer.name.to_text() == SERVICE and pointer[0].target.to_text() == NAME
    (text,) = [each for each in message.additional if each.rdtype == dns.rdatatype.TXT]
    addresses = [string for string in text[0].strings if string.startswith(b"dnsaddr=")]
    assert text.name.to_text() == NAME
    assert addresses == [f"dnsaddr={address}/p2p/{PEER}".encode() for address in OWN.addresses]
    label = new_name().partition(".")[0]
    assert 32 <= len(label) <= 63 and label.isalnum() and label == label.lower() and label != new_name()[: len(label)]


def test_the_best_addresses_fit_and_no_packet_is_broken_up() -> None:
    many = Announcement(PEER, "0" * 16, 2**53, tuple(f"/ip6/2001:db8:1234:5678::{n:x}/tcp/40000" for n in range(1, 65)))
    assert sum(len(each) + 1 for each in to_txt(many)) <= TXT_BYTES_MAX
    understood = told(*to_txt(many))
    assert 7 <= len(understood.addresses) < 16 and understood.addresses == many.addresses[: len(understood.addresses)]
    assert len(response(NAME, many, ["192.168.100.100", "2001:db8:1234:5678::1"])) <= PACKET_BYTES
    assert len(query([new_name() for _ in range(200)])) <= PACKET_BYTES


def test_questions_and_known_answers() -> None:
    asked = parse(query([NAME]))
    assert asked == Packet(frozenset({SERVICE}), frozenset({NAME}))
    goodbye = parse(response(NAME, Announcement(PEER, "", 0, ()), (), ttl_s=0))
    assert goodbye is not None and [each.strings for each in goodbye.records] == [None]
    assert parse(services_response()) == Packet()
    assert concerns_us(query([])) and concerns_us(services_response()) and not concerns_us(b"\x05_http\x04_tcp")
    assert parse(b"") is None and parse(bytes(12)) == Packet()


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
        from_txt(strings, "eth0")


@given(st.binary(max_size=300), st.integers(0, 400), st.binary(max_size=20))
def test_any_bytes_give_a_packet_or_none(noise: bytes, at: int, cut: bytes) -> None:
    parse(noise)
    parse(bytes((0, 0, 0x84, 0, 0, 0, 0, 2, 0, 0, 0, 0)) + noise)
    whole = response(NAME, OWN, ["10.0.0.1"])
    parse(whole[:at] + cut + whole[at + len(cut) :])
