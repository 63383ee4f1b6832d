"""What mDNS packets of libp2p's service say (libp2p specs, discovery/mdns): made and understood here, sent elsewhere.

A peer's record is `<random name>._p2p._udp.local.` with one TXT string an address, `dnsaddr=/ip4/.../tcp/.../p2p/ID`.
Ours has two more, `p2pfed=<network id>` and `instance=<number>`. All that is heard is hearsay of strangers: capped,
parsed, checked; the Noise handshake proves it or not. dnspython, which libp2p loads anyway, does the DNS.
"""

import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rrset
from dns.rdata import Rdata
from dns.rdataclass import IN, RdataClass
from dns.rdatatype import AAAA, PTR, SRV, TXT, A
from dns.rdtypes.ANY.PTR import PTR as Pointer
from dns.rdtypes.ANY.TXT import TXT as Text
from dns.rdtypes.IN.A import A as Address4
from dns.rdtypes.IN.AAAA import AAAA as Address6
from dns.rdtypes.IN.SRV import SRV as Service

from p2pfed.errors import ConfigError
from p2pfed.net.address import parse_address, parse_peer
from p2pfed.net.interfaces import ADDRESSES_MAX
from p2pfed.ports import PeerId

SERVICE = "_p2p._udp.local."
META_SERVICE = "_services._dns-sd._udp.local."
"""Who asks for this wants to know which services there are (RFC 6763, section 9)."""
NAME_BYTES = 16
"""Of chance in a record's name: 32 characters, as the specification asks for at least."""
TTL_S = 120
"""How long others keep a record that they hear no goodbye of."""
TXT_BYTES_MAX = 960
"""Nine addresses; the whole packet stays below 1,232 bytes, which no link breaks into fragments."""
TXT_STRINGS_MAX = 32
"""Of a stranger's record; the rest is not looked at."""
TXT_STRING_BYTES_MAX = 200
"""DNS allows 255; an address over 200 is none of ours."""
RECORDS_MAX = 64
"""Peers in one packet; the rest is not looked at."""
KNOWN_ANSWERS_MAX = 16
"""Told with a question, so that they are not answered again: 50 bytes each."""
INSTANCE_DIGITS_MAX = 20
"""2**64 in decimal."""

CLASS_UNIQUE = RdataClass.make(0x8001)
"""IN with the cache-flush bit: what was known of that name before is void."""
MARKS = (b"\x04_p2p\x04_udp", b"\x07_dns-sd")
"""A packet that concerns us has one of them, in some case; printers and speakers say nothing like it."""
RESPONSE = dns.flags.QR | dns.flags.AA

_INSTANCE = re.compile(rf"[0-9]{{1,{INSTANCE_DIGITS_MAX}}}")


@dataclass(frozen=True, slots=True)
class Announcement:
    """What one peer tells its network segment."""

    peer: PeerId
    network_id: str
    """Empty: another libp2p implementation, or another program."""
    instance: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One peer's record as it was heard: `strings` is None in a goodbye."""

    name: str
    strings: tuple[bytes, ...] | None


@dataclass(frozen=True, slots=True)
class Packet:
    """What a packet holds of our service."""

    asked: frozenset[str] = frozenset()
    """Names asked for, lower case."""
    known: frozenset[str] = frozenset()
    """Record names, lower case, that the asker knows already."""
    records: tuple[Record, ...] = ()


def new_name() -> str:
    """Of a record: it says nothing of the peer, and two are never equal."""
    return f"{secrets.token_hex(NAME_BYTES)}.{SERVICE}"


def to_txt(own: Announcement) -> list[bytes]:
    """The first addresses that fit: callers put the most useful one first."""
    strings = [f"p2pfed={own.network_id}", f"instance={own.instance}"]
    left = TXT_BYTES_MAX - sum(len(each) + 1 for each in strings)
    for address in own.addresses:
        string = f"dnsaddr={address}/p2p/{own.peer}"
        if len(string) + 1 > left:
            break
        strings.append(string)
        left -= len(string) + 1
    return [each.encode("ascii") for each in strings]


def from_txt(raw: Sequence[bytes], link: str, loopback: bool = False) -> Announcement:
    """Heard on interface `link`. Addresses we cannot dial are left out. Raises ConfigError with what is wrong."""
    strings = _strings(raw)
    named = {key: value for key, _, value in (each.partition("=") for each in strings) if key != "dnsaddr"}
    told = [each.removeprefix("dnsaddr=") for each in strings if each.startswith("dnsaddr=")]
    peers = {each.rpartition("/p2p/")[2] for each in told}
    if len(peers) != 1:
        raise ConfigError(f"{len(told)} addresses of {len(peers)} peers, not of one")
    peer = parse_peer(peers.pop())
    if "p2pfed" not in named:
        return Announcement(peer, "", 0, tuple(told[:ADDRESSES_MAX]))
    if not _INSTANCE.fullmatch(named.get("instance", "")):
        raise ConfigError(f"instance is not a number of at most {INSTANCE_DIGITS_MAX} digits")
    addresses = [address for each in told if (address := _dialable(each, link, loopback)) is not None]
    if not addresses:
        raise ConfigError("none of its addresses can be dialled from here")
    return Announcement(peer, named["p2pfed"], int(named["instance"]), tuple(dict.fromkeys(addresses))[:ADDRESSES_MAX])


def _strings(raw: Sequence[bytes]) -> list[str]:
    strings: list[str] = []
    for each in raw[:TXT_STRINGS_MAX]:
        if len(each) > TXT_STRING_BYTES_MAX or not each.isascii():
            raise ConfigError(f"TXT string of {len(each)} bytes is not ASCII of at most {TXT_STRING_BYTES_MAX}")
        strings.append(each.decode("ascii"))
    return strings


def _dialable(text: str, link: str, loopback: bool) -> str | None:
    """IP addresses only: a name would make us ask DNS what a stranger wants asked. Link-local ones get the zone."""
    try:
        address = parse_address(text)
    except ConfigError:  # another transport: the next one may do
        return None
    if address.kind not in ("ip4", "ip6") or not address.port or "%" in address.host:
        return None
    ip = ipaddress.ip_address(address.host)
    if ip.is_unspecified or ip.is_multicast or ip.is_loopback != loopback:
        return None
    zone = f"%{link}" if ip.version == 6 and ip.is_link_local else ""
    return f"/{address.kind}/{address.host}{zone}/tcp/{address.port}"


def query(known: Sequence[str]) -> bytes:
    message = dns.message.QueryMessage(id=0)
    message.flags = dns.flags.Flag(0)
    message.question.append(dns.rrset.RRset(dns.name.from_text(SERVICE), IN, PTR))
    for name in known[:KNOWN_ANSWERS_MAX]:
        _add(message.answer, SERVICE, TTL_S, _pointer(name))
    return message.to_wire()


def response(name: str, own: Announcement, hosts: Sequence[str], ttl_s: int = TTL_S) -> bytes:
    """Announcement and answer in one; with `ttl_s` 0 the goodbye. `hosts`: IP addresses, for those who read SRV."""
    message = _response()
    host = f"{name.partition('.')[0]}.local."
    text = Text(CLASS_UNIQUE, TXT, to_txt(own))
    port = parse_address(own.addresses[0]).port if own.addresses else 0
    _add(message.answer, SERVICE, ttl_s, _pointer(name))
    _add(message.additional, name, ttl_s, text)
    service = Service(CLASS_UNIQUE, SRV, 0, 0, port, dns.name.from_text(host))  # type: ignore[no-untyped-call]
    _add(message.additional, name, ttl_s, service)
    for each in hosts[:2]:
        _add(message.additional, host, ttl_s, _address(each))
    return message.to_wire()


def services_response() -> bytes:
    """For who asks META_SERVICE. Not part of `response`: js-libp2p reads the last pointer of a packet only."""
    message = _response()
    _add(message.answer, META_SERVICE, TTL_S, _pointer(SERVICE))
    return message.to_wire()


def concerns_us(data: bytes) -> bool:
    """Cheap: most packets of a LAN are about other things, and are not parsed."""
    lower = data.lower()
    return any(mark in lower for mark in MARKS)


def parse(data: bytes) -> Packet | None:
    """None where it is no DNS."""
    try:
        message = dns.message.from_wire(data, ignore_trailing=True, one_rr_per_rrset=True)
    except (dns.exception.DNSException, ValueError):
        return None
    answers = [each for each in message.answer if each.rdtype == PTR and _text(each.name) == SERVICE]
    if not message.flags & dns.flags.QR:
        asked = frozenset(_text(each.name) for each in message.question)
        known = frozenset(_target(each) for each in answers if each.ttl * 2 >= TTL_S)
        return Packet(asked, known)
    found = {_target(each): Record(_target(each), None) for each in answers if not each.ttl}
    for each in (*message.answer, *message.additional):
        name = _text(each.name)
        if each.rdtype == TXT and name.endswith(f".{SERVICE}") and each.ttl and name not in found:
            found[name] = Record(name, tuple(each[0].strings))
    return Packet(records=tuple(found.values())[:RECORDS_MAX])


def _response() -> dns.message.Message:
    message = dns.message.QueryMessage(id=0)
    message.flags = dns.flags.Flag(RESPONSE)
    return message


def _pointer(name: str) -> Rdata:
    return Pointer(IN, PTR, dns.name.from_text(name))  # type: ignore[no-untyped-call]


def _address(host: str) -> Rdata:
    if ipaddress.ip_address(host).version == 4:
        return Address4(CLASS_UNIQUE, A, host)  # type: ignore[no-untyped-call]
    return Address6(CLASS_UNIQUE, AAAA, host)  # type: ignore[no-untyped-call]


def _add(section: list[dns.rrset.RRset], name: str, ttl_s: int, data: Rdata) -> None:
    section.append(dns.rrset.from_rdata(dns.name.from_text(name), ttl_s, data))


def _text(name: dns.name.Name) -> str:
    return name.to_text().lower()


def _target(pointer: dns.rrset.RRset) -> str:
    return _text(pointer[0].target)
