"""The bench's own arithmetic: curves, choice of learning rates, going on after a stop, and equal gradients."""

import dataclasses
import math
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the learning bench trains real models")
pytest.importorskip("glassllm", reason="the small model comes from the package glassllm")

from tests.bench.learning.cells import ARMS, Arm, Cell
from tests.bench.learning.fleet import Loss, Point, distance_of, mean_of
from tests.bench.learning.results import Result, Results, best_rates, bytes_to, node_curve

pytestmark = pytest.mark.model
ARM, OTHER = ARMS[0], ARMS[1]


def result(*points: tuple[float, float], arm: Arm = ARM, rate: float = 0.01, seed: int = 0) -> Result:
    """(bytes sent, loss of both of two nodes)"""
    made = []
    for step, (sent, loss) in enumerate(points, start=1):
        each = Loss(loss, loss + 1.0, loss, (loss,))
        made.append(Point(step, sent, each, (each, each), 0.0))
    return Result(Cell(arm, "glassllm", rate, seed), "test", 6.0, tuple(made), 1.0)


def test_bytes_to_a_loss_lie_between_two_points() -> None:
    found = result((100.0, 5.0), (200.0, 4.0), (300.0, 4.5))
    assert next(iter(node_curve(found))) == (0.0, 6.0)
    assert bytes_to(found, 5.5) == 50.0
    assert bytes_to(found, 4.25) == 175.0
    assert bytes_to(found, 4.0) == 200.0
    assert bytes_to(found, 3.9) is None
    assert bytes_to(found, 6.0) == 0.0


def test_a_diverged_learning_rate_is_never_chosen() -> None:
    cells = [result((1.0, loss), rate=rate) for rate, loss in ((0.01, 4.2), (0.02, 4.1), (0.04, math.nan))]
    done = {each.cell.key: each for each in cells}
    assert best_rates(done, [each.cell for each in cells]) == {ARM.name: 0.02}


def test_a_stopped_run_keeps_what_was_whole(tmp_path: Path) -> None:
    results = Results(tmp_path)
    first, second = result((1.0, 4.0)), result((1.0, math.nan), seed=1)
    results.append(first)
    results.append(second)
    (path,) = tmp_path.iterdir()
    with path.open("a") as file:
        file.write('{"key": "cut o')
    found = results.read()
    assert found[first.cell.key] == first
    assert set(found) == {first.cell.key, second.cell.key}
    results.append(result((1.0, 4.0), seed=2))
    assert len(results.read()) == 3


def test_a_changed_setting_is_another_cell() -> None:
    changed = dataclasses.replace(ARM, every=ARM.every + 1)
    assert Cell(ARM, "glassllm", 0.01, 0).key != Cell(changed, "glassllm", 0.01, 0).key


def test_mean_and_distance() -> None:
    import numpy as np

    many = [{"a": np.full(3, value, np.float32)} for value in (1.0, 3.0)]
    assert mean_of(many)["a"].tolist() == [2.0, 2.0, 2.0]
    assert distance_of(many) == pytest.approx(math.sqrt(3.0))


def test_the_report_needs_no_network_and_names_what_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    pytest.importorskip("matplotlib")
    from tests.bench.learning.cells import FEDAVG, RULE, SEEDS, TUNING_SEEDS
    from tests.bench.learning.report import write_report

    results = Results(tmp_path)
    for arm, sent, loss in ((FEDAVG, 800.0, 4.0), (RULE, 100.0, 4.5)):
        for seed in (*TUNING_SEEDS, *SEEDS):
            results.append(result((sent * 1e6, loss), arm=arm, seed=seed))
    text = write_report(results, "glassllm", [FEDAVG, RULE, ARM], tmp_path)
    fedavg, rule = (
        next(line for line in text.splitlines() if line.startswith(f"| {arm.name} ")) for arm in (FEDAVG, RULE)
    )
    assert "| 800.00 / 800.00 / 800.00 |" in fedavg
    assert "| - / - / - | - / - / - |" in rule
    assert ARM.name not in text
    page = (tmp_path / "curves.html").read_text()
    assert RULE.name in page
    assert '<script src="http' not in page
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_centralised_step_averages_the_devices_gradients() -> None:
    import torch

    from p2pfed.train.loop import collate, token_losses
    from tests.bench.learning.fleet import Fleet
    from tests.bench.learning.methods import pooled_loss

    fleet = Fleet(Cell(OTHER, "glassllm", 0.01, 0))
    rows = [[each.examples[at] for at in each.next_batch()] for each in fleet.learners]
    adapter = fleet.learners[0].adapter
    factors = list(adapter.factors.values())
    pooled = torch.autograd.grad(pooled_loss(adapter.model, rows), factors)
    cpu = torch.device("cpu")
    apart = [torch.autograd.grad(token_losses(adapter.model, collate(own, cpu)).mean(), factors) for own in rows]
    for at, gradient in enumerate(pooled):
        mean = torch.stack([each[at] for each in apart]).mean(dim=0)
        assert torch.allclose(gradient, mean, rtol=1e-4, atol=1e-6)
