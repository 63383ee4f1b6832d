"""One averaging of one system on links that stand: seconds and bytes until every peer is within 1 % of the mean.

The clock starts when all processes are up, linked and told to go, and stops with the mix or step after which the last
one's |x_i - mean| is at most 0.01 |x_i(0) - mean|, all at the same time. Bytes are those that the peers'
interfaces sent from go until then.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from p2pfed.net.identity import load_or_create_identity
from tests.bench.averaging_crew import Crew
from tests.bench.averaging_values import write_mean
from tests.bench.links import Links

WITHIN = 0.01
RUN_S = 900.0
"""One run, its start included: 20 M float32 values by random pairs on the slow links take 10 minutes."""
SETTLE_S = 1.0
"""After everybody is linked, before the clock starts: greetings are over."""
SAMPLED = 0.05
"""Distances are of a sample of the places while the clock runs; over all of them they may differ by this share."""
END_S = 10.0
"""For what everybody says after the clock has stopped."""
STEPS_MAX = 6
"""hivemind's steps in one run: what has not come close by then will not (8-bit codecs stay at their own error)."""
PORT = 4001


@dataclass(frozen=True, slots=True)
class Task:
    """What both systems do."""

    peers: int
    values: int
    precision: str
    """float32, float16, int8 or int4."""


@dataclass(frozen=True, slots=True)
class Matchmaking:
    """hivemind's settings of the same names; `beforehand`: the group is found before the clock starts."""

    min_matchmaking_s: float
    request_timeout_s: float
    beforehand: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    seconds: float
    sent_bytes: float
    """Mean over the peers."""
    sent_bytes_max: int
    processor_s: float
    """Mean over the peers, all their processes and threads."""
    steps: int
    """Of the peer that made the most: hivemind's steps, p2pfed's mixes."""
    distance: float
    """Of the peer that ended furthest from the mean, over all values; p2pfed goes on until it is told to stop."""


class Far(RuntimeError):
    """It does not come within 1 %."""


def run_p2pfed(
    task: Task, links: Links, schedule: bool, python: str, limit_s: float = RUN_S, trace: str = ""
) -> Outcome:
    """`schedule`: all peers are listed in the network's file; else partners are drawn at random."""
    with tempfile.TemporaryDirectory() as folder, Crew(links, folder) as crew:
        mean = _mean(folder, task)
        homes = [Path(folder) / f"home{peer}" for peer in range(task.peers)]
        for home in homes:
            home.mkdir()
        ids = [load_or_create_identity(home / "identity.key").peer_id for home in homes]
        gossip = {"encoding": task.precision} | ({"members": sorted(ids)} if schedule else {})
        listen = [f"/ip4/{links.address(peer)}/tcp/{PORT}" for peer in range(task.peers)]
        for peer in range(task.peers):
            settings = {
                "peer": peer,
                "values": task.values,
                "mean": mean,
                "home": str(homes[peer]),
                "listen": listen[peer],
                "others": [f"{listen[each]}/p2p/{ids[each]}" for each in range(task.peers) if each != peer],
                "gossip": gossip,
                "trace": f"{trace}.{peer}" if trace else None,
            }
            crew.start(peer, python, "tests.bench.averaging_p2pfed", settings)
        until = time.monotonic() + limit_s
        crew.hear_all(until, "ready")
        return _timed(crew, links, until, lambda: _gossip(crew, task.peers, until))


def run_hivemind(
    task: Task, links: Links, matchmaking: Matchmaking, python: str, compression: str, limit_s: float = RUN_S
) -> Outcome:
    with tempfile.TemporaryDirectory() as folder, Crew(links, folder) as crew:
        settings = {
            "peers": task.peers,
            "values": task.values,
            "mean": _mean(folder, task),
            "compression": compression,
            "matchmaking_s": matchmaking.min_matchmaking_s,
            "request_s": matchmaking.request_timeout_s,
            "beforehand": matchmaking.beforehand,
            "within": WITHIN,
        }
        until = time.monotonic() + limit_s
        initial: list[str] = []
        for peer in range(task.peers):
            own = {"peer": peer, "address": links.address(peer), "initial_peers": initial}
            crew.start(peer, python, "tests.bench.averaging_hivemind", settings | own)
            if not initial:
                _, initial = crew.hear(until)
        crew.hear_all(until, "up")
        crew.tell("prepare")
        crew.hear_all(until, "ready")
        return _timed(crew, links, until, lambda: _step_by_step(crew, task.peers, until))


def _timed(crew: Crew, links: Links, until: float, average: Callable[[], tuple[float, int]]) -> Outcome:
    """`average` gives the moment when all were within, and the steps that took."""
    time.sleep(SETTLE_S)
    peers = range(links.peers)
    sent_before = [links.sent_bytes(peer) for peer in peers]
    processor_before_s = sum(links.processor_s(peer) for peer in peers)
    begun = crew.tell("go")
    at, steps = average()
    sent = [links.sent_bytes(peer) - sent_before[peer] for peer in peers]
    processor_s = (sum(links.processor_s(peer) for peer in peers) - processor_before_s) / links.peers
    crew.tell("stop")
    exact = crew.hear_all(until + END_S, "exact")
    distance = max(said["exact"] for said in exact.values())
    if distance > WITHIN * (1.0 + SAMPLED):
        raise Far(f"over all values one is at {distance:.4f}")
    return Outcome(at - begun, sum(sent) / len(sent), max(sent), processor_s, steps, distance)


def _gossip(crew: Crew, peers: int, until: float) -> tuple[float, int]:
    distances = [1.0] * peers
    mixes = [0] * peers
    while True:
        peer, said = crew.hear(until, f"mixes; distances are {[round(each, 4) for each in distances]}")
        distances[peer] = said["distance"]
        mixes[peer] += 1
        if max(distances) <= WITHIN:
            return said["at"], max(mixes)


def _step_by_step(crew: Crew, peers: int, until: float) -> tuple[float, int]:
    """Who is within waits, so that nothing is sent that is not needed, unless another is not."""
    within: dict[int, float] = {}
    steps = [0] * peers
    while len(within) < peers:
        peer, said = crew.hear(until, f"steps; {sorted(within)} are within")
        steps[peer] += 1
        if said["distance"] <= WITHIN:
            within[peer] = said["at"]
            continue
        if steps[peer] >= STEPS_MAX:
            raise Far(f"after {STEPS_MAX} steps one is at {said['distance']:.4f}, its group was of {said['group']}")
        crew.tell("go", within)
        within.clear()
    return max(within.values()), max(steps)


def _mean(folder: str, task: Task) -> str:
    path = Path(folder) / "mean.npy"
    write_mean(path, task.peers, task.values)
    return str(path)
