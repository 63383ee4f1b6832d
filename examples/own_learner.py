"""Your own learner in the network: two nodes fit one line, each from data of half of it. No torch.

A learner is any object with the methods of `api.Learner`. It only trains: p2pfed reads its values, sends them in few
bits, checks what neighbours sent, and moves the values between two steps.

    python examples/own_learner.py
"""

import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy

from p2pfed import api

TRUTH = numpy.array([2.0, -1.0], dtype=numpy.float32)
"""y = 2 x - 1"""


class LineLearner:
    """Least squares by gradient descent; the adapter is slope and offset."""

    def __init__(self, x: numpy.ndarray, learning_rate: float = 0.5) -> None:
        self.x = x.astype(numpy.float32)
        self.y = TRUTH[0] * self.x + TRUTH[1]
        self.learning_rate = learning_rate
        self.line = self.start()["line"]
        self.steps = 0

    def progress(self) -> api.Progress:
        return api.Progress(self.steps, self.steps * len(self.x))

    def fingerprint(self) -> Mapping[str, str]:
        return {"learner": "line/1"}  # peers with another one are refused

    def step(self) -> api.StepReport:
        error = self.line[0] * self.x + self.line[1] - self.y
        self.line -= self.learning_rate * numpy.array([(error * self.x).mean(), error.mean()], dtype=numpy.float32)
        self.steps += 1
        return api.StepReport(float((error**2).mean()), examples=len(self.x), tokens=0)

    def start(self) -> Mapping[str, numpy.ndarray]:
        return {"line": numpy.zeros(2, dtype=numpy.float32)}  # equal on every node

    def values(self) -> Mapping[str, numpy.ndarray]:
        return {"line": self.line.copy()}

    def move(self, by: Mapping[str, numpy.ndarray]) -> None:
        self.line += by["line"]

    def save(self) -> bytes:
        return self.steps.to_bytes(8, "big") + self.line.tobytes()

    def load(self, checkpoint: bytes) -> None:
        self.steps = int.from_bytes(checkpoint[:8], "big")
        self.line = numpy.frombuffer(checkpoint[8:], dtype=numpy.float32).copy()


def config(folder: Path, name: str, *bootstrap: str) -> api.NodeConfig:
    """Two nodes in one process: loopback is enough for them, and 1,000 steps."""
    return api.NodeConfig(
        name=name,
        home=str(folder / name),
        listen=("/ip4/127.0.0.1/tcp/0",),
        bootstrap=bootstrap,
        mdns=False,
        steps_max=1000,
    )


def main() -> None:
    # Four bits are for adapters of millions of values, where rounding averages out: these two travel as they are. And
    # there is no momentum here for a mix to steer.
    network = api.create_network(
        "lines", "./no-language-model", steps_between_swaps=10, encoding="float32", momentum="local"
    )
    low = LineLearner(numpy.linspace(-1.0, 0.0, 20))
    high = LineLearner(numpy.linspace(0.0, 1.0, 20))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with (
            api.Node(network, config(folder, "low"), low) as first,
            api.Node(network, config(folder, "high", *first.addresses()), high) as second,
        ):
            poll = threading.Event()
            while not all(
                node.status()["training_over"] and node.status()["swaps"]["finished"] >= 5 for node in (first, second)
            ):
                poll.wait(0.2)
            swaps = first.status()["swaps"]["finished"]
    print(f"after {swaps} swaps: {low.line.round(2)} and {high.line.round(2)}, the truth is {TRUTH}")


if __name__ == "__main__":
    main()
