"""Finished cells as a table of markdown and two plots, each as self-contained HTML and as PNG.

Figures of an arm are means over the reported seeds, with the lowest and highest beside them where they matter. Bytes
to FedAvg's loss are taken seed by seed: the node mean of the arm against the last node mean of `TARGET` at that seed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.learning.cells import MODELS, SEEDS, Arm, Cell, reported_cells, tuned_as, tuning_cells
from tests.bench.learning.facts import network_table, snapshot_table
from tests.bench.learning.fleet import Point
from tests.bench.learning.results import Result, Results, best_rates, bytes_to, node_curve

TARGET = "fedavg-float32"
GAIN_SHARE = 0.95
MISSING = "-"
COLOURS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"]


@dataclass(frozen=True, slots=True)
class Curve:
    """One arm, meaned over seeds: bytes sent and node mean at each step, from before the first."""

    name: str
    steps: tuple[int, ...]
    sent: tuple[float, ...]
    losses: tuple[float, ...]


def write_report(results: Results, model: str, arms: Sequence[Arm], folder: Path) -> str:
    """The text of summary.md, which is written with curves.html and curves.png."""
    done = results.read()
    tuning = list(tuning_cells(model, arms))
    best = best_rates(done, tuning)
    arms = [arm for arm in arms if tuned_as(arm).name in best]
    runs: dict[str, list[Result]] = {}
    for cell in reported_cells(model, arms, best):
        if cell.key in done:
            runs.setdefault(cell.arm.name, []).append(done[cell.key])
    tables = [*_table(runs), "", *snapshot_table(runs), *network_table(runs), *_grid(done, tuning, best)]
    text = "\n".join([*_heading(model, runs), *tables]) + "\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")
    curves = [_curve(name, found) for name, found in runs.items()]
    if curves:
        write_html(curves, folder / "curves.html")
        write_png(curves, folder / "curves.png")
    return text


def _heading(model: str, runs: Mapping[str, Sequence[Result]]) -> list[str]:
    first = next(iter(runs.values()), None)
    if first is None:
        return ["no reported cell is done yet", ""]
    settings = MODELS[model]
    return [
        f"{settings.preset}, {first[0].source}, {settings.nodes} nodes, {settings.steps} local steps of "
        f"{settings.batch_rows} rows; held-out loss before: {_mean([each.base for each in first]):.4f}; "
        f"seeds {', '.join(map(str, SEEDS))}. MB are what one node sends, as the mean of "
        "all: in an ideal ring (through a server: x N/(N-1), and the server N times that); of pairs the payloads; of "
        "networks all frames.",
        "",
    ]


def _table(runs: Mapping[str, Sequence[Result]]) -> list[str]:
    lines = [
        "| arm | lr | seeds | node mean (range) | consensus | worst node | dev | test | distance | MB sent | "
        f"{TARGET}'s over it | MB to {GAIN_SHARE:.0%} of {TARGET}'s gain | MB to its loss | s a cell |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    targets = {each.cell.seed: each for each in runs.get(TARGET, [])}
    for name, found in runs.items():
        last = [each.last for each in found]
        nodes = [point.node_mean for point in last]
        columns = [
            name,
            f"{found[0].cell.rate:g}",
            str(len(found)),
            f"{_mean(nodes):.4f} ({min(nodes):.4f} to {max(nodes):.4f})",
            f"{_mean([point.consensus.all for point in last]):.4f}",
            f"{_mean([point.worst for point in last]):.4f}",
            f"{_mean([_split(point, 'dev') for point in last]):.4f}",
            f"{_mean([_split(point, 'test') for point in last]):.4f}",
            f"{_mean([point.distance for point in last]):.3f}",
            f"{_mean([point.sent for point in last]) / 1e6:.2f}",
            _fewer(last, [target.last for target in targets.values()]),
            _bytes(found, targets, lambda target: target.base - GAIN_SHARE * (target.base - target.last.node_mean)),
            _bytes(found, targets, lambda target: target.last.node_mean),
            f"{_mean([each.cpu_s for each in found]):.0f}",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def _fewer(last: Sequence[Point], targets: Sequence[Point]) -> str:
    """How many times the bytes go into those of `TARGET`."""
    sent = _mean([point.sent for point in last])
    return f"{_mean([point.sent for point in targets]) / sent:.1f}" if sent and targets else MISSING


def _bytes(found: Sequence[Result], targets: Mapping[int, Result], wanted: Callable[[Result], float]) -> str:
    """MB of each seed, in order of seeds."""
    cells = []
    for each in found:
        target = targets.get(each.cell.seed)
        sent = bytes_to(each, wanted(target)) if target is not None else None
        cells.append(MISSING if sent is None else f"{sent / 1e6:.2f}")
    return " / ".join(cells)


def _grid(done: Mapping[str, Result], tuning: Sequence[Cell], best: Mapping[str, float]) -> list[str]:
    rates = sorted({cell.rate for cell in tuning})
    lines = [
        "Learning rates: validation loss (node mean) after the last step, mean over the tuning seeds; chosen in bold. "
        "A chosen one at an end of the grid (*) may not be the best there is.",
        "",
        f"| arm | {' | '.join(f'{rate:g}' for rate in rates)} |",
        f"|---{'|---' * len(rates)}|",
    ]
    for name in best:
        columns = []
        for rate in rates:
            cells = [cell.key for cell in tuning if cell.arm.name == name and cell.rate == rate and cell.key in done]
            shown = f"{_mean([_split(done[key].last, 'dev') for key in cells]):.4f}" if cells else MISSING
            own = [cell.rate for cell in tuning if cell.arm.name == name]
            end = "*" if rate in (min(own), max(own)) else ""
            columns.append(f"**{shown}**{end}" if rate == best[name] else shown)
        lines.append(f"| {name} | {' | '.join(columns)} |")
    return lines


def _curve(name: str, found: Sequence[Result]) -> Curve:
    columns = list(zip(*[list(node_curve(each)) for each in found], strict=True))
    return Curve(
        name,
        (0, *(point.step for point in found[0].points)),
        tuple(_mean([sent for sent, _ in column]) for column in columns),
        tuple(_mean([loss for _, loss in column]) for column in columns),
    )


def write_html(curves: Sequence[Curve], path: Path) -> None:
    """Both plots in one page that needs no network."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, subplot_titles=("against bytes", "against local steps"), shared_yaxes=True)
    for index, curve in enumerate(curves):
        colour = _colour(index)
        sent = [each / 1e6 for each in curve.sent]
        for column, (across, shown) in enumerate(((sent, True), (list(curve.steps), False)), start=1):
            if column == 1 and not sent[-1]:
                # Nothing was sent: a level to compare with.
                figure.add_hline(y=curve.losses[-1], line_dash="dot", line_color=colour, row=1, col=1)
            line = {"color": colour}
            trace = go.Scatter(x=across, y=curve.losses, name=curve.name, legendgroup=curve.name, line=line)
            figure.add_trace(trace.update(showlegend=shown), 1, column)
    figure.update_xaxes(title_text="MB sent by a node (logarithmic)", type="log", row=1, col=1)
    figure.update_xaxes(title_text="local steps", row=1, col=2)
    figure.update_yaxes(title_text="held-out loss, mean of nodes", row=1, col=1)
    path.write_text(figure.to_html(include_plotlyjs=True, full_html=True), encoding="utf-8")


def write_png(curves: Sequence[Curve], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.5), layout="constrained")
    by_bytes, by_steps = figure.subplots(1, 2, sharey=True)
    for index, curve in enumerate(curves):
        colour = _colour(index)
        by_steps.plot(curve.steps, curve.losses, marker="o", markersize=3, color=colour, label=curve.name)
        if curve.sent[-1]:
            # The first point has sent nothing: it has no place on a logarithmic axis.
            sent = [each / 1e6 for each in curve.sent[1:]]
            by_bytes.plot(sent, curve.losses[1:], marker="o", markersize=3, color=colour)
        else:
            by_bytes.axhline(curve.losses[-1], linestyle=":", color=colour)
    by_bytes.set(xscale="log", xlabel="MB sent by a node", ylabel="held-out loss, mean of nodes")
    by_steps.set(xlabel="local steps")
    figure.legend(*by_steps.get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=110)


def _split(point: Point, split: str) -> float:
    return _mean([getattr(node, split) for node in point.nodes])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _colour(index: int) -> str:
    """Of ten that can be told apart, matplotlib's and plotly's own."""
    return COLOURS[index % len(COLOURS)]
