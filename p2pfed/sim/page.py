"""A simulation as one page: charts that work offline, in light and dark, on a phone. Everything is inside the file.

plotly draws the curves, a few lines of script the replay. Colours come from CSS variables.
"""

import html
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from p2pfed.sim.curves import CURVES, Curve, points
from p2pfed.sim.replay import Replay
from p2pfed.sim.report import SimulationReport

COLOURS = ("#2a78d6", "#c8641e", "#2e9e6b")
"""Told apart by the colour-blind, on both grounds."""
CHART_HEIGHT_PX = 300


def write_page(report: SimulationReport, replay: Replay, path: Path) -> None:
    """Raises ImportError where plotly is missing."""
    path.write_text(page(report, replay), encoding="utf-8")


def page(report: SimulationReport, replay: Replay) -> str:
    """The whole document."""
    from plotly.offline import get_plotlyjs

    figures = {curve.key: _figure(report, curve) for curve in CURVES if any(points(report, curve).values())}
    sections = "".join(
        f"<section><h2>{html.escape(curve.title)}</h2><p>{html.escape(curve.text)}</p>"
        f"<div class='chart' id='{curve.key}'></div></section>"
        for curve in CURVES
        if curve.key in figures
    )
    moves = {"count": len(replay.nodes), "nodes": replay.nodes, "swaps": replay.swaps, "end": report.duration_s}
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>p2pfed simulate: {html.escape(report.scenario)}</title><style>{_STYLE}</style></head><body><main>"
        f"{_head(report)}<div class='charts'>{sections}</div>{_replay(replay)}{_messages(report)}</main>"
        f"<script>{get_plotlyjs()}</script>"
        f"<script>const figures={_script_json(figures)};const moves={_script_json(moves)};{_SCRIPT}</script>"
        "</body></html>\n"
    )


def tiles(report: SimulationReport) -> list[tuple[str, str]]:
    """The figures that are said first: (value, name)."""
    hours = report.duration_s / 3600.0
    found = [
        (f"{len(report.nodes):,}", "nodes"),
        (f"{hours:.3g} h", "of virtual time"),
        (f"{report.swaps:,}", "swaps, each by two nodes"),
        (f"{report.bytes_a_node / hours / 1000:,.1f} kB", "sent by a node in an hour"),
        (f"{report.neighbours_mean:.1f}", "neighbours of a node at the end"),
    ]
    last = report.spread[-1] if report.spread else None
    if last is not None:
        found.append((f"{last.spread:.3g}", "consensus distance at the end"))
    if last is not None and last.gap is not None:
        found.append((f"{last.gap:.3g}", "loss above the optimum, mean of nodes"))
    return found


def _head(report: SimulationReport) -> str:
    cells = "".join(
        f"<div class='tile'><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>"
        for value, name in tiles(report)
    )
    problems = "".join(f"<li>{html.escape(each)}</li>" for each in report.problems)
    verdict = f"<ul class='problems'>{problems}</ul>" if problems else "<p class='fine'>Every check held.</p>"
    return (
        f"<header><h1>{html.escape(report.scenario)}</h1><p>Simulated by the code that runs on devices, in virtual "
        f"time. Seed {report.seed}, history {report.history[:16]}: the same seed gives the same history.</p></header>"
        f"<div class='tiles'>{cells}</div>{verdict}"
    )


def _replay(replay: Replay) -> str:
    if not replay.swaps:
        return ""
    left_out = f" {replay.swaps_left_out:,} other swaps are not shown." if replay.swaps_left_out else ""
    return (
        "<section><h2>Who swapped with whom</h2><p>"
        f"{len(replay.nodes)} nodes, {len(replay.swaps):,} swaps.{left_out} A line lights up when two nodes mix, "
        "and stays as a trace. Tap a node to see only its own.</p><canvas id='replay'></canvas>"
        "<div class='player'><button id='play' type='button'>Play</button>"
        "<input id='time' type='range' min='0' max='1000' value='1000' aria-label='time'>"
        "<output id='clock'></output></div></section>"
    )


def _messages(report: SimulationReport) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{count:,}</td><td>{count / max(1, report.swaps):.2f}</td></tr>"
        for name, count in sorted(report.messages, key=lambda each: -each[1])
    )
    return (
        "<section><h2>Messages</h2><div class='scroll'><table><tr><th>kind</th><th>sent</th><th>for each swap</th></tr>"
        f"{rows}</table></div></section>"
    )


def _figure(report: SimulationReport, curve: Curve) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    for (name, line), colour in zip(points(report, curve).items(), COLOURS, strict=False):
        if line:
            across, up = zip(*line, strict=True)
            figure.add_scatter(x=across, y=up, name=name, mode="lines", line={"color": colour, "width": 2})
    figure.update_layout(
        height=CHART_HEIGHT_PX,
        margin={"l": 8, "r": 12, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": -0.28, "yanchor": "top", "x": 0},
        hovermode="x unified",
        showlegend=len(figure.data) > 1,
        template="none",
    )
    figure.update_xaxes(title={"text": curve.across, "standoff": 8}, automargin=True, fixedrange=True, zeroline=False)
    figure.update_yaxes(
        type="log",
        title={"text": curve.up, "standoff": 8},
        automargin=True,
        fixedrange=True,
        dtick=1 if _decades(figure) > 2.0 else "D2",
        tickformat="~g",
    )
    return json.loads(figure.to_json())


def _decades(figure: Any) -> float:
    values = [value for line in figure.data for value in line.y]
    return math.log10(max(values) / min(values)) if values else 0.0


def _script_json(value: Sequence[Any] | dict[str, Any]) -> str:
    # Inside <script>, "</" would end it.
    return json.dumps(value, separators=(",", ":")).replace("</", "<\\/")


_STYLE = """
:root{--ground:#fbfbf9;--card:#fff;--ink:#1c2024;--soft:#5c646e;--line:#dfe1dc;--trace:#c9d2dc;--glow:#c8641e;
--dot:#2a78d6;--good:#117a48;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--ground:#14171a;--card:#1c2024;--ink:#e8eaec;--soft:#a3abb5;--line:#343a41;
--trace:#3a4552;--glow:#ffa45c;--dot:#6cb0ff;--good:#4cc38a;--bad:#ff7b72}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1100px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:1.8rem;line-height:1.2;margin:.2em 0}
h2{font-size:1.1rem;margin:0 0 .2em}
section,.tile{background:var(--card);border:1px solid var(--line);border-radius:10px}
section{padding:16px;margin:12px 0;min-width:0}
p{color:var(--soft);margin:.2em 0 .8em}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:0 12px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;margin:16px 0}
.tile{padding:12px}
.tile b{display:block;font-size:1.35rem}
.tile span{color:var(--soft);font-size:.88rem;line-height:1.3;display:block}
.fine{color:var(--good)}
.problems{color:var(--bad)}
.chart{width:100%;min-height:300px;overflow:hidden}
canvas{display:block;width:100%;max-width:560px;margin:0 auto;aspect-ratio:1;touch-action:manipulation}
.player{display:flex;gap:12px;align-items:center;max-width:560px;margin:8px auto 0}
.player input{flex:1;min-width:0;accent-color:var(--dot)}
.player output{min-width:5.5em;text-align:right;font-variant-numeric:tabular-nums;color:var(--soft)}
button{font:inherit;color:var(--ink);background:var(--ground);border:1px solid var(--line);border-radius:8px;
padding:6px 16px;min-width:5.5em;cursor:pointer}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;min-width:min(100%,420px)}
th,td{padding:4px 10px;text-align:right;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}
th:first-child{text-align:left;font-weight:500}
tr:first-child th{color:var(--soft);font-weight:600}
"""

_SCRIPT = """
const dark=matchMedia('(prefers-color-scheme: dark)');
const css=name=>getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function draw(){for(const [name,figure] of Object.entries(figures)){const layout=structuredClone(figure.layout);
layout.font={color:css('--ink'),family:'system-ui, sans-serif',size:13};
layout.hoverlabel={bgcolor:css('--card'),bordercolor:css('--line'),font:{color:css('--ink')}};
for(const axis of ['xaxis','yaxis'])Object.assign(layout[axis],{gridcolor:css('--line'),linecolor:css('--line')});
layout.width=document.getElementById(name).clientWidth;
Plotly.react(name,figure.data,layout,{displayModeBar:false});}}
const canvas=document.getElementById('replay');
if(canvas){const pen=canvas.getContext('2d'),slider=document.getElementById('time');
const clock=document.getElementById('clock');
const button=document.getElementById('play');let now=moves.end,running=false,last=0,only=-1,side=0,ratio=1;
const place=at=>{const turn=2*Math.PI*at/moves.count-Math.PI/2,far=side*0.45;
return [side/2+far*Math.cos(turn),side/2+far*Math.sin(turn)];};
const glow=moves.end/60;
function paint(){side=canvas.clientWidth;ratio=devicePixelRatio||1;canvas.width=canvas.height=side*ratio;
pen.setTransform(ratio,0,0,ratio,0,0);pen.clearRect(0,0,side,side);const seen=new Map(),fresh=[];
for(const [when,a,b] of moves.swaps){if(when>now)break;if(only>=0&&a!==only&&b!==only)continue;
if(when>now-glow&&now<moves.end)fresh.push([when,a,b]);
const key=Math.min(a,b)*moves.count+Math.max(a,b);seen.set(key,(seen.get(key)||0)+1);}
pen.strokeStyle=css('--trace');const most=Math.max(1,...seen.values());
for(const [key,count] of seen){line(Math.floor(key/moves.count),key%moves.count,0.5+2.5*count/most);}
pen.strokeStyle=css('--glow');for(const [when,a,b] of fresh){pen.globalAlpha=1-(now-when)/glow;line(a,b,2);}
pen.globalAlpha=1;const radius=Math.max(2.5,Math.min(7,side*0.9/moves.count));
for(let at=0;at<moves.count;at++){const [x,y]=place(at);pen.fillStyle=css(at===only?'--glow':'--dot');
pen.beginPath();pen.arc(x,y,radius,0,7);pen.fill();}
if(only>=0){const [x,y]=place(only);pen.fillStyle=css('--ink');pen.font='13px system-ui';
pen.textAlign=x>side/2?'right':'left';
pen.fillText('node '+moves.nodes[only],x+(x>side/2?-10:10),y+(y>side/2?-10:18));}
const seconds=Math.round(now);clock.textContent=Math.floor(seconds/60)+' min '+String(seconds%60).padStart(2,'0')+' s';}
function line(a,b,width){const [x,y]=place(a),[u,v]=place(b);pen.lineWidth=width;
pen.beginPath();pen.moveTo(x,y);pen.lineTo(u,v);pen.stroke();}
function tick(at){if(!running)return;now=Math.min(moves.end,now+(at-last)/1000*moves.end/30);last=at;
slider.value=1000*now/moves.end;paint();if(now>=moves.end)stop();else requestAnimationFrame(tick);}
function stop(){running=false;button.textContent='Play';}
button.onclick=()=>{if(running){stop();return;}if(now>=moves.end)now=0;running=true;button.textContent='Pause';
requestAnimationFrame(at=>{last=at;tick(at);});};
slider.oninput=()=>{stop();now=slider.value/1000*moves.end;paint();};
canvas.onclick=event=>{const box=canvas.getBoundingClientRect(),x=event.clientX-box.left,y=event.clientY-box.top;
let near=-1,best=24;for(let at=0;at<moves.count;at++){const [u,v]=place(at),far=Math.hypot(u-x,v-y);
if(far<best){best=far;near=at;}}only=near===only?-1:near;paint();};
const again=draw;draw=()=>{again();paint();};}
draw();dark.addEventListener('change',()=>draw());addEventListener('resize',()=>draw());
"""
