"""Which congestion control TCP uses under our connections."""

import socket
from contextlib import suppress

import trio

STEADY = b"bbr"
"""Most systems' default, cubic, takes every lost packet for a full line and halves its speed: over 2 Mbit/s with 100 ms
and 2 % loss it was measured to carry 0.6 Mbit/s each way, and bbr 1.7."""


def ride_out_losses(stream: trio.SocketStream) -> None:
    """Where the system has it and lets ordinary processes choose it (tcp_allowed_congestion_control of Linux)."""
    option = getattr(socket, "TCP_CONGESTION", None)
    if option is not None:
        with suppress(OSError):
            stream.setsockopt(socket.IPPROTO_TCP, option, STEADY)
