"""Two more tables: what a snapshot in each encoding finds, and the protocol's own figures of simulated networks.

All are means over seeds. A network under a condition stands beside the one without, seed by seed.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from tests.bench.learning.cells import NETWORK
from tests.bench.learning.results import Result

SNAPSHOTS = ("snapshot_int4", "snapshot_int8")
MISSING = "-"


def snapshot_table(runs: Mapping[str, Sequence[Result]]) -> list[str]:
    """Nothing where no arm has nodes that differ at the end."""
    found = {name: each for name, each in runs.items() if all(SNAPSHOTS[0] in one.facts for one in each)}
    if not found:
        return []
    lines = [
        "Loss of the consensus as it is gathered from versions in each encoding:",
        "",
        "| arm | int4 | int8 | float32 |",
        "|---|---|---|---|",
    ]
    for name, results in found.items():
        losses = [_fact(results, each) for each in SNAPSHOTS] + [fmean(one.last.consensus.all for one in results)]
        lines.append(f"| {name} | {' | '.join(f'{loss:.4f}' for loss in losses)} |")
    return [*lines, ""]


def network_table(runs: Mapping[str, Sequence[Result]]) -> list[str]:
    """`over base`: by how much the node mean, and the worst node, lies above that of the undisturbed network."""
    networks = {name: each for name, each in runs.items() if each[0].cell.arm.method == "network"}
    if not networks:
        return []
    lines = [
        "The product in the simulator; swaps, declined and MB are of the mean node, the others of all nodes:",
        "",
        "| arm | node mean over base | worst over base | MB sent | adapters alone | swaps | declined | aborted | "
        "half done | adopted | clipped | crashes | steps of a node | virtual minutes |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in networks.items():
        base = {one.cell.seed: one for one in runs.get(NETWORK.name, [])}
        steps = [_fact(found, "steps_fewest"), _fact(found, "steps_most")]
        columns = [
            name,
            _over(found, base, lambda one: one.last.node_mean),
            _over(found, base, lambda one: one.last.worst),
            f"{fmean(one.last.sent for one in found) / 1e6:.2f}",
            f"{_fact(found, 'adapter_bytes') / 1e6:.2f}",
            *(f"{_fact(found, each):.1f}" for each in ("swaps", "declined", "aborted", "half_done", "adopted")),
            f"{_fact(found, 'clipped_share'):.1%}",
            f"{_fact(found, 'crashes'):.1f}",
            f"{steps[0]:.0f} to {steps[1]:.0f}",
            f"{_fact(found, 'virtual_s') / 60.0:.0f}",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return [*lines, ""]


def _over(found: Sequence[Result], base: Mapping[int, Result], loss: Callable[[Result], float]) -> str:
    pairs = [(loss(one), loss(base[one.cell.seed])) for one in found if one.cell.seed in base]
    return f"{fmean(mine / other - 1.0 for mine, other in pairs):+.2%}" if pairs else MISSING


def _fact(found: Sequence[Result], name: str) -> float:
    return fmean(one.facts[name] for one in found)
