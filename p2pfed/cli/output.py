"""How commands answer: text for people, JSON for programs, always on stdout; all else goes to stderr.

Text is plain columns, not boxes: it is piped, grepped and pasted into reports.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How to answer: text for people, json for programs.")]


def show(value: Any, output: Format, render: Callable[[Any], str]) -> None:
    """Print `value`: as JSON, or as what `render` makes of it."""
    if output is Format.JSON:
        typer.echo(json.dumps(value, indent=2, default=_plain))
    else:
        typer.echo(render(value))


def pairs(rows: Mapping[str, object]) -> str:
    """Names and values, aligned. A value of several lines continues below its first."""
    width = max((len(name) for name in rows), default=0)
    lines = []
    for name, value in rows.items():
        for number, line in enumerate(str(value).splitlines() or [""]):
            lines.append(f"{name if number == 0 else '':<{width}}  {line}".rstrip())
    return "\n".join(lines)


def columns(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with aligned columns; None shows as a dash."""
    cells = [[*head], *[["-" if value is None else str(value) for value in row] for row in rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def size(count: float) -> str:
    """Bytes for people: powers of 1000, as network people count."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
