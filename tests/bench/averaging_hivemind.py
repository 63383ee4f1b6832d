"""One hivemind peer of the averaging bench. Runs in hivemind's own environment; of p2pfed it imports nothing.

Settings come as JSON on the command line. Reads "prepare", then "go" (one averaging step each) until "stop"; prints
one JSON line after each. Preparing is a whole step, so that connections stand; the start values are then taken anew.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import hivemind
import torch
from hivemind import compression
from hivemind.averaging import DecentralizedAverager
from hivemind.averaging.control import AveragingStage, StepControl
from hivemind.utils import get_dht_time

from tests.bench.averaging_values import Yardstick, start_values
from tests.bench.children import say

STEP_S = 300.0
"""A step that is not done by then has failed."""
GROUP_POLL_S = 0.02
PORT = 4001


def main(settings: dict[str, Any]) -> None:
    start = start_values(settings["peer"], settings["values"])
    yardstick = Yardstick(Path(settings["mean"]), start)
    dht = hivemind.DHT(
        start=True,
        host_maddrs=[f"/ip4/{settings['address']}/tcp/{PORT}"],
        initial_peers=settings["initial_peers"],
        use_relay=False,
        auto_nat=False,
        nat_port_map=False,
    )
    if not settings["initial_peers"]:
        say([str(address) for address in dht.get_visible_maddrs()])
    averager = DecentralizedAverager(
        [torch.from_numpy(start.copy())],
        dht,
        start=True,
        prefix="bench",
        target_group_size=settings["peers"],
        min_matchmaking_time=settings["matchmaking_s"],
        request_timeout=settings["request_s"],
        compression=getattr(compression, settings["compression"])(),
    )
    say({"up": True})
    sys.stdin.readline()
    averager.step(timeout=STEP_S)
    with averager.get_tensors() as tensors:
        tensors[0].copy_(torch.from_numpy(start))
    control = _group(averager, settings["matchmaking_s"]) if settings["beforehand"] else None
    say({"ready": True})
    while sys.stdin.readline().strip() == "go":
        if control is not None:
            control.allow_allreduce()
            group = control.result(STEP_S)
        else:
            group = averager.step(timeout=STEP_S)
        at = time.monotonic()
        with averager.get_tensors() as tensors:
            say({"at": at, "group": len(group), "distance": yardstick.quick(tensors[0].numpy())})
    with averager.get_tensors() as tensors:
        say({"exact": yardstick.exact(tensors[0].numpy())})
    sys.stdin.readline()


def _group(averager: DecentralizedAverager, matchmaking_s: float) -> StepControl:
    """Found, and waiting for the word: what hivemind's own optimizer does while it still computes."""
    scheduled = get_dht_time() + matchmaking_s
    control = averager.step(scheduled_time=scheduled, timeout=STEP_S, require_trigger=True, wait=False)
    while control.stage is not AveragingStage.AWAITING_TRIGGER:
        time.sleep(GROUP_POLL_S)
    return control


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
