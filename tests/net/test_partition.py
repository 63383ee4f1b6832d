"""Twelve real nodes on one LAN that is cut in two for a minute: both halves say so, meet again, and agree as before."""

import time
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from tests.bench.links import refusal
from tests.net.lan import Child, Lan

HOSTS = 12
HALF = range(HOSTS // 2, HOSTS)
SETTLE_S = 40.0
"""Until links and the consensus distance are as they stay."""
CUT_S = 60.0
HEAL_S = 30.0
AGREE_S = 40.0
RATE, STEP_S = 0.2, 0.5

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif((why := refusal()) is not None, reason=why or ""),
]


class Nodes:
    """What all of them have said."""

    def __init__(self, children: list[Child]) -> None:
        self.children = children
        self.peers = [str(child.ready()["peer"]) for child in children]

    def listen(self, seconds: float) -> None:
        """Their pipes hold little: all are read all the time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for child in self.children:
                child.read_for(0.05)

    def said(self, host: int, kind: str, since: float, until: float = float("inf")) -> list[dict[str, Any]]:
        lines = self.children[host].lines
        found = [line for line in lines if line["event"] == "log" and line["kind"] == kind]
        return [line for line in found if since <= line["at"] < until]

    def distance(self, since: float, until: float) -> float:
        """Mean of two neighbours' adapters, over all mixes in that time."""
        return mean(
            line["fields"]["distance"] for host in range(HOSTS) for line in self.said(host, "mixed", since, until)
        )


def side(host: int) -> bool:
    return host in HALF


def test_halves_of_a_network_meet_again(tmp_path: Path) -> None:
    with Lan("cut", HOSTS) as lan, ExitStack() as stack:
        lan.bridge("other")
        for host in range(HOSTS):
            lan.up(host, f"10.77.0.{host + 1}/24")
        # Each is drawn to a place of its own, so that there is a consensus distance to return to.
        started = [lan.child(host, tmp_path / f"n{host}", learner=(float(host), RATE, STEP_S)) for host in range(HOSTS)]
        nodes = Nodes([stack.enter_context(child) for child in started])
        nodes.listen(SETTLE_S)
        cut_at = time.time()
        lan.move(HALF, "other")
        nodes.listen(CUT_S)
        healed_at = time.time()
        lan.move(HALF, "bridge")
        nodes.listen(HEAL_S + AGREE_S)
        ended_at = time.time()

        suspecting = [host for host in range(HOSTS) if nodes.said(host, "partition-suspected", cut_at, healed_at + 5.0)]
        assert {side(host) for host in suspecting} == {True, False} and len(suspecting) >= HOSTS // 2
        met = {}
        for host in range(HOSTS):
            theirs = [peer for other, peer in enumerate(nodes.peers) if side(other) != side(host)]
            links = nodes.said(host, "neighbour-linked", healed_at)
            met[host] = min(
                (line["at"] - healed_at for line in links if line["fields"]["peer"] in theirs), default=None
            )
        assert all(after_s is not None and after_s <= HEAL_S for after_s in met.values()), met
        assert any(nodes.said(host, "partition-over", healed_at) for host in suspecting)
        before = nodes.distance(cut_at - SETTLE_S / 2, cut_at)
        after = nodes.distance(ended_at - AGREE_S / 2, ended_at)
        print(f"met after {sorted(met.values())} s, distance {before:.3g} before, {after:.3g} after")
        assert after < 1.25 * before
