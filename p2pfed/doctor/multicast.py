"""Does multicast work here? On each interface a real mDNS query is sent, and must be heard again."""

import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

from p2pfed.doctor.finding import Finding, ok, warn
from p2pfed.net.interfaces import usable_interfaces

GROUP = "224.0.0.251"
PORT = 5353
HEARD_S = 1.0
"""Loopback of one's own packet takes microseconds."""
PACKET_BYTES_MAX = 9000
REMEDY = "allow UDP port 5353 to 224.0.0.251 in this device's firewall; until then give nodes --bootstrap MULTIADDR"


def check_multicast() -> Iterator[Finding]:
    found = [each for each in usable_interfaces() if each.address.version == 4]
    outside = [each for each in found if not each.loopback]
    if not outside:
        yield warn("multicast", "no network interface with an IPv4 address is up", "nodes need --bootstrap MULTIADDR")
    for each in outside or found:
        subject = f"multicast on {each.name}"
        problem = hear_own_query(str(each.address))
        if problem is None:
            yield ok(subject, f"an mDNS query from {each.address} was sent and heard")
        else:
            yield warn(subject, f"{each.address}: {problem}; peers on this LAN are not found", REMEDY)


def hear_own_query(host: str) -> str | None:
    """What went wrong, or None when the query came back."""
    query = _query(secrets.token_bytes(2))
    try:
        with _open(host) as channel:
            channel.sendto(query, (GROUP, PORT))
            until = time.monotonic() + HEARD_S
            while (left := until - time.monotonic()) > 0:
                channel.settimeout(left)
                if channel.recv(PACKET_BYTES_MAX) == query:
                    return None
    except TimeoutError:
        pass
    except OSError as error:
        return error.strerror or str(error)
    return f"the query was sent but not heard within {HEARD_S:g} s"


def _open(host: str) -> socket.socket:
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
    try:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(AttributeError, OSError):  # where it exists, other responders have it set as well
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        channel.bind(("", PORT))
        own = socket.inet_aton(host)
        channel.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + own)
        channel.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
        channel.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        channel.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    except OSError:
        channel.close()
        raise
    return channel


def _query(number: bytes) -> bytes:
    """A DNS question of type PTR for p2pfed's service; the number is how it is known again."""
    name = b"".join(bytes([len(label)]) + label for label in (b"_p2pfed", b"_udp", b"local")) + b"\0"
    return number + bytes((0, 0, 0, 1, 0, 0, 0, 0, 0, 0)) + name + bytes((0, 12, 0, 1))
