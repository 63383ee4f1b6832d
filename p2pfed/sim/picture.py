"""A simulation as one PNG: the page's four curves, and who swapped with whom."""

import math
from pathlib import Path
from typing import Any

from p2pfed.sim.curves import CURVES, Curve, points
from p2pfed.sim.page import COLOURS
from p2pfed.sim.replay import Replay
from p2pfed.sim.report import SimulationReport

SIZE_INCHES = (13.0, 7.4)
DPI = 110


def write_picture(report: SimulationReport, replay: Replay, path: Path) -> None:
    """Raises ImportError where matplotlib is missing. Draws without a display and leaves pyplot alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3, width_ratios=(1.0, 1.0, 1.1))
    for at, curve in enumerate(CURVES):
        _curve(figure.add_subplot(grid[at // 2, at % 2]), report, curve)
    _circle(figure.add_subplot(grid[:, 2]), replay)
    hours = report.duration_s / 3600.0
    figure.suptitle(
        f"p2pfed simulate: {report.scenario}, seed {report.seed}, {hours:.3g} h, {report.swaps:,} swaps, "
        f"{report.bytes_a_node / hours / 1000:,.1f} kB a node and hour"
    )
    figure.savefig(path)


def _curve(axes: Any, report: SimulationReport, curve: Curve) -> None:
    drawn = False
    for (name, line), colour in zip(points(report, curve).items(), COLOURS, strict=False):
        if line:
            axes.plot(*zip(*line, strict=True), label=name, color=colour)
            drawn = True
    axes.set_title(curve.title, fontsize=11)
    axes.set_xlabel(curve.across)
    axes.grid(alpha=0.3)
    if drawn:
        from matplotlib.ticker import LogLocator

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.legend(fontsize=8)
    else:
        axes.text(0.5, 0.5, "nothing is learnt here", ha="center", transform=axes.transAxes, color="#8a8f98")


def _circle(axes: Any, replay: Replay) -> None:
    counts: dict[tuple[int, int], int] = {}
    for _, one, other in replay.swaps:
        pair = (min(one, other), max(one, other))
        counts[pair] = counts.get(pair, 0) + 1
    turns = [2.0 * math.pi * at / max(1, len(replay.nodes)) for at in range(len(replay.nodes))]
    spots = [(math.sin(turn), math.cos(turn)) for turn in turns]
    most = max(counts.values(), default=1)
    for (one, other), count in counts.items():
        (x, y), (u, v) = spots[one], spots[other]
        axes.plot((x, u), (y, v), color="#8fa3b8", linewidth=0.3 + 2.0 * count / most, zorder=1)
    if spots:
        axes.scatter(*zip(*spots, strict=True), s=24, color=COLOURS[0], zorder=2)
    axes.set_title(f"Who swapped with whom: {len(replay.nodes)} nodes, {len(replay.swaps):,} swaps", fontsize=11)
    axes.set_aspect("equal")
    axes.axis("off")
