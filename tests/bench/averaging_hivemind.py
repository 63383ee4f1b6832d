"""One hivemind peer of the averaging bench. Runs in hivemind's own environment; of p2pfed it imports nothing.

Settings come as JSON on the command line. "prepare": one step, so that connections stand, then the start values anew.
"go": steps, each told by one JSON line, at once the next while it is further than `within` from the mean (a peer
that a group was formed without needs the others), then again only when told; "stop" ends it.
"""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import hivemind
import torch
from hivemind import compression
from hivemind.averaging import DecentralizedAverager
from hivemind.averaging.control import AveragingStage, StepControl
from hivemind.averaging.partition import AllreduceException
from hivemind.utils import get_dht_time

from tests.bench.averaging_values import Yardstick, start_values
from tests.bench.children import say

STEP_S = 300.0
"""A step that is not done by then has failed."""
PREPARE_S = 30.0
"""The same for the one that is not timed."""
CHUNK_S = 15.0
"""A groupmate silent for so long is left out of the all-reduce, as hivemind's own optimizer has it by default.
Without it an all-reduce on slow links was seen to stand still for ever."""
GROUP_S = 60.0
"""A peer that the others' group left out waits alone: that run has failed."""
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
        next_chunk_timeout=CHUNK_S,
        compression=getattr(compression, settings["compression"])(),
    )
    say({"up": True})
    sys.stdin.readline()
    with suppress(AllreduceException):  # left out of the others' group: it meets them at the next
        averager.step(timeout=PREPARE_S)
    with averager.get_tensors() as tensors:
        tensors[0].copy_(torch.from_numpy(start))
    control = _group(averager, settings["matchmaking_s"]) if settings["beforehand"] else None
    say({"ready": True})
    distance = 0.0
    while distance > settings["within"] or sys.stdin.readline().strip() == "go":
        if control is not None:
            control.allow_allreduce()
            group = control.result(STEP_S)
        else:
            group = averager.step(timeout=STEP_S)
        at = time.monotonic()
        control = None
        with averager.get_tensors() as tensors:
            distance = yardstick.quick(tensors[0].numpy())
        say({"at": at, "group": len(group), "distance": distance})
    with averager.get_tensors() as tensors:
        say({"exact": yardstick.exact(tensors[0].numpy())})
    sys.stdin.readline()


def _group(averager: DecentralizedAverager, matchmaking_s: float) -> StepControl:
    """Found, and waiting for the word: what hivemind's own optimizer does while it still computes."""
    scheduled = get_dht_time() + matchmaking_s
    control = averager.step(scheduled_time=scheduled, timeout=STEP_S, require_trigger=True, wait=False)
    until = time.monotonic() + GROUP_S
    while control.stage is not AveragingStage.AWAITING_TRIGGER:
        if time.monotonic() > until:
            raise RuntimeError(f"no group within {GROUP_S:.0f} s, at stage {control.stage.name}")
        time.sleep(GROUP_POLL_S)
    return control


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
