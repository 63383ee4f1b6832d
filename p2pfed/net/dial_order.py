"""In which order a peer's addresses are worth a dial, and which to leave out where time is short.

What is near comes first, then what the whole internet reaches, then the ways through relays. Private addresses of
other networks come last: they lead nowhere, or to somebody else's device, and that is found out after seconds.
"""

import ipaddress
from collections.abc import Sequence

from p2pfed.errors import ConfigError
from p2pfed.net.address import Address, parse_address

NEAR_PREFIX = {4: 24, 6: 64}
"""Bits two addresses of one segment share, most often; where it is wrong the order is not the best one."""


def dial_order(addresses: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """Each once; the order given decides among equals. What cannot be parsed comes last, and fails with its reason."""
    near = _networks(own)
    return tuple(sorted(dict.fromkeys(addresses), key=lambda text: _rank(text, near)))


def direct_only(addresses: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """Those of `dial_order` that need no relay and are near or public: what may replace a relayed connection."""
    near = _networks(own)
    return tuple(text for text in dial_order(addresses, own) if _rank(text, near) < 2)


def _rank(text: str, near: set[str]) -> int:
    address = _parsed(text)
    if address is None:
        return 4
    if address.relayed:
        return 2
    if address.kind.startswith("dns"):
        return 1
    if _network(address) in near or "%" in address.host:  # with a zone: of a segment this device is on
        return 0
    return 1 if ipaddress.ip_address(address.host).is_global else 3


def _networks(own: Sequence[str]) -> set[str]:
    parsed = filter(None, map(_parsed, own))
    return {_network(address) for address in parsed if not address.relayed and address.kind in ("ip4", "ip6")}


def _network(address: Address) -> str:
    ip = ipaddress.ip_address(address.host.partition("%")[0])
    return str(ipaddress.ip_network(f"{ip}/{NEAR_PREFIX[ip.version]}", strict=False))


def _parsed(text: str) -> Address | None:
    try:
        return parse_address(text)
    except ConfigError:
        return None
