"""Training tokens/s of a node in a swapping network, against a plain peft loop with the same settings.

Two processes at a time, one thread each: first two plain loops, then two nodes that swap with each
other, turn about, so that both meet the same machine. The base is SmolLM2-135M, or glassllm's 0.85 M with `--small`.
`python -m tests.bench.training` prints one JSON line; aim: ratio 0.97 or better.
"""

import statistics
import sys
import time
from pathlib import Path

import platformdirs
import trio

import p2pfed.demo
from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.ports import StepReport
from tests.bench.children import end, line, say, start
from tests.bench.peers import BenchPeer

SECONDS = 25.0
TURNS = 3
WARM_STEPS = 3


def measure(small: bool = False) -> dict[str, float]:
    flags = ["--small"] if small else []
    plain, nodes = [], []
    for _ in range(TURNS):
        plain.append(_pair("plain", flags))
        nodes.append(_pair("node", flags))
    ratios = [node / loop for node, loop in zip(nodes, plain, strict=True)]
    return {
        "plain_tokens_per_s": statistics.median(plain),
        "node_tokens_per_s": statistics.median(nodes),
        "ratio_node_to_plain": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def _pair(kind: str, flags: list[str]) -> float:
    """Tokens/s of both processes together."""
    first = start("tests.bench.training", kind, *flags)
    second = None
    try:
        address = line(first)
        second = start("tests.bench.training", kind, *flags, *([address] if kind == "node" else []))
        line(second)
        for child in (first, second):
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        return sum(float(line(child)) for child in (first, second))
    finally:
        end(first, *([second] if second else []))


class Counting:
    """A learner that counts the tokens of its steps; everything else is the real one's."""

    def __init__(self, learner: object) -> None:
        self._learner = learner
        self.tokens = 0

    def step(self) -> StepReport:
        report: StepReport = self._learner.step()  # type: ignore[attr-defined]
        self.tokens += report.tokens
        return report

    def __getattr__(self, name: str) -> object:
        return getattr(self._learner, name)


def _learner(small: bool) -> tuple[NetworkConfig, Counting]:
    from p2pfed.presets import PRESETS
    from p2pfed.train.base_model import use_threads
    from p2pfed.train.data import read_rows
    from p2pfed.train.learner import open_learner

    use_threads(1)
    network = PRESETS["glassllm-en" if small else "smollm2-135m"]
    data = read_rows(str(Path(p2pfed.demo.__file__).parent / "data" / "lift.train.jsonl"))
    learner, _ = open_learner(network, NodeConfig(), data, cache=platformdirs.user_cache_path("p2pfed"))
    return network, Counting(learner)


def _plain(learner: Counting) -> None:
    for _ in range(WARM_STEPS):
        learner.step()
    say("ready")
    sys.stdin.readline()
    before, begun = learner.tokens, time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        learner.step()
    say((learner.tokens - before) / (time.perf_counter() - begun))


async def _node(network: NetworkConfig, learner: Counting, target: str | None) -> None:
    peer = BenchPeer(network, learner)  # type: ignore[arg-type]

    async def measured() -> None:
        await trio.to_thread.run_sync(sys.stdin.readline)
        while peer.state.statistics.finished == 0:  # noqa: ASYNC110  # the bench polls, the node does not
            await trio.sleep(0.05)
        before, begun = learner.tokens, time.perf_counter()
        await trio.sleep(SECONDS)
        say((learner.tokens - before) / (time.perf_counter() - begun))
        await trio.sleep_forever()

    await peer.run(target, measured)


if __name__ == "__main__":
    small = "--small" in sys.argv
    words = [word for word in sys.argv[1:] if word != "--small"]
    if not words:
        say(measure(small))
    elif words[0] == "plain":
        _plain(_learner(small)[1])
    else:
        trio.run(_node, *_learner(small), words[1] if len(words) > 1 else None)
