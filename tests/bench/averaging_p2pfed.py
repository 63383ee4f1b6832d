"""One p2pfed node of the averaging bench: `api.Node` around a vector that does not train.

Settings come as JSON on the command line. Waits until it is linked to all others, then for "go", which ends its
one local step: from then on it swaps. Prints one JSON line after each mix, and one more after "stop".
"""

import json
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2pfed import api
from p2pfed.config import GossipConfig, ModelConfig
from p2pfed.ports import MixReport, StepReport
from tests.bench.averaging_values import Yardstick, start_values
from tests.bench.children import say
from tests.fakes import VectorLearner

SWAP_INTERVAL_S = 0.05
"""As good as at once: a node that has nothing to train swaps by timer, and a busy one when it is free."""
LINKED_POLL_S = 0.05


class WatchedLearner(VectorLearner):
    """Its first step waits for the start signal; after each mix it tells how far from the mean it is."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(0.0, size=settings["values"], rate=0.0)
        self.values = start_values(settings["peer"], settings["values"])
        self.yardstick = Yardstick(Path(settings["mean"]), self.values)
        self.go = threading.Event()

    def step(self) -> StepReport:
        self.go.wait()
        self.steps += 1
        return StepReport(0.0, 1, 1)

    def mix(self, payload: bytes, weight: float) -> MixReport:
        report = super().mix(payload, weight)
        say({"at": time.monotonic(), "distance": self.yardstick.quick(self.values)})
        return report


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
        steps_max=1,
        checkpoint_interval_s=3600.0,
        neighbours_max=len(settings["others"]),
    )
    events = _trace(settings.get("trace"))
    with api.Node(network_of(settings), config, learner, events) as node:
        while sum(bool(row["linked"]) for row in node.peers()) < len(settings["others"]):
            time.sleep(LINKED_POLL_S)
        say({"ready": len(settings["others"])})
        sys.stdin.readline()
        learner.go.set()
        sys.stdin.readline()
        say({"exact": learner.yardstick.exact(learner.values), "swaps": node.status()["swaps"]})
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
