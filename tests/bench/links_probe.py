"""The yardstick of a link: one byte there and back, then a plain TCP stream for a while.

`python -m tests.bench.links_probe serve` in one namespace, `... ADDRESS` in another; the second prints
milliseconds and Mbit/s. With a number of bytes after either: so many both ways at once, and the second prints
the seconds until both sides had all.
"""

import socket
import sys
import threading
import time

from tests.bench.children import say

PORT = 4077
ROUND_TRIPS = 5
STREAM_S = 4.0
CHUNK = bytes(64 * 1024)


def serve() -> None:
    """One client: echoes ROUND_TRIPS bytes, then counts until its end and tells."""
    with _accepted() as client:
        for _ in range(ROUND_TRIPS):
            client.sendall(client.recv(1))
        begun, count = time.monotonic(), 0
        while data := client.recv(len(CHUNK)):
            count += len(data)
        client.sendall(f"{count * 8 / 1e6 / (time.monotonic() - begun)}\n".encode())


def probe(address: str) -> None:
    with socket.create_connection((address, PORT)) as client:
        trips = []
        for _ in range(ROUND_TRIPS):
            begun = time.monotonic()
            client.sendall(b"p")
            client.recv(1)
            trips.append(time.monotonic() - begun)
        until = time.monotonic() + STREAM_S
        while time.monotonic() < until:
            client.sendall(CHUNK)
        client.shutdown(socket.SHUT_WR)
        print(1000.0 * min(trips), client.makefile().readline().strip())


def serve_both_ways(size: int) -> None:
    """One client: begins to send with its first byte, and tells by one more byte when it has all of its."""
    with _accepted() as client:
        client.recv(1)
        _send_and_receive(client, size)
        client.sendall(b"d")


def probe_both_ways(address: str, size: int) -> None:
    with socket.create_connection((address, PORT)) as client:
        begun = time.monotonic()
        client.sendall(b"g")
        _send_and_receive(client, size)
        client.recv(1)
        print(time.monotonic() - begun)


def _send_and_receive(client: socket.socket, size: int) -> None:
    sender = threading.Thread(target=client.sendall, args=(bytes(size),))
    sender.start()
    while size > 0:
        data = client.recv(min(size, len(CHUNK)))
        if not data:
            raise RuntimeError(f"the probe's other side ended, {size} bytes early")
        size -= len(data)
    sender.join()


def _accepted() -> socket.socket:
    with socket.create_server(("0.0.0.0", PORT)) as server:
        say("listening")
        client, _ = server.accept()
        return client


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["serve", size]:
            serve_both_ways(int(size))
        case [address]:
            probe(address)
        case [address, size]:
            probe_both_ways(address, int(size))
