"""Swap throughput between two processes, against a bare libp2p stream that moves the same bytes.

The bare run sends the same payload both ways at once over one stream pair, 64 KiB a write, and does
nothing else with it: the limit of the transport on this machine. A swap also hashes, checks, mixes and publishes.
`python -m tests.bench.swap` prints one JSON line; aim: ratio 0.8 or better.
"""

import random
import sys
import time

import numpy
import trio

from p2pfed.config import ModelConfig, NetworkConfig
from p2pfed.core.events import FoundBy, PeerFound, Started
from p2pfed.core.membership import MembershipSettings
from p2pfed.core.messages import PROTOCOL_VERSION, Hello, Role
from p2pfed.core.peer import PeerSettings, PeerState
from p2pfed.net.address import parse_bootstrap
from p2pfed.net.driver import Driver
from p2pfed.net.identity import new_identity
from p2pfed.net.libp2p import Libp2pTransport
from p2pfed.ports import Link
from tests.bench.children import end, line, say, start
from tests.fakes import VectorLearner

VALUES = 6_815_744
"""float32 values of LoRA r 16 on q and v of a 7B Mistral: 27.3 MB."""
SWAPS = 6
WRITE_BYTES = 64 * 1024
BARE_PROTOCOL = "/p2pfed-bench/bare/1"
NETWORK = NetworkConfig("bench", ModelConfig("vector"))


def measure() -> dict[str, float]:
    bare_s = _pair("bare")
    swap_s = _pair("swap")
    payload = VALUES * 4 * 2
    return {
        "payload_bytes_both_ways": payload,
        "bare_stream_mb_per_s": payload / 1e6 / bare_s,
        "swap_mb_per_s": payload / 1e6 / swap_s,
        "ratio_swap_to_bare": bare_s / swap_s,
    }


def _pair(kind: str) -> float:
    """Seconds of one exchange, median over SWAPS, as the dialling side sees it."""
    listener = start("tests.bench.swap", kind)
    dialler = None
    try:
        dialler = start("tests.bench.swap", kind, line(listener))
        line(dialler)
        seconds = sorted(line(dialler))
        return float(seconds[len(seconds) // 2])
    finally:
        end(listener, *([dialler] if dialler else []))


async def _bare(transport: Libp2pTransport, target: str | None) -> None:
    chunk = random.Random(0).randbytes(WRITE_BYTES)
    count = VALUES * 4 // WRITE_BYTES

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


async def _swap(transport: Libp2pTransport, target: str | None) -> None:
    learner = VectorLearner(0.0, size=VALUES, rate=0.0)
    learner.values = numpy.random.default_rng(0 if target else 1).standard_normal(VALUES, numpy.float32)
    own = random.Random(transport.peer)
    hello = Hello(
        PROTOCOL_VERSION, NETWORK.network_id, NETWORK.fields(), (), Role.NODE, own.getrandbits(53), "", (), 0.0
    )
    interval_s = 0.05 if target else 3600.0  # one side initiates
    state = PeerState(hello, transport.peer, PeerSettings(1, 1, interval_s, MembershipSettings(1, 4)), own)
    begun: list[float] = []
    seconds: list[float] = []

    def watch(kind: str) -> None:
        if kind == "swap-finished" and begun:
            seconds.append(time.perf_counter() - begun.pop())

    driver = Driver(
        transport,
        NETWORK.network_id,
        on_report=lambda report: watch(report.kind),
        on_remember=lambda _: None,
        wall_clock=time.time,
    )
    driver.attach(learner, None, 3600.0)
    begin = state.exchange.begin

    def timed_begin(*arguments: object) -> object:
        begun.append(time.perf_counter())
        return begin(*arguments)  # type: ignore[arg-type]

    state.exchange.begin = timed_begin  # type: ignore[method-assign, assignment]
    async with transport.running(), trio.open_nursery() as nursery:
        say(f"{transport.addresses()[0]}/p2p/{transport.peer}")
        found = [PeerFound(*_known(target), FoundBy.BOOTSTRAP)] if target else []
        nursery.start_soon(driver.run, state, hello, [*found, Started()])
        if target is None:
            await trio.sleep_forever()
        while len(seconds) < SWAPS:  # noqa: ASYNC110  # the bench polls, the node does not
            await trio.sleep(0.05)
        say(seconds[:SWAPS])
        await trio.sleep_forever()


def _known(target: str) -> tuple[str, tuple[str, ...]]:
    peer, address = parse_bootstrap(target)
    return peer, (address,)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        say(measure())
    else:
        transport = Libp2pTransport(new_identity(), ("/ip4/127.0.0.1/tcp/0",))
        trio.run({"bare": _bare, "swap": _swap}[sys.argv[1]], transport, sys.argv[2] if len(sys.argv) > 2 else None)
