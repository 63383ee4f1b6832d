"""The switch of the slow lines, without devices: what passes, when, and what is lost."""

import socket

import pytest

from tests.bench.links_switch import FRAME_BYTES_MAX, Line, Switch

FRAME = bytes(range(12)) + bytes(988)
FAR = 1e9
"""When everything has arrived."""


def test_a_line_takes_its_time_and_drops_what_would_wait_too_long() -> None:
    line = Line(8000.0, queue_s=2.0)
    assert [line.passed_at(0.0, 1000) for _ in range(4)] == [1.0, 2.0, 3.0, None]
    assert line.passed_at(2.5, 1000) == 4.0
    assert line.passed_at(10.0, 500) == 10.5


@pytest.mark.parametrize(("loss", "least", "most"), [(0.0, 2000, 2000), (0.02, 1930, 1990), (1.0, 0, 0)])
def test_a_share_of_the_frames_is_lost_the_same_ones_each_time(loss: float, least: int, most: int) -> None:
    counts = {_carried(loss) for _ in range(2)}
    assert len(counts) == 1 and least <= counts.pop() <= most


def _carried(loss: float) -> int:
    """Of 2,000 frames; datagram sockets stand for the devices, one frame each."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    try:
        for pair in pairs:
            for end in pair:
                end.setblocking(False)
        taps = [inner.fileno() for inner, _ in pairs]
        switch = Switch(taps, 1e6, 0.01, loss, 1e6)
        count = 0
        for _ in range(2000):
            pairs[0][1].send(FRAME)
            switch._read(taps[0])
            switch._deliver(FAR)
            try:
                while pairs[1][1].recv(FRAME_BYTES_MAX):
                    count += 1
            except BlockingIOError:
                pass
        return count
    finally:
        for pair in pairs:
            for end in pair:
                end.close()
