"""One averaging step of n peers, p2pfed beside hivemind 1.1.12: the same machine, the same links, the same values.

`python -m tests.bench.averaging` prints one JSON line. Every peer is a process with random values of its own, in a
network namespace of its own; `averaging_run` says what is timed. At equal precision of what travels: float32 against
NoCompression, float16 against Float16Compression, int8 against BlockwiseQuantization, and int4, which hivemind has not.
hivemind's matchmaking is tried with several settings on the smallest case of each links; the best is used, and
beside it stands its all-reduce alone, with the group found before the clock starts.
Aims: level on unshaped links, at least twice as fast on the shaped ones.
`--quick`: 4 peers, 2.4 M values, unshaped, float32, one run each.
"""

import argparse
import itertools
import signal
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.bench.averaging_environment import REQUIREMENTS, hivemind_python
from tests.bench.averaging_run import Far, Matchmaking, Outcome, Task, run_hivemind, run_p2pfed
from tests.bench.children import say
from tests.bench.links import Links, Shape, measured, refusal

PEERS = (4, 8)
VALUES = (2_400_000, 20_000_000)
WIRES: dict[str, Shape | None] = {"unshaped": None, "shaped": Shape(20.0, 40.0)}
COMPRESSIONS = {
    "float32": "NoCompression",
    "float16": "Float16Compression",
    "int8": "BlockwiseQuantization",
}
"""Uniform8BitQuantization was tried: it stays at 1.2 % of the first distance, whatever the number of steps."""
PRECISIONS = (*COMPRESSIONS, "int4")
MATCHMAKING = (Matchmaking(5.0, 3.0), Matchmaking(2.0, 1.0), Matchmaking(1.0, 0.5))
"""The first is hivemind's default."""
RUNS = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for."""

    peers: tuple[int, ...]
    values: tuple[int, ...]
    wires: tuple[str, ...]
    precisions: tuple[str, ...]
    runs: int
    schedule: bool
    hivemind: bool
    trace: str


def measure(plan: Plan) -> dict[str, Any]:
    if reason := refusal():
        return {"skipped": reason}
    python, why_alone = hivemind_python() if plan.hivemind else (None, "not asked for")
    cases: list[dict[str, Any]] = []
    tuning: list[dict[str, Any]] = []
    for wire, peers in itertools.product(plan.wires, plan.peers):
        best = MATCHMAKING[0]
        if python is not None:
            tried = _tuned(plan, wire, peers, str(python))
            tuning += tried
            done = [each for each in tried if "seconds" in each]
            best = MATCHMAKING[tried.index(min(done, key=lambda each: float(each["seconds"])))] if done else best
        for values, precision in itertools.product(plan.values, plan.precisions):
            task = Task(peers, values, precision)
            cases.append({"wire": wire, **asdict(task), **_case(plan, wire, task, python, best)})
            print(cases[-1], file=sys.stderr, flush=True)
    return {
        "hivemind": list(REQUIREMENTS) if python is not None else why_alone,
        "congestion_control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "links": {wire: _links(wire) for wire in plan.wires},
        "matchmaking": tuning,
        "cases": cases,
    }


def _case(plan: Plan, wire: str, task: Task, python: Path | None, best: Matchmaking) -> dict[str, Any]:
    def ours(links: Links) -> Outcome:
        return run_p2pfed(task, links, plan.schedule, sys.executable, plan.trace)

    found: dict[str, Any] = {"p2pfed": _repeated(plan.runs, wire, task.peers, ours)}
    codec = COMPRESSIONS.get(task.precision)
    if python is None or codec is None:
        return found
    for name, matchmaking in {
        "hivemind": best,
        "hivemind_grouped": Matchmaking(best.min_matchmaking_s, best.request_timeout_s, True),
    }.items():

        def theirs(links: Links, matchmaking: Matchmaking = matchmaking) -> Outcome:
            return run_hivemind(task, links, matchmaking, str(python), codec)

        found[name] = _repeated(plan.runs, wire, task.peers, theirs)
        if "seconds" in found[name] and "seconds" in found["p2pfed"]:
            found[f"ratio_seconds_{name}_to_p2pfed"] = found[name]["seconds"] / found["p2pfed"]["seconds"]
            found[f"ratio_bytes_{name}_to_p2pfed"] = found[name]["sent_bytes"] / found["p2pfed"]["sent_bytes"]
    return found


def _tuned(plan: Plan, wire: str, peers: int, python: str) -> list[dict[str, Any]]:
    """Each of MATCHMAKING on the smallest case."""
    task = Task(peers, min(plan.values), "float32")
    found = []
    for matchmaking in MATCHMAKING:

        def theirs(links: Links, matchmaking: Matchmaking = matchmaking) -> Outcome:
            return run_hivemind(task, links, matchmaking, python, COMPRESSIONS["float32"])

        result = _repeated(plan.runs, wire, peers, theirs)
        found.append({"wire": wire, "peers": peers, **asdict(matchmaking), **result})
        print(found[-1], file=sys.stderr, flush=True)
    return found


def _repeated(runs: int, wire: str, peers: int, run: Callable[[Links], Outcome]) -> dict[str, Any]:
    """Medians, and the seconds of every run; what failed is told, not left out."""
    outcomes: list[Outcome] = []
    failures: list[str] = []
    for _ in range(runs):
        with Links(peers, WIRES[wire]) as links:
            try:
                outcomes.append(run(links))
            except Far as error:
                return {"far": str(error)}
            except RuntimeError as error:
                failures.append(str(error))
    told: dict[str, Any] = {"failures": failures} if failures else {}
    if outcomes:
        for key in ("seconds", "sent_bytes", "sent_bytes_max", "processor_s", "steps", "distance"):
            told[key] = statistics.median(getattr(outcome, key) for outcome in outcomes)
        told["all_seconds"] = [outcome.seconds for outcome in outcomes]
    return told


def _links(wire: str) -> dict[str, float]:
    with Links(2, WIRES[wire]) as links:
        return measured(links)


def _plan(words: list[str]) -> Plan:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers", type=int, nargs="+", default=PEERS)
    parser.add_argument("--values", type=int, nargs="+", default=VALUES)
    parser.add_argument("--wires", choices=tuple(WIRES), nargs="+", default=tuple(WIRES))
    parser.add_argument("--precisions", choices=PRECISIONS, nargs="+", default=PRECISIONS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--random", action="store_true", help="p2pfed draws partners instead of a listed membership")
    parser.add_argument("--alone", action="store_true", help="without hivemind")
    parser.add_argument("--trace", default="", help="p2pfed's events go to files that begin so")
    told = parser.parse_args(words)
    quick = told.quick
    return Plan(
        (PEERS[0],) if quick else tuple(told.peers),
        (VALUES[0],) if quick else tuple(told.values),
        ("unshaped",) if quick else tuple(told.wires),
        ("float32",) if quick else tuple(told.precisions),
        1 if quick else told.runs,
        not told.random,
        not told.alone,
        told.trace,
    )


def _on_terminate(_number: int, _frame: FrameType | None) -> None:
    """An end as by Ctrl-C, so that processes and namespaces go too."""
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _on_terminate)
    say(measure(_plan(sys.argv[1:])))
