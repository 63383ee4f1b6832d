"""One chart of a bench as a page that needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path

Line = Sequence[tuple[float | str, float]]


def write_lines(path: Path, lines: Mapping[str, Line], across: str, up: str, *, log_x: bool = False) -> None:
    """Each line with its points, on a logarithmic height. Places that are words stand at even distances."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, line in lines.items():
        figure.add_scatter(x=[x for x, _ in line], y=[y for _, y in line], name=name, mode="lines+markers")
    figure.update_xaxes(title=across, type="log" if log_x else None)
    figure.update_yaxes(title=up, type="log")
    _write(figure, path)


def write_bars(path: Path, bars: Mapping[str, Mapping[str, float]], up: str) -> None:
    """`bars`: height by what it is measured on, by who is measured. Heights are logarithmic."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, heights in bars.items():
        text = [f"{height:.3g}" for height in heights.values()]
        figure.add_bar(x=list(heights), y=list(heights.values()), name=name, text=text)
    figure.update_yaxes(title=up, type="log")
    _write(figure, path)


def _write(figure: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs=True)  # type: ignore[attr-defined]
