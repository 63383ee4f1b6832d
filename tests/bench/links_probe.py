"""The yardstick of a link: one byte there and back, then a plain TCP stream for a while.

`python -m tests.bench.links_probe serve` in one namespace, `... ADDRESS` in another; the second prints
milliseconds and Mbit/s.
"""

import socket
import sys
import time

from tests.bench.children import say

PORT = 4077
ROUND_TRIPS = 5
STREAM_S = 4.0
CHUNK = bytes(64 * 1024)


def serve() -> None:
    """One client: echoes ROUND_TRIPS bytes, then counts until its end and tells."""
    with socket.create_server(("0.0.0.0", PORT)) as server:
        say("listening")
        client, _ = server.accept()
        with client:
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


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else probe(sys.argv[1])
