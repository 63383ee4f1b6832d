"""Does a multicast packet sent on this machine come back to it? What mDNS between local processes needs."""

import secrets
import socket
from contextlib import suppress

GROUP = "239.255.77.67"
"""Administratively scoped (RFC 2365): nobody else's packets, and none of ours leaves the site."""
WAIT_S = 0.5
LOOPBACK = "127.0.0.1"


def multicast_works(host: str = LOOPBACK, wait_s: float = WAIT_S) -> bool:
    """One datagram through the interface of that address, to a group this process has joined there."""
    token = secrets.token_bytes(16)
    with (
        suppress(OSError),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("", 0))
        membership = socket.inet_aton(GROUP) + socket.inet_aton(host)
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        receiver.settimeout(wait_s)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
        sender.sendto(token, (GROUP, receiver.getsockname()[1]))
        return receiver.recv(64) == token
    return False
