"""One swap over a slow line, against plain TCP on the same line and against the line itself.

`python -m tests.bench.slow_links` prints one JSON line for each line below: seconds of a swap of the 3.6 MB adapter of
a 7B model in int4 between two processes, each in a namespace of its own, from the offer to the last acknowledgement;
and seconds of a plain TCP connection that carries as many bytes both ways at once. Aim: `ratio_to_tcp` 0.85 or better.
`ratio_to_rate` is to the line's bits a second, of which packet headers take 4 % and lost packets their share.
Congestion control of TCP is the machine's, or cubic, most systems' default. Needs root on Linux with `ip` and
/dev/net/tun. Numbers after the command choose some of the lines, counted from 0.
"""

import sys
import time

import numpy
import trio

from p2pfed.config import GossipConfig, ModelConfig, NetworkConfig
from p2pfed.core.events import Report
from p2pfed.ports import Encoding
from p2pfed.wire.tensors import payload_size
from tests.bench.children import end, line, say, start
from tests.bench.links import Links, Shape, both_ways_s, refusal
from tests.bench.peers import BenchPeer
from tests.fakes import VectorLearner

VALUES = 6_815_744
"""Values of LoRA r 16 on q and v of a 7B Mistral."""
SHAPES = (
    Shape(2.0, 100.0),
    Shape(2.0, 100.0, loss=0.02),
    Shape(2.0, 200.0, loss=0.02),
    Shape(2.0, 100.0, loss=0.02, congestion="cubic"),
    Shape(20.0, 40.0),
)
RUNS = 2
"""TCP and swap in turn, each up to a minute."""
SWAP_S = 200.0


def measure(shape: Shape) -> dict[str, object]:
    size = payload_size({"vector": (VALUES,)}, Encoding.INT4)
    tcp_s: list[float] = []
    swaps: list[dict[str, float]] = []
    with Links(2, shape) as links:
        for _ in range(RUNS):
            tcp_s.append(both_ways_s(links, size))
            swaps.append(_swapped(links))
    swap_s = [swap["seconds"] for swap in swaps]
    return {
        "rate_mbit": shape.rate_mbit,
        "round_trip_ms": shape.round_trip_ms,
        "loss": shape.loss,
        "congestion": shape.congestion or "machine's",
        "payload_bytes": size,
        "sent_bytes": [swap["sent_bytes"] for swap in swaps],
        "linked_s": [swap["linked_s"] for swap in swaps],
        "tcp_s": tcp_s,
        "swap_s": swap_s,
        "ratio_to_tcp": sum(tcp_s) / sum(swap_s),
        "ratio_to_rate": RUNS * 8.0 * size / (1e6 * shape.rate_mbit) / sum(swap_s),
    }


def _swapped(links: Links) -> dict[str, float]:
    """One swap of two fresh processes, as the side sees it that offered."""
    one = two = None
    try:
        one = start("tests.bench.slow_links", "peer", links.address(0), inside=links.inside(0))
        target = line(one)
        two = start("tests.bench.slow_links", "peer", links.address(1), target, inside=links.inside(1))
        line(two)
        figures: dict[str, float] = line(two)
        return figures
    finally:
        end(*(child for child in (one, two) if child is not None))


async def _peer(address: str, target: str | None) -> None:
    """Whoever has a target dials it and offers; the other one answers, as it makes no step until it is asked to."""
    network = NetworkConfig("bench", ModelConfig("vector"), gossip=GossipConfig(encoding=Encoding.INT4.value))
    learner = VectorLearner(0.0, size=VALUES, rate=0.0)
    learner.vector = numpy.random.default_rng(0 if target else 1).standard_normal(VALUES, numpy.float32)
    at: dict[str, float] = {}
    finished = trio.Event()

    def watch(report: Report) -> None:
        at.setdefault(report.kind, time.monotonic())
        if report.kind == "swap-finished":
            finished.set()

    async def measured() -> None:
        if target is None:
            await trio.sleep_forever()
        begun = time.monotonic()
        with trio.fail_after(SWAP_S):
            await finished.wait()
        say(
            {
                "linked_s": at["swap-begun"] - begun,
                "seconds": at["swap-finished"] - at["swap-begun"],
                "sent_bytes": peer.driver.bytes_sent,
            }
        )

    peer = BenchPeer(network, learner, steps_max=1, on_report=watch, listen=f"/ip4/{address}/tcp/0")
    if target is None:
        peer.state.turns.pacing.spend()
    await peer.run(target, measured)


def main(words: list[str]) -> None:
    if words[:1] == ["peer"]:
        trio.run(_peer, words[1], words[2] if len(words) > 2 else None)
    elif why := refusal():
        sys.exit(f"this bench needs namespaces: {why}")
    else:
        for shape in [SHAPES[int(word)] for word in words] or SHAPES:
            say(measure(shape))


if __name__ == "__main__":
    main(sys.argv[1:])
