"""The report as one page: charts that work offline, in light and dark, on a phone. Everything is inside the file.

plotly draws; its script is inlined. Colours come from CSS variables and are given to plotly when the page opens and
when the reader's system changes between light and dark.
"""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from p2pfed.demo.measurement import Figures, Kind, Measurement
from p2pfed.demo.report import Check, Report, checks, label, limits, warnings

COLOURS = ("#2a78d6", "#c8641e", "#2e9e6b", "#9a5fd0")
"""One a trade; told apart by the colour-blind and on both grounds."""
GREY, GREEN = "#8a8f98", "#159a5b"
CHART_HEIGHT_PX = 340
SHORT_CHART_HEIGHT_PX = 300


def write_page(report: Report, path: Path) -> None:
    path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The whole document."""
    from plotly.offline import get_plotlyjs

    charts = [
        ("loss-steps", "Loss while training", _LOSS_STEPS, _loss_steps(report)),
        ("loss-bars", "Held-out loss", _LOSS_BARS, _loss_bars(report)),
        ("histogram", "Scores given", _HISTOGRAM, _histogram(report)),
        ("errors", "Error of the scores, next to answers that read nothing", _ERRORS, _errors(report)),
    ]
    sections = "".join(
        f"<section><h2>{title}</h2><p>{text}</p><div class='chart' id='{name}'></div></section>"
        for name, title, text, _ in charts
    )
    figures = ",".join(f"'{name}':{_figure_json(figure)}" for name, _, _, figure in charts)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>p2pfed demo: {_text(report.network)}</title><style>{_STYLE}</style></head><body><main>"
        f"{_head(report)}{sections}{_table(report)}{_samples(report)}{_foot(report)}</main>"
        f"<script>{get_plotlyjs()}</script><script>const figures={{{figures}}};{_SCRIPT}</script></body></html>\n"
    )


def _head(report: Report) -> str:
    base, consensus = report.base.all, report.consensus.all
    tiles = (
        (f"{base.loss:.2f} → {consensus.loss:.2f}", "held-out loss, base to consensus"),
        (f"{base.parse_rate:.0%} → {consensus.parse_rate:.0%}", "verdicts that can be read"),
        (str(sum(node.swaps for node in report.nodes) // 2), "swaps between neighbours"),
        (f"{sum(report.seconds.values()) / 60:.1f} min", "all of it, on this machine"),
    )
    cells = "".join(f"<div class='tile'><b>{_text(value)}</b><span>{_text(name)}</span></div>" for value, name in tiles)
    notes = "".join(f"<p class='warning'><b>Note.</b> {_text(sentence)}</p>" for sentence in warnings(report))
    return (
        f"<header><h1>Four nodes, four trades, no server</h1><p>{len(report.nodes)} nodes trained "
        f"{_text(report.model)} for {report.steps} steps each, every one on the data of its own trade, and averaged "
        f"their adapters by gossip. Here is what their consensus knows, measured on {consensus.rows} rows that nobody "
        f"trained on.</p></header><div class='tiles'>{cells}</div>{notes}"
        f"<ul class='checks'>{''.join(_check(each) for each in checks(report))}</ul>"
        f"<p class='limits'>{_text(limits(report))}</p>"
    )


def _check(check: Check) -> str:
    mark, style = ("yes", "met") if check.met else ("no", "missed")
    return f"<li class='{style}'><b>{mark}</b> {_text(check.sentence)}</li>"


def _table(report: Report) -> str:
    heads = ("adapter", "loss", "perplexity", "read", "1 2 3 4 5", "MAE", "MAE at once")
    rows = []
    for each in report.measurements:
        figures = each.all
        cells = (
            f"{figures.loss:.3f}",
            f"{figures.perplexity:.1f}",
            f"{figures.parse_rate:.0%}",
            " ".join(map(str, figures.histogram)),
            _number(figures.mae),
            _number(figures.direct_mae),
        )
        rows.append(_row(label(each), cells, "consensus" if each.kind is Kind.CONSENSUS else ""))
    for baseline in report.baselines:
        scores = " ".join(map(str, baseline.histogram)) if any(baseline.histogram) else "-"
        rows.append(_row(baseline.name, ("-", "-", "-", scores, _number(baseline.mae), "-"), "unread"))
    trades = list(report.held_out_scores)
    by_trade = [
        _row(label(each), [f"{each.trades[t].loss:.2f} / {_number(each.trades[t].mae)}" for t in trades], "")
        for each in report.measurements
    ]
    by_trade += [_row(each.name, [f"- / {each.trades[t]:.2f}" for t in trades], "unread") for each in report.baselines]
    return (
        f"<section><h2>All numbers</h2><div class='scroll'><table>{_header(heads)}{''.join(rows)}</table></div>"
        "<p>MAE counts the verdicts that could be read; “at once” is the score expected from the probabilities of the "
        "five digits, asked for without feedback. Below: held-out loss / MAE by trade.</p>"
        f"<div class='scroll'><table>{_header(('adapter', *trades))}{''.join(by_trade)}</table></div></section>"
    )


def _samples(report: Report) -> str:
    before = {sample.instruction: sample.answer for sample in report.base.samples}
    blocks = []
    for sample in report.consensus.samples:
        blocks.append(
            f"<details><summary>{_text(sample.trade)}: {_text(sample.instruction)}</summary><dl>"
            f"<dt>answer to judge</dt><dd>{_text(sample.response)}</dd>"
            f"<dt>an expert's verdict</dt><dd>{_text(sample.feedback)} <b>[RESULT] {sample.score}</b></dd>"
            f"<dt>the base</dt><dd>{_text(before.get(sample.instruction, ''))}</dd>"
            f"<dt>the consensus</dt><dd>{_text(sample.answer)}</dd></dl></details>"
        )
    return f"<section><h2>What they write</h2><p>One held-out row of each trade.</p>{''.join(blocks)}</section>"


def _foot(report: Report) -> str:
    nodes = "".join(
        _row(
            node.name,
            (
                node.title,
                f"{node.steps}",
                f"{node.swaps}",
                f"{node.bytes_up / 1e6:.1f} / {node.bytes_down / 1e6:.1f} MB",
                ", ".join(f"{count} by {how}" for how, count in node.found_by.items()) or "-",
            ),
            "",
        )
        for node in report.nodes
    )
    phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report.seconds.items())
    return (
        "<section><h2>The network</h2><div class='scroll'><table>"
        f"{_header(('node', 'trade', 'steps', 'swaps', 'up / down', 'neighbours found'))}{nodes}</table></div>"
        f"<p>{_text(report.discovery)} One adapter has {report.adapter_bytes / 1e6:.1f} MB, "
        f"{report.sent_bytes / 1e6:.2f} MB as it travels. At the end they were "
        f"{report.consensus_distance:.3f} from their mean (root mean square). Time: {_text(phases)}; "
        f"{report.cpu_s:.0f} s of CPU time, at most {report.memory_max_bytes / 1e9:.1f} GB of memory in all.</p>"
        f"<p>The consensus is a PEFT folder: <code>{_text(report.adapter_folder)}</code>. Network "
        f"<code>{_text(report.network_id)}</code>, seed {report.seed}, p2pfed {_text(report.version)}.</p></section>"
    )


def _loss_steps(report: Report) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    alone = {each.name: each.losses for each in report.of(Kind.ISOLATED)}
    for node, colour in zip(report.nodes, _cycle(len(report.nodes)), strict=True):
        for name, losses, dash in (
            (node.trade, node.losses, "solid"),
            (f"{node.trade} alone", alone[node.trade], "dot"),
        ):
            figure.add_scatter(
                x=[step for step, _ in losses],
                y=[loss for _, loss in losses],
                name=name,
                mode="lines",
                line={"color": colour, "dash": dash, "width": 2.5 if dash == "solid" else 1.5},
            )
    return _laid_out(figure, "local step", "training loss (own data)", CHART_HEIGHT_PX + 60)


def _loss_bars(report: Report) -> Any:
    import plotly.graph_objects as go

    measured = report.measurements
    figure = go.Figure()
    figure.add_bar(
        y=[label(each) for each in measured],
        x=[each.all.loss for each in measured],
        orientation="h",
        marker_color=[_colour(each) for each in measured],
        text=[f"{each.all.loss:.3f}" for each in measured],
        textposition="auto",
        hovertext=[_loss_hover(each) for each in measured],
        hoverinfo="text",
    )
    figure.update_yaxes(autorange="reversed")
    return _laid_out(figure, "mean loss per token", "")


def _histogram(report: Report) -> Any:
    import plotly.graph_objects as go

    known = [score for scores in report.held_out_scores.values() for score in scores]
    figure = go.Figure()
    scores = [1, 2, 3, 4, 5]
    figure.add_bar(x=scores, y=[known.count(score) for score in scores], name="experts", marker_color=GREY)
    for each in (*report.of(Kind.ISOLATED), report.consensus):
        visible = True if each.kind is Kind.CONSENSUS else "legendonly"
        figure.add_bar(
            x=scores, y=list(each.all.histogram), name=label(each), marker_color=_colour(each), visible=visible
        )
    figure.update_xaxes(dtick=1)
    return _laid_out(figure, "score", "rows")


def _errors(report: Report) -> Any:
    import plotly.graph_objects as go

    read: list[tuple[str, Figures, str]] = [
        (label(each), each.all, _colour(each)) for each in report.measurements if each.all.mae is not None
    ]
    names = [name for name, _, _ in read] + [each.name for each in report.baselines]
    values = [figures.mae or 0.0 for _, figures, _ in read] + [each.mae for each in report.baselines]
    colours = [colour for _, _, colour in read] + [GREY] * len(report.baselines)
    figure = go.Figure()
    figure.add_bar(
        y=names,
        x=values,
        orientation="h",
        marker_color=colours,
        text=[f"{value:.2f}" for value in values],
        textposition="auto",
        hoverinfo="y+x",
    )
    figure.update_yaxes(autorange="reversed")
    return _laid_out(figure, "mean absolute error", "")


def _laid_out(figure: Any, x: str, y: str, height_px: int = CHART_HEIGHT_PX) -> Any:
    figure.update_layout(
        height=height_px,
        margin={"l": 8, "r": 12, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": -0.2, "x": 0},
        template="none",
    )
    figure.update_xaxes(title={"text": x, "standoff": 8}, automargin=True, fixedrange=True, zeroline=False)
    figure.update_yaxes(title={"text": y, "standoff": 8}, automargin=True, fixedrange=True, zeroline=False)
    return figure


def _figure_json(figure: Any) -> str:
    # Inside <script>, "</" would end it.
    return str(figure.to_json()).replace("</", "<\\/")


def _cycle(count: int) -> list[str]:
    return [COLOURS[at % len(COLOURS)] for at in range(count)]


def _colour(measured: Measurement) -> str:
    return {Kind.BASE: GREY, Kind.ISOLATED: COLOURS[0], Kind.CONSENSUS: GREEN}[measured.kind]


def _loss_hover(measured: Measurement) -> str:
    lines = [f"{trade} {figures.loss:.3f}" for trade, figures in measured.trades.items()]
    return "<br>".join([label(measured), *lines])


def _header(names: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<th>{_text(name)}</th>" for name in names) + "</tr>"


def _row(name: str, cells: Sequence[str], style: str) -> str:
    return f"<tr class='{style}'><th>{_text(name)}</th>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _text(value: str) -> str:
    return html.escape(value)


_LOSS_STEPS = (
    "Each node's loss on its own data, smoothed over about ten steps: in the network (solid) and trained alone from "
    "the same start, on the same rows in the same order (dotted). Alone a node may well look better here: it fits "
    "nothing but its own trade. What counts is the next chart."
)
_LOSS_BARS = "On rows of all trades that nobody trained on, per token. Lower is better; hover or tap for each trade."
_HISTOGRAM = (
    "What scores the consensus gave, next to the experts'. Tap a name in the legend to see the nodes trained alone."
)
_ERRORS = (
    "How far the scores are off: lower is better. Grey bars read nothing at all: who does not clearly beat them has "
    "not shown that it can judge."
)

_STYLE = """
:root{--ground:#fbfbf9;--card:#fff;--ink:#1c2024;--soft:#5c646e;--line:#dfe1dc;
--good:#117a48;--bad:#b3261e;--warn:#fff3d6;--edge:#d8a200}
@media (prefers-color-scheme:dark){:root{--ground:#14171a;--card:#1c2024;--ink:#e8eaec;--soft:#a3abb5;--line:#343a41;
--good:#4cc38a;--bad:#ff7b72;--warn:#3a2f10}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:960px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:1.9rem;line-height:1.2;margin:.2em 0}
h2{font-size:1.2rem;margin:0 0 .3em}
section,.tile{background:var(--card);border:1px solid var(--line);border-radius:10px}
section{padding:16px;margin:16px 0}
section p{color:var(--soft);margin:.2em 0 .8em}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:16px 0}
.tile{padding:12px}
.tile b{display:block;font-size:1.4rem}
.tile span{color:var(--soft);font-size:.9rem}
.warning{background:var(--warn);border-left:5px solid var(--edge);border-radius:6px;padding:12px;font-size:1.05rem}
.checks{list-style:none;padding:0}
.checks li{margin:.3em 0}
.checks b{display:inline-block;min-width:2.6em;text-transform:uppercase}
.met b{color:var(--good)}
.missed b{color:var(--bad)}
.limits{color:var(--soft)}
.chart{width:100%;min-height:300px;overflow:hidden}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;min-width:100%;margin-bottom:8px}
th,td{padding:5px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;
font-variant-numeric:tabular-nums}
th:first-child{text-align:left;font-weight:500}
tr:first-child th{color:var(--soft);font-weight:600}
tr.consensus *{font-weight:700;color:var(--good)}
tr.unread *{color:var(--soft)}
details{border-top:1px solid var(--line);padding:8px 0}
summary{cursor:pointer}
dt{color:var(--soft);font-size:.85rem;margin-top:.6em}
dd{margin:0}
code{font-size:.9em;overflow-wrap:anywhere}
"""

_SCRIPT = """
const dark=matchMedia('(prefers-color-scheme: dark)');
function draw(){const css=getComputedStyle(document.documentElement);const ink=css.getPropertyValue('--ink').trim();
const line=css.getPropertyValue('--line').trim();
for(const [name,figure] of Object.entries(figures)){const layout=structuredClone(figure.layout);
layout.font={color:ink,family:'system-ui, sans-serif',size:13};
for(const axis of ['xaxis','yaxis']){layout[axis]=Object.assign(layout[axis]||{},{gridcolor:line,linecolor:line});}
layout.width=document.getElementById(name).clientWidth;
Plotly.react(name,figure.data,layout,{displayModeBar:false});}}
draw();dark.addEventListener('change',draw);addEventListener('resize',draw);
"""
