"""What an mDNS record of libp2p's service says (libp2p specs, discovery/mdns): its name and its TXT strings.

A peer's record is `<random name>._p2p._udp.local.` with one TXT string an address, `dnsaddr=/ip4/.../tcp/.../p2p/ID`.
Ours has two more, `p2pfed=<network id>` and `instance=<number>`. All that is heard is hearsay of strangers: capped,
parsed, checked; the Noise handshake proves it or not.
"""

import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from p2pfed.errors import ConfigError
from p2pfed.net.address import parse_address, parse_peer
from p2pfed.net.interfaces import ADDRESSES_MAX
from p2pfed.ports import PeerId

SERVICE = "_p2p._udp.local."
NAME_BYTES = 16
"""Of chance in a record's name: 32 characters, as the specification asks for at least."""
TXT_BYTES_MAX = 960
"""Nine addresses; the whole packet stays below 1,232 bytes, which no link breaks into fragments."""
TXT_STRINGS_MAX = 32
"""Of a stranger's record; the rest is not looked at."""
TXT_STRING_BYTES_MAX = 200
"""DNS allows 255; an address over 200 is none of ours."""
INSTANCE_DIGITS_MAX = 20
"""2**64 in decimal."""

_INSTANCE = re.compile(rf"[0-9]{{1,{INSTANCE_DIGITS_MAX}}}")


@dataclass(frozen=True, slots=True)
class Announcement:
    """What one peer tells its network segment."""

    peer: PeerId
    network_id: str
    """Empty: another libp2p implementation, or another program."""
    instance: int
    addresses: tuple[str, ...]


def new_name() -> str:
    """Of a record: it says nothing of the peer, and two are never equal."""
    return f"{secrets.token_hex(NAME_BYTES)}.{SERVICE}"


def to_txt(own: Announcement) -> bytes:
    """A TXT record's data: the first addresses that fit; callers put the most useful one first."""
    strings = [f"p2pfed={own.network_id}", f"instance={own.instance}"]
    left = TXT_BYTES_MAX - sum(len(each) + 1 for each in strings)
    for address in own.addresses:
        string = f"dnsaddr={address}/p2p/{own.peer}"
        if len(string) + 1 > left:
            break
        strings.append(string)
        left -= len(string) + 1
    return b"".join(bytes((len(each),)) + each.encode("ascii") for each in strings)


def from_txt(raw: bytes, link: str, loopback: bool = False) -> Announcement:
    """Of a TXT record's data, heard on interface `link`, without addresses we cannot dial.

    Raises ConfigError with what is wrong.
    """
    strings = _texts(split(raw))
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


def split(raw: bytes) -> list[bytes]:
    """The strings of a TXT record's data, each after a byte with its length; a last one that is cut off is left out."""
    strings: list[bytes] = []
    at = 0
    while at < len(raw) and len(strings) < TXT_STRINGS_MAX:
        end = at + 1 + raw[at]
        if end <= len(raw):
            strings.append(raw[at + 1 : end])
        at = end
    return strings


def _texts(raw: Sequence[bytes]) -> list[str]:
    strings: list[str] = []
    for each in raw:
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
