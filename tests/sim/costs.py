"""What the protocol costs in the fixed scenarios, next to what it cost at the previous commit.

`python -m tests.sim.costs` prints the table; with `--record` it writes costs.json, which is committed along with a
change that is worth its price.
"""

import functools
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from p2pfed.sim.report import SimulationReport
from p2pfed.sim.scenario import load
from p2pfed.sim.simulation import run

FOLDER = Path(__file__).parent
RECORD = FOLDER / "costs.json"
SCENARIOS = tuple(sorted((FOLDER / "scenarios").glob("*.toml")))
RISE_MAX = 0.1
"""A change of the order of events alone moves these figures by a few per cent."""
TARGET_SHARE = 0.1
"""Of the largest spread: where a network that learns nothing counts as agreed."""

Costs = Mapping[str, float | None]


@functools.cache
def report_of(path: Path) -> SimulationReport:
    """Each scenario is simulated once in a process, whoever asks."""
    return run(load(path))


def costs_of(report: SimulationReport) -> dict[str, float | None]:
    swaps = max(1, report.swaps)
    return {
        "bytes_a_swap": round(report.bytes_a_node * len(report.nodes) / swaps, 1),
        "messages_a_swap": round(sum(count for _, count in report.messages) / swaps, 2),
        "swaps_a_node_to_target": _swaps_to_target(report),
    }


def _swaps_to_target(report: SimulationReport) -> float | None:
    """Until the consensus distance is a tenth of its largest; None where it does not come to that."""
    largest = max((sample.spread for sample in report.spread), default=0.0)
    begun = False
    for sample in report.spread:
        begun = begun or sample.spread == largest
        if begun and sample.spread <= TARGET_SHARE * largest:
            return round(2.0 * sample.swaps / len(report.nodes), 2)
    return None


def recorded() -> dict[str, Costs]:
    read: dict[str, Costs] = json.loads(RECORD.read_text())
    return read


def difference(name: str, before: Costs, now: Costs) -> str:
    cells = []
    for key, value in now.items():
        old = before.get(key)
        change = f"{value / old - 1.0:+.1%}" if value is not None and old else "new" if old is None else "lost"
        cells.append(
            f"{key} {'-' if old is None else f'{old:g}'} -> {'-' if value is None else f'{value:g}'} ({change})"
        )
    return f"{name}: " + ", ".join(cells if any(now.values()) else ["nothing"])


def rises(before: Costs, now: Costs) -> list[str]:
    """Which costs rose by more than is allowed. A target that is not reached any more is a rise."""
    found = []
    for key, old in before.items():
        value = now.get(key)
        if old is not None and (value is None or value > old * (1.0 + RISE_MAX)):
            found.append(f"{key} rose from {old:g} to {'nowhere' if value is None else f'{value:g}'}")
    return found


def main(arguments: list[str]) -> int:
    now = {path.stem: costs_of(report_of(path)) for path in SCENARIOS}
    before = recorded() if RECORD.exists() else {}
    for name, costs in now.items():
        print(difference(name, before.get(name, {}), costs))
    if "--record" in arguments:
        RECORD.write_text(json.dumps(now, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
