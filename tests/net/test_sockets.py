"""Every connection of the transport rides out losses, where the system lets it. What else is asked: test_hardening."""

import socket
from pathlib import Path

import pytest
import trio

from p2pfed.net.sockets import STEADY, ride_out_losses, watch_socket

ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
OTHER = b"reno"
"""Every Linux has it."""
linux = pytest.mark.skipif(not hasattr(socket, "TCP_CONGESTION"), reason="this system has no choice of it")


def chosen(stream: trio.SocketStream) -> bytes:
    return stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


@linux
def test_a_watched_socket_rides_out_losses() -> None:
    if STEADY not in ALLOWED.read_bytes().split():
        pytest.skip(f"{STEADY.decode()} is not among {ALLOWED.read_text().strip()}")

    async def main() -> None:
        with trio.socket.socket() as plain:
            stream = trio.SocketStream(plain)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, OTHER)
            watch_socket(stream)
            assert chosen(stream) == STEADY

    trio.run(main)


@linux
def test_a_system_without_it_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pfed.net.sockets.STEADY", b"not-there")

    async def main() -> None:
        with trio.socket.socket() as plain:
            stream = trio.SocketStream(plain)
            before = chosen(stream)
            ride_out_losses(stream)
            assert chosen(stream) == before

    trio.run(main)
