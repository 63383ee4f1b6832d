"""Runs cells, in as many processes as there are cores to spare, and keeps each as soon as it is done."""

import multiprocessing
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed

from p2pfed.ports import Encoding
from tests.bench.learning.cells import Cell
from tests.bench.learning.fleet import Fleet
from tests.bench.learning.methods import METHODS
from tests.bench.learning.payloads import snapshot
from tests.bench.learning.results import Result, Results


def run_cells(cells: Iterable[Cell], results: Results, workers: int) -> None:
    """Those that are not there yet. This process alone writes."""
    done = results.read()
    waiting = [cell for cell in cells if cell.key not in done]
    if not waiting:
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(run_cell, cell) for cell in waiting]
        try:
            for number, future in enumerate(as_completed(running), start=1):
                results.append(future.result())
                print(f"{number}/{len(waiting)} {line_of(future.result())}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_cell(cell: Cell) -> Result:
    fleet = Fleet(cell)
    begun = time.process_time()
    base = fleet.loss(fleet.start).all
    points = []
    for point in METHODS[cell.arm.method](fleet):
        points.append(point)
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            raise SystemExit("nobody waits for this cell any more")
    facts = fleet.facts | (_snapshots(fleet) if points[-1].distance > 0.0 else {})
    return Result(cell, fleet.shards.source, base, tuple(points), time.process_time() - begun, facts)


def _snapshots(fleet: Fleet) -> dict[str, float]:
    """Loss of the consensus, by the encoding in which it is gathered. Of float32 it is the last point's."""
    held = [learner.values() for learner in fleet.learners]
    coarse = (Encoding.INT4, Encoding.INT8)
    return {f"snapshot_{each.value}": fleet.loss(snapshot(held, fleet.start, each)).all for each in coarse}


def line_of(result: Result) -> str:
    cell, last = result.cell, result.last
    return (
        f"{cell.arm.name} lr {cell.rate:g} seed {cell.seed}: node mean {last.node_mean:.4f}, consensus "
        f"{last.consensus.all:.4f}, worst {last.worst:.4f}, {last.sent / 1e6:.2f} MB, {result.cpu_s:.0f} s"
    )
