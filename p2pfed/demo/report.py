"""The demo's result: one value, as JSON, as a terminal table, and as sentences on what it does and does not show.

The page (`page`) draws the same value. Nothing is rounded before it is shown, nothing is left out where it is bad.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from p2pfed.demo.measurement import Baseline, Kind, Measurement

REPORT_FORMAT = 1
LOSS_SHARE_EXPECTED = 0.6
"""Of the base's held-out loss: what the consensus should reach at most."""
PARSE_RATE_EXPECTED = 0.9
ONE_SCORE_SHARE = 0.9
"""Above it a model gives practically one answer to everything."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One gossiping node at its end. `losses`: (step, smoothed training loss); `found_by`: how many neighbours how."""

    name: str
    trade: str
    title: str
    steps: int
    examples: int
    losses: tuple[tuple[int, float], ...]
    swaps: int
    bytes_up: int
    bytes_down: int
    neighbours: int
    found_by: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Report:
    """Seconds are wall time of each phase; `cpu_s` and `memory_max_bytes` of all processes together."""

    version: str
    network: str
    network_id: str
    model: str
    adapter_bytes: int
    sent_bytes: int
    """Of an adapter as it travels in a swap."""
    steps: int
    seed: int
    nodes: tuple[NodeFacts, ...]
    discovery: str
    """A sentence on how the last node was found."""
    consensus_distance: float
    """Of the collected adapters: root mean square distance to their mean."""
    measurements: tuple[Measurement, ...]
    baselines: tuple[Baseline, ...]
    held_out_scores: Mapping[str, tuple[int, ...]]
    seconds: Mapping[str, float]
    cpu_s: float
    memory_max_bytes: int
    adapter_folder: str

    def of(self, kind: Kind) -> tuple[Measurement, ...]:
        return tuple(each for each in self.measurements if each.kind is kind)

    @property
    def base(self) -> Measurement:
        return self.of(Kind.BASE)[0]

    @property
    def consensus(self) -> Measurement:
        return self.of(Kind.CONSENSUS)[0]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was expected, and whether it came."""

    sentence: str
    met: bool


def checks(report: Report) -> tuple[Check, ...]:
    base, consensus = report.base.all, report.consensus.all
    best = min(report.of(Kind.ISOLATED), key=lambda each: each.all.loss)
    share = consensus.loss / base.loss
    return (
        Check(
            f"consensus held-out loss {consensus.loss:.3f} is {share:.0%} of the base's {base.loss:.3f} "
            f"(expected: at most {LOSS_SHARE_EXPECTED:.0%})",
            share <= LOSS_SHARE_EXPECTED,
        ),
        Check(
            f"consensus held-out loss {consensus.loss:.3f} against {best.all.loss:.3f} of the best node trained alone "
            f"({best.name}; expected: lower than every one)",
            consensus.loss < best.all.loss,
        ),
        Check(
            f"verdicts that can be read: base {base.parse_rate:.0%}, consensus {consensus.parse_rate:.0%} "
            f"(expected: above {PARSE_RATE_EXPECTED:.0%})",
            consensus.parse_rate > PARSE_RATE_EXPECTED,
        ),
    )


def warnings(report: Report) -> tuple[str, ...]:
    """What must not be overlooked: a trained model that gives one score to everything, and who beats it unread."""
    found = []
    for each in report.measurements:
        if each.kind is not Kind.BASE and each.all.parse_rate > 0 and each.all.commonest_share > ONE_SCORE_SHARE:
            score = each.all.histogram.index(max(each.all.histogram)) + 1
            found.append(
                f"{label(each).capitalize()} gives a {score} in {each.all.commonest_share:.0%} of its verdicts: it has "
                "learnt how a verdict looks, not how to judge."
            )
    return tuple(found)


def limits(report: Report) -> str:
    """What a model of this size can show and what it can not, with this run's own numbers."""
    unread = min(report.baselines, key=lambda each: each.mae)
    mae = report.consensus.all.mae
    own = f"The mean absolute error here is {mae:.2f}" if mae is not None else "No verdict could be read here"
    rows = report.consensus.all.rows
    return (
        "A model this small (135 million parameters in the demo) and a few hundred examples can show that a network "
        "learns: the loss on texts nobody trained on falls, and answers take the form of a verdict. They can not show "
        f"skill in judging. {own}; answering without reading ({unread.name}) gets {unread.mae:.2f}, and "
        f"{rows} rows are too few to tell small differences from chance. For a judge, train the 7B model."
    )


def label(measured: Measurement) -> str:
    match measured.kind:
        case Kind.BASE:
            return "base, untouched"
        case Kind.ISOLATED:
            return f"{measured.name} alone"
        case Kind.CONSENSUS:
            return "consensus"


def report_json(report: Report) -> str:
    values = asdict(report)
    values["format"] = REPORT_FORMAT
    values["checks"] = [asdict(each) for each in checks(report)]
    values["warnings"] = list(warnings(report))
    values["limits"] = limits(report)
    return json.dumps(values, indent=2)


def write_json(report: Report, path: Path) -> None:
    path.write_text(report_json(report) + "\n", encoding="utf-8")


def print_report(report: Report, console: Console, files: Sequence[Path]) -> None:
    console.print(_terminal(report))
    for file in files:
        console.print(f"  {file}", highlight=False, soft_wrap=True)


def _terminal(report: Report) -> Group:
    parts: list[Table | Text] = [Text(""), _figures_table(report), Text("")]
    parts.append(_mae_table(report))
    parts.append(Text(""))
    for check in checks(report):
        mark = Text("yes ", style="bold green") if check.met else Text("NO  ", style="bold red")
        parts.append(Text.assemble(mark, check.sentence))
    parts += [Text.assemble(("note ", "bold yellow"), (sentence, "bold")) for sentence in warnings(report)]
    total = sum(report.seconds.values())
    parts += [
        Text(""),
        Text(limits(report), style="dim"),
        Text(
            f"{report.discovery} {total:.0f} s, {report.cpu_s:.0f} s of CPU time, at most "
            f"{report.memory_max_bytes / 1e9:.1f} GB of memory in all processes.",
            style="dim",
        ),
        Text(""),
    ]
    return Group(*parts)


def _figures_table(report: Report) -> Table:
    rows = report.base.all.rows
    table = Table(
        title=f"{rows} held-out rows of all trades (read: verdicts that parse; at once: MAE without feedback)",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("adapter", no_wrap=True)
    for head in ("loss", "perplexity", "read", "1 2 3 4 5", "MAE", "at once"):
        table.add_column(head, justify="right", no_wrap=True)
    for each in report.measurements:
        figures = each.all
        style = "bold green" if each.kind is Kind.CONSENSUS else ""
        table.add_row(
            label(each),
            f"{figures.loss:.3f}",
            f"{figures.perplexity:.1f}",
            f"{figures.parse_rate:.0%}",
            " ".join(str(count) for count in figures.histogram),
            "-" if figures.mae is None else f"{figures.mae:.2f}",
            f"{figures.direct_mae:.2f}",
            style=style,
        )
    for baseline in report.baselines:
        scores = " ".join(str(count) for count in baseline.histogram) if any(baseline.histogram) else "-"
        table.add_row(baseline.name, "-", "-", "-", scores, f"{baseline.mae:.2f}", "-", style="dim")
    return table


def _mae_table(report: Report) -> Table:
    trades = list(report.held_out_scores)
    table = Table(title="by trade: held-out loss / MAE", title_justify="left", box=None, pad_edge=False)
    table.add_column("adapter", no_wrap=True)
    for trade in trades:
        table.add_column(trade, justify="right")
    for each in report.measurements:
        cells = []
        for trade in trades:
            mae = each.trades[trade].mae
            cells.append(f"{each.trades[trade].loss:.2f} / {'-' if mae is None else f'{mae:.2f}'}")
        table.add_row(label(each), *cells, style="bold green" if each.kind is Kind.CONSENSUS else "")
    for baseline in report.baselines:
        table.add_row(baseline.name, *(f"- / {baseline.trades[trade]:.2f}" for trade in trades), style="dim")
    return table
