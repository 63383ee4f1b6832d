"""`p2pfed simulate`: the code of the nodes in virtual time, thousands of them, before a device is touched."""

import gc
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from p2pfed.cli.output import Format, FormatOption, number, pairs, show, size
from p2pfed.errors import ConfigError, ExitCode, LocalError

if TYPE_CHECKING:
    from p2pfed.sim.report import SimulationReport
    from p2pfed.sim.scenario import Scenario

NODES = 100
HOURS = 1.0
HOURS_MAX = 24.0 * 365.0
STEPS_SHOWN = 200
"""Progress is told so often at most, and only to a terminal more than once."""
TOLD_INTERVAL_S = 0.5
PLOTS_NEED = "plots need plotly and matplotlib: pip install 'p2pfed[sim]'"


def simulate(
    scenario: Annotated[
        Path | None, typer.Argument(metavar="[SCENARIO.toml]", help="What to simulate. Default: equal devices.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(metavar="N", help=f"How many devices. Default: {NODES}.")] = None,
    hours: Annotated[float | None, typer.Option(metavar="H", help=f"Of virtual time. Default: {HOURS:g}.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="One seed, one history.")] = None,
    learner: Annotated[str | None, typer.Option(metavar="KIND", help="toy or quadratic.")] = None,
    topology: Annotated[
        str | None, typer.Option(metavar="KIND", help="grown (by discovery), ring, line, star, random or cliques.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(metavar="KIND", help="int4, int8, float16 or float32.")] = None,
    down: Annotated[float | None, typer.Option(metavar="SHARE", help="Of the nodes, down at any one time.")] = None,
    attackers: Annotated[int | None, typer.Option(metavar="N", help="Of the devices, those that attack.")] = None,
    attack: Annotated[str | None, typer.Option(metavar="KIND", help="How: sign-flip, noise, stale or settled.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report.json, report.html and report.png there.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Run nodes in virtual time: the production code, simulated wires and learners that cost nothing.

    Without a file: equal devices that make a step in 15 s and swap after every four, about eight neighbours each. \
    A file may say anything else: groups of nodes, speeds, NATs, faults, churn, attackers; what it expects is checked.
    """
    devices = {
        "nodes": nodes,
        "learner": learner,
        "topology": topology,
        "encoding": encoding,
        "down_share": down,
        "attackers": attackers,
        "attack": attack,
    }
    chosen = _chosen(scenario, {key: value for key, value in devices.items() if value is not None}, hours, seed)
    if out is not None:
        _make(out)
    report, swaps, seconds = _run(chosen)
    plain = {**report.as_plain(), "cpu_s": round(seconds, 2), "events_a_second": round(report.events / seconds)}
    files = _write(report, swaps, plain, out) if out is not None else []
    show(plain, output, lambda _: _text(report, seconds, files))
    if report.problems:
        raise typer.Exit(ExitCode.BUG)


def _chosen(path: Path | None, devices: Mapping[str, Any], hours: float | None, seed: int | None) -> "Scenario":
    from p2pfed.sim.device import devices as equal_devices
    from p2pfed.sim.scenario import load

    if hours is not None and not 0.0 < hours <= HOURS_MAX:
        raise ConfigError(f"{hours:g} hours, not above 0 and at most {HOURS_MAX:g}")
    if path is None:
        count = devices.get("nodes", NODES)
        if not 1 <= devices.get("attackers", 0) + 1 <= count:
            raise ConfigError(
                f"{count} nodes with {devices.get('attackers', 0)} attackers: at least one is to be honest"
            )
        return equal_devices(**{"nodes": NODES, **devices}, duration_s=3600.0 * (hours or HOURS), seed=seed or 0)
    if devices:
        name = next(iter(devices)).replace("down_share", "down")
        raise ConfigError(f"--{name} is for a simulation without a file; {path.name} says it itself")
    try:
        read = load(path)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    read = read if seed is None else read.with_seed(seed)
    return read if hours is None else replace(read, duration_s=3600.0 * hours)


def _run(scenario: "Scenario") -> tuple["SimulationReport", Any, float]:
    from p2pfed.sim.simulation import Simulation

    begun = time.process_time()
    simulation = Simulation(scenario)
    # Nothing of a simulation is garbage until it ends, and looking for it would take a tenth of the time.
    gc.disable()
    tell = _teller(scenario)
    try:
        for at in range(1, STEPS_SHOWN + 1):
            simulation.advance(scenario.duration_s * at / STEPS_SHOWN)
            tell(at / STEPS_SHOWN, simulation.network.history.events)
        return simulation.finish(), simulation.checker.swaps, max(1e-3, time.process_time() - begun)
    finally:
        gc.enable()


def _teller(scenario: "Scenario") -> Callable[[float, int], None]:
    """Progress on stderr: one line that is written over on a terminal, else one line for each quarter."""
    begun = last = time.monotonic()
    terminal = sys.stderr.isatty()

    def tell(share: float, events: int) -> None:
        nonlocal last
        now = time.monotonic()
        if terminal and (now - last > TOLD_INTERVAL_S or share == 1.0):
            last = now
            left_s = (now - begun) * (1.0 - share) / share
            line = f"{share:4.0%} of {scenario.duration_s / 3600.0:g} h, {events:,} events, {left_s:.0f} s left"
            print(f"\r{line:<70}", end="\n" if share == 1.0 else "", file=sys.stderr, flush=True)
        elif not terminal and round(share * STEPS_SHOWN) % (STEPS_SHOWN // 4) == 0:
            print(f"{share:.0%} of {scenario.duration_s / 3600.0:g} h, {events:,} events", file=sys.stderr)

    return tell


def _make(folder: Path) -> None:
    """Before the simulation, which may take minutes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"cannot write to {folder}: {error.strerror or error}") from error


def _write(report: "SimulationReport", swaps: Any, plain: dict[str, Any], folder: Path) -> list[Path]:
    """Plots only where their packages are installed."""
    from p2pfed.sim.page import write_page
    from p2pfed.sim.picture import write_picture
    from p2pfed.sim.replay import replay_of

    files = [folder / "report.json"]
    try:
        files[0].write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        replay = replay_of(swaps)
        for name, write in (("report.html", write_page), ("report.png", write_picture)):
            write(report, replay, folder / name)
            files.append(folder / name)
    except ImportError as error:
        print(f"{PLOTS_NEED} ({error.name} is missing)", file=sys.stderr)
    except OSError as error:
        raise LocalError(f"cannot write to {folder}: {error.strerror or error}") from error
    return files


def _text(report: "SimulationReport", seconds: float, files: list[Path]) -> str:
    hours = report.duration_s / 3600.0
    last = report.spread[-1] if report.spread else None
    rows: dict[str, object] = {
        "simulated": f"{report.scenario}, {hours:g} h, seed {report.seed}, history {report.history[:16]}",
        "it took": f"{seconds:.1f} s of processor time, {report.events:,} events, "
        f"{report.events / seconds:,.0f} a second",
        "swaps": f"{report.swaps:,}, half done {report.half_done}",
        "a node": f"{size(report.bytes_a_node / hours)} sent an hour, {report.neighbours_mean:.1f} neighbours, "
        f"{2.0 * report.swaps / len(report.nodes) / hours:.1f} swaps an hour",
    }
    if last is not None:
        rows["consensus distance"] = (
            f"{number(max(sample.spread for sample in report.spread))} at most, {number(last.spread)} at the end"
        )
    if last is not None and last.gap is not None:
        rows["loss above optimum"] = (
            f"{number(last.gap)} the mean node, {number(last.gap_worst)} the worst, "
            f"{number(last.gap_mean_adapter)} the mean adapter"
        )
    rows["checks"] = "\n".join(report.problems) if report.problems else "all held"
    if files:
        rows["written"] = "\n".join(map(str, files))
    return pairs(rows)
