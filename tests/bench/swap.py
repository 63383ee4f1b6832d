"""Swap throughput between two processes, against a bare libp2p stream that moves the same bytes.

The bare run sends the same payload both ways at once over one stream pair, 64 KiB a write, and does
nothing else with it: the limit of the transport on this machine. A swap also hashes, checks, mixes and publishes.
`python -m tests.bench.swap` prints one JSON line with both for float32, where bytes count most, and for int4, what
networks use; aim: ratio 0.8 or better in float32.
"""

import random
import sys
import time
from collections.abc import Mapping

import numpy
import trio

from p2pfed.config import GossipConfig, ModelConfig, NetworkConfig
from p2pfed.core.events import Report
from p2pfed.net.address import parse_bootstrap
from p2pfed.net.identity import new_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.ports import Encoding, Link
from p2pfed.wire.tensors import payload_size
from tests.bench.children import end, line, say, start
from tests.bench.peers import BenchPeer
from tests.fakes import VectorLearner

VALUES = 6_815_744
"""Values of LoRA r 16 on q and v of a 7B Mistral: 27.3 MB in float32."""
SWAPS = 6
WRITE_BYTES = 64 * 1024
BARE_PROTOCOL = "/p2pfed-bench/bare/1"
ENCODINGS = (Encoding.FLOAT32, Encoding.INT4)


class RestlessLearner(VectorLearner):
    """Never at rest after a mix, or the second swap would find that both hold the same and move nothing."""

    def move(self, by: Mapping[str, numpy.ndarray]) -> None:
        super().move(by)
        self.vector += numpy.float32(self.target)


def measure() -> dict[str, float]:
    figures: dict[str, float] = {}
    for encoding in ENCODINGS:
        bare_s = _pair("bare", encoding)
        swap_s = _pair("swap", encoding)
        payload = 2 * _payload_bytes(encoding)
        figures |= {
            f"{encoding.value}_payload_bytes_both_ways": payload,
            f"{encoding.value}_bare_stream_mb_per_s": payload / 1e6 / bare_s,
            f"{encoding.value}_swap_mb_per_s": payload / 1e6 / swap_s,
            f"{encoding.value}_ratio_swap_to_bare": bare_s / swap_s,
        }
    return figures


def _payload_bytes(encoding: Encoding) -> int:
    return payload_size({"vector": (VALUES,)}, encoding)


def _pair(kind: str, encoding: Encoding) -> float:
    """Seconds of one exchange, median over SWAPS, as the dialling side sees it."""
    listener = start("tests.bench.swap", kind, encoding.value)
    dialler = None
    try:
        dialler = start("tests.bench.swap", kind, encoding.value, line(listener))
        line(dialler)
        seconds = sorted(line(dialler))
        return float(seconds[len(seconds) // 2])
    finally:
        end(listener, *([dialler] if dialler else []))


async def _bare(encoding: Encoding, target: str | None) -> None:
    transport = Libp2pTransport(new_identity(), ("/ip4/127.0.0.1/tcp/0",))
    chunk = random.Random(0).randbytes(WRITE_BYTES)
    count = _payload_bytes(encoding) // WRITE_BYTES

    async def send(link: Link) -> None:
        for _ in range(count):
            await link.send(chunk)

    async def receive(link: Link) -> None:
        for _ in range(count):
            await link.receive()

    async def both(link: Link) -> None:
        for _ in range(SWAPS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, link)
                nursery.start_soon(receive, link)

    transport.serve(BARE_PROTOCOL, both)
    async with transport.running():
        say(f"{transport.addresses()[0]}/p2p/{transport.peer}")
        if target is None:
            await trio.sleep_forever()
        peer, address = parse_bootstrap(target or "")
        link = await transport.open(peer, address, BARE_PROTOCOL)
        seconds = []
        for _ in range(SWAPS):
            begun = time.perf_counter()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, link)
                nursery.start_soon(receive, link)
            seconds.append(time.perf_counter() - begun)
        say(seconds)


async def _swap(encoding: Encoding, target: str | None) -> None:
    network = NetworkConfig("bench", ModelConfig("vector"), gossip=GossipConfig(encoding=encoding.value))
    learner = RestlessLearner(0.01 if target else -0.01, size=VALUES, rate=0.0)
    learner.vector = numpy.random.default_rng(0 if target else 1).standard_normal(VALUES, numpy.float32)
    seconds: list[float] = []
    begun = 0.0

    def watch(report: Report) -> None:
        nonlocal begun
        if report.kind == "swap-begun":
            begun = time.perf_counter()
        elif report.kind == "swap-finished":
            seconds.append(time.perf_counter() - begun)

    async def measured() -> None:
        while target is None or len(seconds) < SWAPS:  # noqa: ASYNC110  # the bench polls, the node does not
            await trio.sleep(0.05)
        say(seconds)

    interval_s = 0.05 if target else 3600.0  # one side initiates
    peer = BenchPeer(network, learner, steps_max=1, swap_interval_s=interval_s, on_report=watch)
    await peer.run(target, measured)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        say(measure())
    else:
        kind, form, *rest = sys.argv[1:]
        trio.run({"bare": _bare, "swap": _swap}[kind], Encoding(form), rest[0] if rest else None)
