"""Multiaddrs as p2pfed uses them: one host, one TCP port, optionally the peer's id. Nothing else is accepted.

Or a circuit: the way to a peer through a relay, `/ip4/HOST/tcp/PORT/p2p/RELAY/p2p-circuit`, host and port being the
relay's. Pure text handling, no libp2p: discovery parses strangers' addresses with it, `p2pfed identity show` needs
no network.
"""

import ipaddress
import re
from dataclasses import dataclass

from p2pfed.errors import ConfigError
from p2pfed.ports import PeerId

ADDRESS_CHARS_MAX = 256
"""A name of 253 characters is the longest DNS allows; nothing longer is an address."""
PEER_ID_CHARS_MAX = 64
"""An Ed25519 id has 52 characters, a SHA-256 one 46."""
PORT_MAX = 65_535
BASE58_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
ED25519_ID_PREFIX = bytes((0x00, 0x24, 0x08, 0x01, 0x12, 0x20))
"""Identity multihash of 36 bytes: protobuf of an Ed25519 public key (libp2p specs, peer-ids)."""
SHA256_ID_PREFIX = bytes((0x12, 0x20))
DIGEST_BYTES = 32

CIRCUIT = "p2p-circuit"
FORM = "/ip4/HOST/tcp/PORT or /ip4/HOST/tcp/PORT/p2p/ID, or for a relayed peer /ip4/HOST/tcp/PORT/p2p/RELAY/p2p-circuit"
HOST_KINDS = ("ip4", "ip6", "dns", "dns4", "dns6")
DNS_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed multiaddr."""

    kind: str
    """One of HOST_KINDS."""
    host: str
    port: int
    peer: PeerId | None = None
    """Who shall answer; of a circuit the peer at its far end."""
    relay: PeerId | None = None
    """Set: a circuit through this peer, which listens at host and port."""

    def __str__(self) -> str:
        """Without the peer's own /p2p/ part."""
        circuit = f"/p2p/{self.relay}/{CIRCUIT}" if self.relay is not None else ""
        return f"/{self.kind}/{self.host}/tcp/{self.port}{circuit}"

    @property
    def relayed(self) -> bool:
        return self.relay is not None


def parse_address(text: str) -> Address:
    """Raises ConfigError with what is wrong."""
    if len(text) > ADDRESS_CHARS_MAX:
        raise ConfigError(f"multiaddr of {len(text)} characters, more than {ADDRESS_CHARS_MAX}")
    parts = text.split("/")
    if len(parts) < 5 or parts[0] != "" or parts[3] != "tcp":
        raise ConfigError(f"multiaddr {text!r} is not of the form {FORM}")
    kind, host, port = parts[1], _host(parts[1], parts[2], text), _port(parts[4], text)
    match parts[5:]:
        case []:
            return Address(kind, host, port)
        case ["p2p", peer]:
            return Address(kind, host, port, parse_peer(peer))
        case ["p2p", relay, "p2p-circuit"]:
            return Address(kind, host, port, None, parse_peer(relay))
        case ["p2p", relay, "p2p-circuit", "p2p", peer]:
            return Address(kind, host, port, parse_peer(peer), parse_peer(relay))
    raise ConfigError(f"multiaddr {text!r} is not of the form {FORM}")


def is_circuit(text: str) -> bool:
    """Of an address that was parsed or made here; cheaper than parsing it anew."""
    return f"/{CIRCUIT}" in text


def parse_bootstrap(text: str) -> tuple[PeerId, str]:
    """The peer id and the address without it. Raises ConfigError, also when the id is missing."""
    address = parse_address(text)
    if address.relayed:
        raise ConfigError(f"bootstrap address {text!r} goes through a relay: a bootstrap peer is dialled itself")
    if address.peer is None:
        raise ConfigError(
            f"bootstrap address {text!r} has no /p2p/ID at its end, so nobody could prove who answers there"
        )
    return address.peer, str(address)


def parse_peer(text: str) -> PeerId:
    """Check a base58 peer id. Raises ConfigError."""
    raw = base58_decode(text) if len(text) <= PEER_ID_CHARS_MAX else b""
    for prefix in (ED25519_ID_PREFIX, SHA256_ID_PREFIX):
        if raw.startswith(prefix) and len(raw) == len(prefix) + DIGEST_BYTES:
            return PeerId(text)
    raise ConfigError(f"{text[:PEER_ID_CHARS_MAX]!r} is not a peer id in base58")


def base58_encode(raw: bytes) -> str:
    number, digits = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = BASE58_ALPHABET[digit] + digits
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + digits


def base58_decode(text: str) -> bytes:
    """Empty where a character is none of base58's. Quadratic: cap the length first."""
    number = 0
    for character in text:
        digit = BASE58_ALPHABET.find(character)
        if digit < 0:
            return b""
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _host(kind: str, host: str, text: str) -> str:
    if kind not in HOST_KINDS:
        raise ConfigError(f"multiaddr {text!r} starts with /{kind}, not one of {', '.join(HOST_KINDS)}")
    if kind.startswith("dns"):
        if not DNS_NAME.fullmatch(host):
            raise ConfigError(f"multiaddr {text!r} has {host!r}, which is not a host name")
        return host
    try:
        return str(ipaddress.IPv4Address(host) if kind == "ip4" else ipaddress.IPv6Address(host))
    except ValueError:
        raise ConfigError(f"multiaddr {text!r} has {host!r}, which is not an {kind} address") from None


def _port(port: str, text: str) -> int:
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= PORT_MAX):
        raise ConfigError(f"multiaddr {text!r} has port {port!r}, not a number from 0 to {PORT_MAX}")
    return int(port)
