"""TCP from the port this device listens on, so that others see an address of use, and a NAT one mapping for all.

Where that cannot be (another socket holds these four numbers, the platform forbids it), from any port, silently.
"""

import errno
import ipaddress
import socket
from collections.abc import Sequence

import trio

EACH_S = 4.0
"""For one of several addresses behind a name; the last one has all the time that is left."""
SHARED = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EINVAL, errno.EACCES, errno.EPERM, errno.ENETUNREACH)
"""What bind or connect says where only the source is at fault."""

Source = tuple[str, int]


async def open_tcp(host: str, port: int, sources: Sequence[Source]) -> trio.SocketStream:
    """Raises OSError. `sources`: where this device listens."""
    addresses = await _resolve(host, port)
    for address in addresses[:-1]:
        with trio.move_on_after(EACH_S):
            try:
                return await _open(address, port, sources)
            except OSError:
                continue
    return await _open(addresses[-1], port, sources)


async def open_from(host: str, port: int, source: Source) -> trio.SocketStream:
    """From that port or not at all. Raises OSError."""
    stream = trio.socket.socket(family_of(host), socket.SOCK_STREAM)
    done = False
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        await stream.bind(source)
        await stream.connect((host, port))
        done = True
        return trio.SocketStream(stream)
    finally:
        if not done:
            stream.close()


async def open_elsewhere(host: str, port: int) -> trio.SocketStream:
    """From a port nobody knows: no NAT lets an answer to another one in. Raises OSError."""
    stream = trio.socket.socket(family_of(host), socket.SOCK_STREAM)
    done = False
    try:
        await stream.connect((host, port))
        done = True
        return trio.SocketStream(stream)
    finally:
        if not done:
            stream.close()


def source_for(host: str, sources: Sequence[Source]) -> Source | None:
    """The listener to dial from: of the same family, on every interface or on the right side of loopback."""
    target = ipaddress.ip_address(host)
    for own, port in sources:
        address = ipaddress.ip_address(own)
        if address.version == target.version and (address.is_unspecified or address.is_loopback == target.is_loopback):
            return own, port
    return None


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


async def _open(host: str, port: int, sources: Sequence[Source]) -> trio.SocketStream:
    source = source_for(host, sources)
    if source is not None:
        try:
            return await open_from(host, port, source)
        except OSError as error:
            if error.errno not in SHARED:
                raise
    return await open_elsewhere(host, port)


async def _resolve(host: str, port: int) -> list[str]:
    """Numeric addresses, each once; a number is its own. getaddrinfo would lose the zone of a link-local one."""
    if "%" in host:
        return [host]
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
