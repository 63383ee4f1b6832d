"""One averaging step of n peers, p2pfed beside hivemind 1.1.12: the same machine, the same links, the same values.

`python -m tests.bench.averaging` prints one JSON line, and keeps it in the file of `--out` as rows come; at the end
a page of bars stands beside it. Needs root on Linux with `ip` (each peer has a network namespace), and for the
shaped links /dev/net/tun; says what is missing.
hivemind runs in an environment of its own, made at the first run (`averaging_environment`); `averaging_run` says what
is timed. At equal precision of what travels: float32 against NoCompression, float16 against Float16Compression, int8
against BlockwiseQuantization, and int4, which hivemind has not.
Systems: `p2pfed`; `hivemind`, with the matchmaking of `--matchmaking` (its minimum and its request's limit in seconds);
`hivemind_grouped`, its all-reduce alone, the group found before the clock starts.
Aims: level on unshaped links, at least twice as fast on the shaped ones.
A row is "done" only if each of its runs was; else it has no medians and says why: "failed", "far" (it came to a stop
further than 1 % from the mean) or "skipped" (no minutes left). Ratios are of rows that are both done.
`--quick`: 4 peers, 2.4 M values, unshaped, float32, one run each.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.bench.averaging_environment import REQUIREMENTS, hivemind_python
from tests.bench.averaging_run import RUN_S, Far, Matchmaking, Outcome, Task, run_hivemind, run_p2pfed
from tests.bench.children import say
from tests.bench.links import Links, Shape, measured, refusal
from tests.bench.plot import write_bars

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
SYSTEMS = ("p2pfed", "hivemind", "hivemind_grouped")
MATCHMAKING_S = (2.0, 1.0)
"""hivemind's default is 5 and 3; these were seen to find the whole group at once on the shaped links too."""
RUNS = 3
FAILURES = (RuntimeError, OSError, subprocess.SubprocessError)
"""What a run that does not come to its end may raise: a child's end, a broken pipe, a link that was not made."""
RUN_LEAST_S = 20.0
"""No run is begun with less left of `--minutes`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for."""

    peers: tuple[int, ...]
    values: tuple[int, ...]
    wires: tuple[str, ...]
    precisions: tuple[str, ...]
    systems: tuple[str, ...]
    matchmaking: tuple[float, float]
    runs: int
    run_limit_s: float
    minutes: float
    schedule: bool
    trace: str
    out: Path | None

    def cases(self) -> list[tuple[str, Task]]:
        """The cheapest first, so that the dearest are left out where minutes run short."""
        every = [
            (wire, Task(peers, values, precision))
            for wire in self.wires
            for peers in self.peers
            for values in self.values
            for precision in self.precisions
        ]
        return sorted(every, key=lambda case: _cost(*case))


class Bench:
    """Measures row after row; the file is whole after each."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._until = time.monotonic() + 60.0 * plan.minutes
        self._python: Path | None = None
        self.result: dict[str, Any] = {"complete": False}

    def measure(self) -> None:
        if reason := refusal():
            self.result["skipped"] = reason
            return self._keep()
        why_not = ""
        if any(system != "p2pfed" for system in self._plan.systems):
            self._python, why_not = hivemind_python()
        self.result |= {
            "hivemind": list(REQUIREMENTS) if self._python is not None else why_not or "not asked for",
            "congestion_control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
            "cores": os.cpu_count(),
            "links": {wire: _links(wire) for wire in self._plan.wires},
            "rows": [],
            "ratios": [],
        }
        for wire, task in self._plan.cases():
            case = [self._row(wire, task, system) for system in self._plan.systems if self._can(system, task)]
            self.result["ratios"] += _ratios(case)
            self._keep()
        self.result["complete"] = all(row["status"] == "done" for row in self.result["rows"])
        self._keep()
        if self._plan.out is not None:
            write_bars(self._plan.out.with_suffix(".html"), _seconds(self.result["rows"]), "seconds, median")

    def _can(self, system: str, task: Task) -> bool:
        return system == "p2pfed" or (self._python is not None and task.precision in COMPRESSIONS)

    def _row(self, wire: str, task: Task, system: str) -> dict[str, Any]:
        row: dict[str, Any] = {"wire": wire, **asdict(task), "system": system}
        row |= {"load_before": os.getloadavg()[0], **self._repeated(wire, task, system)}
        self.result["rows"].append(row)
        self._keep()
        print(row, file=sys.stderr, flush=True)
        return row

    def _repeated(self, wire: str, task: Task, system: str) -> dict[str, Any]:
        outcomes: list[Outcome] = []
        for _ in range(self._plan.runs):
            limit_s = min(self._plan.run_limit_s, self._until - time.monotonic())
            seconds = {"all_seconds": [outcome.seconds for outcome in outcomes]}
            if limit_s < RUN_LEAST_S:
                return {"status": "skipped", "why": "no minutes left", **seconds}
            try:
                with Links(task.peers, WIRES[wire]) as links:
                    outcomes.append(self._run(task, links, system, limit_s))
            except Far as error:
                return {"status": "far", "why": str(error), **seconds}
            except FAILURES as error:
                return {"status": "failed", "why": f"{type(error).__name__}: {error}", **seconds}
        told: dict[str, Any] = {"status": "done"}
        for key in ("seconds", "sent_bytes", "sent_bytes_max", "processor_s", "steps", "distance"):
            told[key] = statistics.median(getattr(outcome, key) for outcome in outcomes)
        return told | {"all_seconds": [outcome.seconds for outcome in outcomes]}

    def _run(self, task: Task, links: Links, system: str, limit_s: float) -> Outcome:
        if system == "p2pfed":
            return run_p2pfed(task, links, self._plan.schedule, sys.executable, limit_s, self._plan.trace)
        matchmaking = Matchmaking(*self._plan.matchmaking, system == "hivemind_grouped")
        return run_hivemind(task, links, matchmaking, str(self._python), COMPRESSIONS[task.precision], limit_s)

    def _keep(self) -> None:
        if self._plan.out is not None:
            beside = self._plan.out.with_name(f"{self._plan.out.name}.part")
            beside.write_text(json.dumps(self.result, indent=1) + "\n")
            beside.replace(self._plan.out)


def _seconds(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By system and case, of what came to its end."""
    bars: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["status"] == "done":
            case = f"{row['wire']}, {row['peers']} peers, {row['values'] / 1e6:g} M {row['precision']}"
            bars.setdefault(row["system"], {})[case] = row["seconds"]
    return bars


def _cost(wire: str, task: Task) -> float:
    """Roughly: starting so many processes, and carrying the bytes."""
    bits = {"float32": 32, "float16": 16, "int8": 8, "int4": 4}[task.precision]
    return task.peers * (1e7 + task.values * bits * (20.0 if wire == "shaped" else 1.0))


def _ratios(case: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Above 1: p2pfed took less."""
    done = {row["system"]: row for row in case if row["status"] == "done"}
    ours = done.pop("p2pfed", None)
    if ours is None:
        return []
    named = {key: ours[key] for key in ("wire", "peers", "values", "precision")}
    keys = ("seconds", "sent_bytes", "processor_s")
    return [{**named, "to": system, **{key: row[key] / ours[key] for key in keys}} for system, row in done.items()]


def _links(wire: str) -> dict[str, float] | str:
    try:
        with Links(2, WIRES[wire]) as links:
            return measured(links)
    except FAILURES as error:
        return f"not made: {error}"


def _plan(words: list[str]) -> Plan:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers", type=int, nargs="+", default=PEERS)
    parser.add_argument("--values", type=int, nargs="+", default=VALUES)
    parser.add_argument("--wires", choices=tuple(WIRES), nargs="+", default=tuple(WIRES))
    parser.add_argument("--precisions", choices=PRECISIONS, nargs="+", default=PRECISIONS)
    parser.add_argument("--systems", choices=SYSTEMS, nargs="+", default=SYSTEMS)
    parser.add_argument("--matchmaking", type=float, nargs=2, default=MATCHMAKING_S, metavar="S")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--run-limit", type=float, default=RUN_S, help="seconds of one run, its start included")
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="of all; what does not fit is skipped")
    parser.add_argument("--random", action="store_true", help="p2pfed draws partners instead of a listed membership")
    parser.add_argument("--trace", default="", help="p2pfed's events go to files that begin so")
    parser.add_argument("--out", type=Path, help="JSON file, whole after each row")
    told = parser.parse_args(words)
    quick = told.quick
    return Plan(
        (PEERS[0],) if quick else tuple(told.peers),
        (VALUES[0],) if quick else tuple(told.values),
        ("unshaped",) if quick else tuple(told.wires),
        ("float32",) if quick else tuple(told.precisions),
        tuple(told.systems),
        (told.matchmaking[0], told.matchmaking[1]),
        1 if quick else told.runs,
        told.run_limit,
        told.minutes,
        not told.random,
        told.trace,
        told.out,
    )


def _on_terminate(_number: int, _frame: FrameType | None) -> None:
    """An end as by Ctrl-C, so that processes and namespaces go too."""
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _on_terminate)
    bench = Bench(_plan(sys.argv[1:]))
    bench.measure()
    say(bench.result)
