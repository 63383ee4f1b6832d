"""Which mixing rule is best where nodes differ tenfold in speed and swaps overlap training: loss gap against delay.

Step times are spread evenly over 1 to 10 on a log scale; a swap takes DELAYS of the median node's round. Every rule is
run to the same number of local steps; a rule that waits needs more time for these, so it is shown at equal time too.
`python -m tests.bench.asynchrony` has noisy quadratics with a known optimum (16 nodes, non-IID, 192 values), `--model`
the tiny real model (8 nodes, a domain each). Prints tables and one JSON line; `--out FOLDER` also writes a curve.
"""

import argparse
import math
import random
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import numpy as np

from p2pfed.errors import LearnerError
from tests.bench.asynchrony_learners import Point, Quadratics, RealNodes, swaps_of
from tests.bench.asynchrony_network import Network, Node, Rule
from tests.bench.children import say
from tests.bench.plot import write_lines

ROUND_STEPS = 4
"""H."""
SPEEDS = 10.0
"""Slowest step by quickest."""
DELAYS = (0.0, 0.25, 1.0, 4.0, 16.0)
SEEDS = (0, 1, 2)
NODES = 16
ROUNDS = 80
"""Of the median node; the mean one makes 1.27 times as many steps. The last third is the steady state."""
LOOKS = 90
"""At equal numbers of steps."""

MODEL_DELAYS = (1.0, 4.0)
MODEL_NODES = 8
MODEL_ROUNDS = 16
MODEL_LOOKS = 2
MODEL_RATE = 1e-2

RULES = (
    Rule("serial"),
    Rule("serial, sends fresh", fresh=True),
    Rule("serial, pays first", spends_first=True),
    Rule("serial, changes", changes=True),
    Rule("serial, bag", bag=True),
    Rule("serial, bag, pays first", bag=True, spends_first=True),
    Rule("serial, pays first, changes", spends_first=True, changes=True),
    Rule("serial, clip by round", clip="round"),
    Rule("serial, clip by swap", clip="swap"),
    Rule("overlap 2", flights=2, spends_first=True),
    Rule("overlap 4", flights=4, spends_first=True),
    Rule("overlap 2 at 1/3", flights=2, spends_first=True, weight=1 / 3),
    Rule("overlap 2 at 1/3, changes", flights=2, spends_first=True, weight=1 / 3, changes=True),
    Rule("overlap 4 at 1/5", flights=4, spends_first=True, weight=1 / 5),
    Rule("overlap 2 at 1/3, one link", flights=2, spends_first=True, weight=1 / 3, shared=True),
    Rule("current", current=True),
    Rule("current, by age", current=True, damped=True),
    Rule("damped by age", damped=True),
    Rule("waits", waits=True),
    Rule("alone", flights=0),
    Rule("serial, by step time", by_step_time=True),
    Rule("serial, float64", int4=False),
    Rule("current, float64", current=True, int4=False),
    Rule("waits, float64", waits=True, int4=False),
)
MODEL_RULES = ("serial", "overlap 2", "overlap 2 at 1/3", "current", "waits")


@dataclass(frozen=True, slots=True)
class Cell:
    rule: Rule
    delay: float
    seed: int
    model: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """One cell. `fast` and `slow` are the quickest and slowest quarter of nodes."""

    cell: Cell
    points: tuple[Point, ...]
    full_s: float
    """Virtual time in which nodes that never wait make all the steps."""
    drift: float
    """Norm of the mean of all that mixes moved: 0 where the sum is kept, but for swaps of which one side has mixed."""
    swaps_fast: float
    swaps_slow: float
    """Mixes for each own round."""
    clipped_fast: float
    clipped_slow: float
    """Share of their mixes."""
    declines: float
    """For each swap begun."""
    repeats: float
    """Share of swaps with the same partner as the one before."""

    def steady(self) -> Point:
        """Mean over the last third of the steps; the last point of a real model."""
        return self.points[-1] if self.cell.model else _mean(self.points[2 * len(self.points) // 3 :])

    def in_time(self) -> Point:
        """The same of the time in which nodes that never wait make all steps."""
        if self.cell.model:
            return min(self.points, key=lambda point: abs(point.time_s - self.full_s))
        found = [point for point in self.points if point.time_s <= self.full_s * (1 + 1e-9)] or [self.points[0]]
        late = [point for point in found if point.time_s >= self.full_s * 2 / 3] or found[-1:]
        return _mean(late)

    def reached(self, gap: float) -> Point | None:
        """The first point with a node mean of at most `gap`."""
        return next((point for point in self.points if point.paced <= gap), None)


def step_times(nodes: int, seed: int) -> list[float]:
    times = [float(SPEEDS ** (index / (nodes - 1))) for index in range(nodes)]
    random.Random(seed).shuffle(times)
    return times


def run_cell(cell: Cell) -> Outcome:
    nodes, rounds, looks = (MODEL_NODES, MODEL_ROUNDS, MODEL_LOOKS) if cell.model else (NODES, ROUNDS, LOOKS)
    times = step_times(nodes, cell.seed)
    round_s = ROUND_STEPS * statistics.median(times)
    problem = RealNodes(MODEL_RATE, cell.seed) if cell.model else Quadratics(nodes, cell.seed)
    network = Network(problem.learners, times, cell.rule, cell.delay * round_s, random.Random(cell.seed), ROUND_STEPS)
    total = sum(int(rounds * round_s / each) for each in times)
    points: list[Point] = []
    try:
        marks = [total * look // looks for look in range(1, looks + 1)]
        at_s = rounds * round_s if cell.model and cell.rule.waits else math.inf
        network.run(marks, lambda at: points.append(problem.look(at)), at_s)
    except LearnerError:  # more than the wire form holds: diverged
        lost = Point(network.now, network.steps / nodes, swaps_of(network), *[math.inf] * 5)
        points += [lost] * (looks - len(points))
    order = sorted(network.nodes, key=lambda node: node.step_s)
    fast, slow = order[: nodes // 4], order[-(nodes // 4) :]
    return Outcome(
        cell,
        tuple(points),
        rounds * round_s,
        float(np.linalg.norm(sum(node.pulled for node in network.nodes))) / nodes,
        _swaps_a_round(fast),
        _swaps_a_round(slow),
        _clipped(fast),
        _clipped(slow),
        sum(node.declines for node in network.nodes) / max(1, sum(node.begun for node in network.nodes)),
        sum(node.repeats for node in network.nodes) / max(1, 2 * sum(node.begun for node in network.nodes)),
    )


def _swaps_a_round(nodes: Sequence[Node]) -> float:
    return sum(node.mixes for node in nodes) * ROUND_STEPS / sum(node.steps for node in nodes)


def _clipped(nodes: Sequence[Node]) -> float:
    return sum(node.clipped for node in nodes) / max(1, sum(node.mixes for node in nodes))


def _mean(points: Sequence[Point]) -> Point:
    return Point(*np.mean([list(asdict(point).values()) for point in points], axis=0).tolist())


def summary(outcomes: Sequence[Outcome], rule: str, delay: float, goals: dict[int, float]) -> dict[str, object]:
    """Means over seeds of one rule at one delay. `goals`: by seed the gap whose time is asked for."""
    own = [each for each in outcomes if each.cell.rule.name == rule and each.cell.delay == delay]

    def mean(values: Sequence[float]) -> float:
        return round(statistics.fmean(values), 4)

    steady, in_time = [each.steady() for each in own], [each.in_time() for each in own]
    reached = [each.reached(goals[each.cell.seed]) for each in own] if goals else []
    round_s = [each.full_s / (MODEL_ROUNDS if each.cell.model else ROUNDS) for each in own]
    whole = bool(reached) and all(reached)
    return {
        "rule": rule,
        "delay": delay,
        "nodes": mean([point.paced for point in steady]),
        "nodes_seeds": [round(point.paced, 4) for point in steady],
        "consensus": mean([point.paced_mean for point in steady]),
        "nodes_plain": mean([point.plain for point in steady]),
        "consensus_plain": mean([point.plain_mean for point in steady]),
        "spread": mean([point.spread for point in steady]),
        "nodes_in_time": mean([point.paced for point in in_time]),
        "consensus_in_time": mean([point.paced_mean for point in in_time]),
        "steps_in_time": mean([point.steps for point in in_time]),
        "rounds_to_goal": mean([p.time_s / s for p, s in zip(reached, round_s, strict=True) if p]) if whole else None,
        "steps_to_goal": mean([point.steps for point in reached if point]) if whole else None,
        "swaps_a_node": mean([each.points[-1].swaps for each in own]),
        "steps_a_node": mean([each.points[-1].steps for each in own]),
        "drift": mean([each.drift for each in own]),
        "swaps_a_round_fast": mean([each.swaps_fast for each in own]),
        "swaps_a_round_slow": mean([each.swaps_slow for each in own]),
        "clipped_fast": mean([each.clipped_fast for each in own]),
        "clipped_slow": mean([each.clipped_slow for each in own]),
        "declines": mean([each.declines for each in own]),
        "repeats": mean([each.repeats for each in own]),
    }


def table(rows: Sequence[dict[str, object]], key: str) -> str:
    delays = list(dict.fromkeys(row["delay"] for row in rows))
    lines = [f"| {key} | " + " | ".join(f"D={delay:g}" for delay in delays) + " |", "|---" * (len(delays) + 1) + "|"]
    for rule in dict.fromkeys(row["rule"] for row in rows):
        found = [row[key] for row in rows if row["rule"] == rule]
        lines.append(f"| {rule} | " + " | ".join("-" if each is None else f"{each:.4g}" for each in found) + " |")
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, object]], path: Path) -> None:
    lines: dict[str, list[tuple[float | str, float]]] = {}
    for row in rows:
        lines.setdefault(str(row["rule"]), []).append((f"{row['delay']:g}", cast(float, row["nodes_in_time"])))
    across = "rounds of the median node a swap takes"
    write_lines(path, lines, across, "node mean of the loss gap, equal time")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.asynchrony", description=__doc__)
    parser.add_argument("--model", action="store_true", help="the tiny real model instead of quadratics")
    parser.add_argument("--rules", nargs="*", default=[], metavar="NAME", help="only these")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--workers", type=int, default=2, help="processes, one core each")
    parser.add_argument("--out", type=Path, help="folder for asynchrony.html")
    options = parser.parse_args()
    wanted = options.rules or (MODEL_RULES if options.model else [rule.name for rule in RULES])
    rules = [rule for rule in RULES if rule.name in wanted]
    delays = MODEL_DELAYS if options.model else DELAYS
    cells = [Cell(rule, delay, seed, options.model) for seed in options.seeds for delay in delays for rule in rules]
    outcomes = []
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        for outcome in pool.map(run_cell, cells):
            outcomes.append(outcome)
            cell, last, then = outcome.cell, outcome.steady(), outcome.in_time()
            said = f"{cell.rule.name}, D={cell.delay:g}, seed {cell.seed}: nodes {last.paced:.4f}, consensus "
            said += f"{last.paced_mean:.4f}; in time {then.paced:.4f}, {then.paced_mean:.4f}, {last.swaps:.1f} swaps"
            print(said, file=sys.stderr, flush=True)
    # Twice what the product's rule comes to without any delay.
    first = [each for each in outcomes if each.cell.rule == RULES[0] and each.cell.delay == 0.0]
    goals = {each.cell.seed: 2.0 * each.steady().paced for each in first}
    rows = [summary(outcomes, rule.name, delay, goals) for rule in rules for delay in delays]
    for key in ("nodes", "consensus", "nodes_in_time", "consensus_in_time", "rounds_to_goal", "swaps_a_node"):
        print(table(rows, key), end="\n\n")
    if options.out:
        plot(rows, options.out / "asynchrony.html")
    say({"bench": "asynchrony-model" if options.model else "asynchrony", "seeds": options.seeds, "rows": rows})


if __name__ == "__main__":
    main()
