"""One p2pfed node of the averaging bench: `api.Node` around a vector that does not train.

Settings come as JSON on the command line. It has made its only local step before it starts, and links to all others,
but publishes no version until "go", so that nothing of a swap is done before. From then on it swaps; each mix is told
by one JSON line, and one more follows "stop".
"""

import json
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy

from p2pfed import api
from p2pfed.config import GossipConfig, ModelConfig
from tests.bench.averaging_values import Yardstick, start_values
from tests.bench.children import say
from tests.fakes import VectorLearner

SWAP_INTERVAL_S = 0.05
"""As good as at once: a node that has nothing to train swaps by timer, and a busy one when it is free."""
LINKED_POLL_S = 0.05
STEPS = 1


class WatchedLearner(VectorLearner):
    """Holds its values back until the start signal, but for the mixer's first look at them, when it is made.

    After each mix it tells how far from the mean it is.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(0.0, size=settings["values"], rate=0.0)
        self.vector = start_values(settings["peer"], settings["values"])
        self.yardstick = Yardstick(Path(settings["mean"]), self.vector)
        self.steps = STEPS
        self.go = threading.Event()
        self.looked_at = False

    def values(self) -> Mapping[str, numpy.ndarray]:
        if self.looked_at:
            self.go.wait()
        self.looked_at = True
        return super().values()

    def move(self, by: Mapping[str, numpy.ndarray]) -> None:
        super().move(by)
        say({"at": time.monotonic(), "distance": self.yardstick.quick(self.vector)})


def network_of(settings: Mapping[str, Any]) -> api.NetworkConfig:
    gossip = GossipConfig(steps_between_swaps=1, swap_interval_s=SWAP_INTERVAL_S, **settings["gossip"])
    return api.NetworkConfig("bench", ModelConfig("vector"), gossip=gossip)


def main(settings: dict[str, Any]) -> None:
    learner = WatchedLearner(settings)
    config = api.NodeConfig(
        home=settings["home"],
        listen=(settings["listen"],),
        bootstrap=tuple(settings["others"]),
        mdns=False,
        steps_max=STEPS,
        checkpoint_interval_s=3600.0,
        neighbours_max=len(settings["others"]),
    )
    events = _trace(settings.get("trace"))
    with api.Node(network_of(settings), config, learner, events) as node:
        while sum(bool(row["linked"]) for row in node.peers()) < len(settings["others"]):
            time.sleep(LINKED_POLL_S)
        say({"ready": len(settings["others"])})
        sys.stdin.readline()
        swaps = node.status()["swaps"]
        if swaps["begun"] or swaps["finished"]:
            raise RuntimeError(f"swapped before the start signal: {swaps}")
        learner.go.set()
        sys.stdin.readline()
        say({"exact": learner.yardstick.exact(learner.vector), "swaps": node.status()["swaps"]})
        sys.stdin.readline()


def _trace(path: str | None) -> api.Log:
    """To a file, one JSON line an event, where one is named."""
    if path is None:
        return api.log_quietly
    file = Path(path).open("w", buffering=1)  # noqa: SIM115  as long as the process

    def log(kind: str, fields: Mapping[str, object]) -> None:
        file.write(json.dumps([time.monotonic(), kind, dict(fields)], default=str) + "\n")

    return log


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
