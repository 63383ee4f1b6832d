"""What the kernel is asked to do with the TCP connections of peers."""

import socket
import sys
from contextlib import suppress

import trio

DEAD_AFTER_S = 20.0
"""A link that acknowledges nothing for so long is gone: over any outage TCP rides out by itself."""
KEEPALIVE_PROBES = 3
STEADY = b"bbr"
"""Most systems' default, cubic, takes every lost packet for a full line and halves its speed: over 2 Mbit/s with 100 ms
and 2 % loss it was measured to carry 0.6 Mbit/s each way, and bbr 1.7."""


def watch_socket(stream: trio.SocketStream) -> None:
    """Nothing notices a dead link by itself: the kernel shall end it after DEAD_AFTER_S, idle or sending."""
    probe_s = int(DEAD_AFTER_S / KEEPALIVE_PROBES)
    options = {
        "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE": probe_s,
        "TCP_KEEPINTVL": probe_s,
        "TCP_KEEPCNT": KEEPALIVE_PROBES - 1,
        "TCP_USER_TIMEOUT": int(DEAD_AFTER_S * 1000),
    }
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        option = getattr(socket, name, None)  # not every platform has each
        if option is not None:
            stream.setsockopt(socket.IPPROTO_TCP, option, value)
    ride_out_losses(stream)


def ride_out_losses(stream: trio.SocketStream) -> None:
    """Where the system has it and lets ordinary processes choose it (tcp_allowed_congestion_control of Linux)."""
    option = getattr(socket, "TCP_CONGESTION", None)
    if option is not None:
        with suppress(OSError):
            stream.setsockopt(socket.IPPROTO_TCP, option, STEADY)
