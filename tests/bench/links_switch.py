"""A switch between TAP devices with slow lines: each frame waits for its sender's line, the delay, its receiver's line.

`python -m tests.bench.links_switch PEERS MBIT_PER_S ROUND_TRIP_MS LOSS QUEUE_MS` makes the devices in its own network
namespace, prints their names and carries frames until it is killed. Lines are store-and-forward and drop what
would wait longer than QUEUE_MS, as a home router does; of what passed a sender's line the share LOSS is lost.
"""

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import sys
import time
from contextlib import suppress

from tests.bench.children import say

TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
FRAME_BYTES_MAX = 2048
"""An Ethernet frame of 1,514 bytes, with room."""
BURST = 64
"""Frames read from one device before the others have their turn."""
LOSS_SEED = 20261126


def open_tap(name: str) -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


class Line:
    """One direction of one peer's line: when the frame that is given now has passed it."""

    def __init__(self, bits_per_s: float, queue_s: float) -> None:
        self._s_per_byte = 8.0 / bits_per_s
        self._queue_s = queue_s
        self._free_at = 0.0

    def passed_at(self, now: float, size: int) -> float | None:
        """None: too much waits already, the frame is dropped."""
        begins = max(now, self._free_at)
        if begins - now > self._queue_s:
            return None
        self._free_at = begins + size * self._s_per_byte
        return self._free_at


class Switch:
    def __init__(self, taps: list[int], rate_mbit: float, delay_s: float, loss: float, queue_s: float) -> None:
        self._taps = taps
        self._delay_s = delay_s
        self._loss = loss
        self._chance = random.Random(LOSS_SEED)
        self._up = {tap: Line(rate_mbit * 1e6, queue_s) for tap in taps}
        self._down = {tap: Line(rate_mbit * 1e6, queue_s) for tap in taps}
        self._learned: dict[bytes, int] = {}
        self._order = itertools.count()
        self._under_way: list[tuple[float, int, bool, int, bytes]] = []
        """(when, order, whether it has passed the receiver's line, receiver, frame)."""

    def run(self) -> None:
        while True:
            timeout = max(0.0, self._under_way[0][0] - time.monotonic()) if self._under_way else None
            readable, _, _ = select.select(self._taps, [], [], timeout)
            for tap in readable:
                self._read(tap)
            self._deliver(time.monotonic())

    def _read(self, tap: int) -> None:
        for _ in range(BURST):
            try:
                frame = os.read(tap, FRAME_BYTES_MAX)
            except BlockingIOError:
                return
            self._learned[frame[6:12]] = tap
            sent_at = self._up[tap].passed_at(time.monotonic(), len(frame))
            if sent_at is None or self._chance.random() < self._loss:
                continue
            known = self._learned.get(frame[:6])
            for receiver in [known] if known is not None else [each for each in self._taps if each != tap]:
                self._push(sent_at + self._delay_s, False, receiver, frame)

    def _deliver(self, now: float) -> None:
        while self._under_way and self._under_way[0][0] <= now:
            at, _, passed, receiver, frame = heapq.heappop(self._under_way)
            if passed:
                with suppress(OSError):  # its end is not up yet, or not any more
                    os.write(receiver, frame)
            elif (arrives := self._down[receiver].passed_at(at, len(frame))) is not None:
                self._push(arrives, True, receiver, frame)

    def _push(self, at: float, passed: bool, receiver: int, frame: bytes) -> None:
        heapq.heappush(self._under_way, (at, next(self._order), passed, receiver, frame))


def main(peers: int, rate_mbit: float, round_trip_ms: float, loss: float, queue_ms: float) -> None:
    names = [f"line{peer}" for peer in range(peers)]
    taps = [open_tap(name) for name in names]
    say(names)
    Switch(taps, rate_mbit, round_trip_ms / 2000.0, loss, queue_ms / 1000.0).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(float, sys.argv[2:6]))
