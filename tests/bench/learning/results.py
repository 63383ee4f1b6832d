"""Finished cells as JSON lines: appended as they end, so that a run that was stopped goes on where it was."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from p2pfed.ports import Encoding
from tests.bench.learning.cells import Arm, Cell
from tests.bench.learning.fleet import Loss, Point


@dataclass(frozen=True, slots=True)
class Result:
    """`cpu_s` is what the cell took of one core, without loading the base. `facts`: by name, of the whole network."""

    cell: Cell
    source: str
    base: float
    """Held-out loss before the first step."""
    points: tuple[Point, ...]
    cpu_s: float
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def last(self) -> Point:
        return self.points[-1]


class Results:
    """One file of a results folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "cells.jsonl"

    def append(self, result: Result) -> None:
        line = json.dumps({"key": result.cell.key, **asdict(result)}, allow_nan=True)
        with self._path.open("a", encoding="utf-8") as file:
            # A new line first where a stop has cut the last one off.
            file.write(f"\n{line}\n" if self._cut_off() else f"{line}\n")

    def _cut_off(self) -> bool:
        return self._path.exists() and not self._path.read_bytes().endswith(b"\n") and self._path.stat().st_size > 0

    def read(self) -> dict[str, Result]:
        """By key of the cell. A last line that was cut off by a stop is not a result."""
        if not self._path.exists():
            return {}
        found = {}
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                values = json.loads(line)
            except json.JSONDecodeError:
                continue
            found[values["key"]] = _result(values)
        return found


def best_rates(results: Mapping[str, Result], cells: Sequence[Cell]) -> dict[str, float]:
    """By name of arm: the learning rate with the lowest node mean on the validation rows of the tuning cells."""
    tried: dict[str, dict[float, list[float]]] = {}
    for cell in cells:
        if cell.key in results:
            tried.setdefault(cell.arm.name, {}).setdefault(cell.rate, []).append(_dev(results[cell.key].last))
    return {
        name: min(losses, key=lambda rate: math.fsum(losses[rate]) / len(losses[rate]))
        for name, losses in tried.items()
    }


def node_curve(result: Result) -> Iterator[tuple[float, float]]:
    """(bytes a node sent, node mean of the held-out loss), from before the first step."""
    yield 0.0, result.base
    for point in result.points:
        yield point.sent, point.node_mean


def bytes_to(result: Result, loss: float) -> float | None:
    """Bytes at which the node mean first came down to `loss`, between two points on a straight line."""
    before_sent, before_loss = 0.0, math.inf
    for sent, now in node_curve(result):
        if now <= loss:
            share = 1.0 if math.isinf(before_loss) else (before_loss - loss) / (before_loss - now)
            return before_sent + share * (sent - before_sent)
        before_sent, before_loss = sent, now
    return None


def _dev(point: Point) -> float:
    """Diverged is worse than anything."""
    mean = math.fsum(node.dev for node in point.nodes) / len(point.nodes)
    return mean if math.isfinite(mean) else math.inf


def _result(values: Mapping[str, Any]) -> Result:
    cell = dict(values["cell"])
    arm = {**cell["arm"], **{key: Encoding(cell["arm"][key]) for key in ("encoding", "settle_encoding")}}
    points = tuple(
        Point(**{**point, "consensus": _loss(point["consensus"]), "nodes": tuple(map(_loss, point["nodes"]))})
        for point in values["points"]
    )
    return Result(
        Cell(**{**cell, "arm": Arm(**arm)}),
        str(values["source"]),
        float(values["base"]),
        points,
        float(values["cpu_s"]),
        values.get("facts", {}),
    )


def _loss(values: Mapping[str, Any]) -> Loss:
    return Loss(**{**values, "domains": tuple(values["domains"])})
