"""Does the network stay as cheap and as quick for a node when it grows? `python -m tests.bench.scale [--sizes N ...]`.

For each size the devices of `p2pfed simulate` (realistic steps, about eight neighbours) that learn nothing, in virtual
time, each in a process of its own. One JSON line each: events a second of processor time, what a node sends and
handles in an hour once the start is over, and how fast the spread falls against theory. Then the ratios, and whether
they keep what is promised: bytes and events of a node flat within 10 %, mixing within MIXING_FACTOR of theory,
10,000 nodes for an hour in less than ten minutes of one core. `--out FILE` draws them.

Theory: averaging a random pair of N nodes takes 1/(N-1) off the expected squared spread. Pairs of a sparse graph of
neighbours do worse as the spread that is left gets smoother, the faster the fewer neighbours there are: for eight,
a third of that speed in the limit (1 - 2 sqrt(7)/8), and all of it at first. The figure is taken over the first
MIXING_SWAPS swaps of a node.
"""

import argparse
import gc
import json
import math
import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from p2pfed.sim.device import START_WITHIN_S, devices
from p2pfed.sim.simulation import Simulation
from tests.bench.plot import write_lines

SIZES = (100, 1000, 10_000, 20_000)
MINUTES = 15.0
"""Of virtual time, after a quarter of an hour in which links grow old."""
SETTLE_S = 900.0
SAMPLES_S = 60.0
FLAT = 0.1
MIXING_FACTOR = 3.0
MIXING_SWAPS = 8.0
"""Swaps of each node over which the fall of the spread is measured: int4 leaves a floor below."""
CALIBRATION_LOOPS = 1_000_000
HOUR_NODES = 10_000
HOUR_LIMIT_S = 600.0


def calibration_s() -> float:
    """A plain loop: how fast this core was just then, as a busy machine makes all figures worse."""
    begun = time.process_time()
    table: dict[int, tuple[int, int]] = {}
    total = 0
    for number in range(CALIBRATION_LOOPS):
        table[number & 1023] = (number, total)
        total += number & 7
    return time.process_time() - begun


def measure(size: int, minutes: float, seed: int) -> dict[str, Any]:
    calibrated = calibration_s()
    begun = time.process_time()
    simulation = Simulation(
        devices(size, SETTLE_S + 60.0 * minutes, seed, trains=False, encoding="float32", samples_s=SAMPLES_S)
    )
    gc.disable()
    simulation.advance(SETTLE_S)
    network = simulation.network
    events, sent = network.history.events, network.bytes_sent
    settled = time.process_time()
    simulation.advance(SETTLE_S + 60.0 * minutes)
    ended = time.process_time()
    report = simulation.finish()
    hours = minutes / 60.0
    a_second = (report.events - events) / (ended - settled)
    events_a_node_hour = (report.events - events) / size / hours
    return {
        "nodes": size,
        "virtual_minutes": round(SETTLE_S / 60.0 + minutes, 2),
        "cpu_s": round(ended - begun, 1),
        "events": report.events,
        "events_a_second": round(report.events / (ended - begun)),
        "events_a_second_settled": round(a_second),
        "events_a_node_hour": round(events_a_node_hour, 1),
        "bytes_a_node_hour": round((network.bytes_sent - sent) / size / hours),
        "cpu_s_an_hour": round((settled - begun) + (3600.0 - SETTLE_S) * (ended - settled) / (60.0 * minutes), 1),
        "neighbours": round(report.neighbours_mean, 2),
        "swaps_a_node_hour": round(2.0 * report.swaps / size / (report.duration_s / 3600.0), 1),
        "declined_a_swap": round(sum(node.declined for node in report.nodes) / max(1, report.swaps), 3),
        "mixing_against_theory": mixing(report.spread, size),
        "calibration_s": round((calibrated + calibration_s()) / 2.0, 3),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "history": report.history[:16],
        "problems": list(report.problems),
    }


def mixing(samples: Any, size: int) -> float | None:
    """Speed at which the squared spread fell, over that of random pairs."""
    usable = [each for each in samples if each.at_s > START_WITHIN_S and each.spread > 0.0]
    first = usable[0]
    last = next((each for each in usable if 2.0 * (each.swaps - first.swaps) / size >= MIXING_SWAPS), usable[-1])
    if last.swaps - first.swaps < size:
        return None
    expected = (last.swaps - first.swaps) * math.log1p(-1.0 / (size - 1))
    return round(2.0 * math.log(last.spread / first.spread) / expected, 3)


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    ratios = [
        {
            "nodes": [one["nodes"], other["nodes"]],
            "bytes": round(other["bytes_a_node_hour"] / one["bytes_a_node_hour"], 3),
            "events": round(other["events_a_node_hour"] / one["events_a_node_hour"], 3),
        }
        for one, other in pairwise(rows)
    ]
    for key in ("bytes_a_node_hour", "events_a_node_hour"):
        values = [row[key] for row in rows]
        ratios.append({key: round(max(values) / min(values), 3)})
    worst = max(next(reversed(ratio.values())) for ratio in ratios[-2:])
    mixed = [row["mixing_against_theory"] for row in rows if row["mixing_against_theory"] is not None]
    hour = [row["cpu_s_an_hour"] for row in rows if row["nodes"] == HOUR_NODES]
    return {
        "bench": "scale",
        "ratios": ratios,
        "flat": worst <= 1.0 + FLAT,
        "mixing": all(1.0 / MIXING_FACTOR <= each <= MIXING_FACTOR for each in mixed),
        "hour_of_10000_s": hour[0] if hour else None,
        "hour_in_time": hour[0] < HOUR_LIMIT_S if hour else None,
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """What flat means: each line level."""
    lines = {
        name: [(row["nodes"], row[key]) for row in rows if row[key]]
        for name, key in (
            ("bytes of a node in an hour", "bytes_a_node_hour"),
            ("events of a node in an hour", "events_a_node_hour"),
            ("mixing against random pairs", "mixing_against_theory"),
            ("events a second of one core", "events_a_second"),
        )
    }
    write_lines(path, lines, "nodes", "", log_x=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="measured, after the quarter of an hour before")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="HTML file for the chart")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps({"bench": "scale", **measure(asked.one, asked.minutes, asked.seed)}), flush=True)
        return
    rows = []
    for size in asked.sizes:
        command = [sys.executable, "-m", "tests.bench.scale", "--one", str(size), "--minutes", str(asked.minutes)]
        line = subprocess.run(
            [*command, "--seed", str(asked.seed)], stdout=subprocess.PIPE, check=True, text=True
        ).stdout
        print(line, end="", flush=True)
        rows.append(json.loads(line))
    print(json.dumps(verdict(rows)), flush=True)
    if asked.out:
        plot(rows, asked.out)


if __name__ == "__main__":
    main()
