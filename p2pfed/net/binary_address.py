"""Multiaddrs in the binary form that libp2p's own protocols carry, to and from the text that p2pfed uses."""

from collections.abc import Sequence

from p2pfed.net import hardening  # noqa: F401  before libp2p: it leaves out parts of it

# isort: split
from multiaddr import Multiaddr

from p2pfed.errors import ConfigError
from p2pfed.net.address import ADDRESS_CHARS_MAX, parse_address
from p2pfed.ports import PeerId

ADDRESSES_READ_MAX = 32
"""Addresses of one peer that are looked at: others announce QUIC and WebSocket besides."""
ADDRESSES_KEPT_MAX = 8
"""Of those, that this peer could dial."""


def addresses_of(raw: Sequence[bytes], peer: PeerId) -> tuple[str, ...]:
    """Of binary multiaddrs those that this peer could dial, as text without a /p2p/ of `peer` at the end."""
    found: dict[str, None] = {}
    for each in raw[:ADDRESSES_READ_MAX]:
        if len(each) > ADDRESS_CHARS_MAX:
            continue
        try:
            text = str(Multiaddr(bytes(each))).removesuffix(f"/p2p/{peer}")
            parse_address(text)
        except ConfigError:
            continue  # QUIC, WebSocket and whatever comes: not for us
        except Exception:  # noqa: BLE001  a stranger's bytes may raise anything in the library
            continue
        found[text] = None
    return tuple(found)[:ADDRESSES_KEPT_MAX]


def address_bytes(text: str) -> bytes | None:
    """Binary form; None where the library does not know it."""
    try:
        return bytes(Multiaddr(text).to_bytes())
    except Exception:  # noqa: BLE001  as above: addresses are hearsay, most of them
        return None
