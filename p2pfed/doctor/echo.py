"""Does what is sent to mDNS's group come back? A real question is sent, by a socket of the doctor's own."""

import secrets
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

import trio

from p2pfed.net.mdns_responder import GROUPS, PORT
from p2pfed.net.mdns_txt import SERVICE

TRIES_S = (0.0, 0.4, 1.1)
"""One's own packet takes microseconds; the later ones are for an IPv6 address that was not ready."""
WAIT_S = 0.2
"""For the packet to come back, after the last try as well."""
PACKET_BYTES_MAX = 9000
"""RFC 6762, section 17: the longest there is."""


@dataclass(slots=True)
class Echo:
    """What became of it on one interface and IP version."""

    interface: str
    version: int
    """4 or 6."""
    sent: int = 0
    heard: int = 0
    problem: str | None = None
    """Why the last could not be sent."""


async def echo(interface: str, version: int, host: str) -> Echo:
    """Takes up to 1.3 s, less where it is heard. `host`: own address there."""
    result = Echo(interface, version)
    question = _question()
    begun = trio.current_time()
    for at in TRIES_S:
        await trio.sleep_until(begun + at)
        try:
            with _open(interface, version, host) as channel:
                await channel.sendto(question, _group(interface, version))
                result.sent += 1
                result.problem = None
                with trio.move_on_after(WAIT_S):
                    while await channel.recv(PACKET_BYTES_MAX) != question:
                        pass
                    result.heard += 1
                    return result
        except OSError as error:
            result.problem = error.strerror or str(error)
    return result


def _question() -> bytes:
    """Who has a TXT record of a name of chance: nobody, so nobody answers, and it is known again by it."""
    labels = (secrets.token_hex(16), *SERVICE.rstrip(".").split("."))
    name = b"".join(bytes((len(label),)) + label.encode("ascii") for label in labels) + b"\0"
    return struct.pack("!6H", 0, 0, 1, 0, 0, 0) + name + struct.pack("!2H", 16, 1)


def _group(interface: str, version: int) -> tuple[str, int] | tuple[str, int, int, int]:
    return (GROUPS[4], PORT) if version == 4 else (GROUPS[6], PORT, 0, socket.if_nametoindex(interface))


def _open(interface: str, version: int, host: str) -> trio.socket.SocketType:
    index = socket.if_nametoindex(interface)
    channel = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(AttributeError, OSError):  # where it exists, other responders have it set as well
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if version == 4:
            own, group = socket.inet_aton(host), socket.inet_aton(GROUPS[4])
            channel.bind(("", PORT))
            channel.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + own)
            channel.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
            channel.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        else:
            group = socket.inet_pton(socket.AF_INET6, GROUPS[6])
            channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            channel.bind(("::", PORT))
            channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("@I", index))
            channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        channel.setblocking(False)
        return trio.socket.from_stdlib_socket(channel)
    except OSError:
        channel.close()
        raise
