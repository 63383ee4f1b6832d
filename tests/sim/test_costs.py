"""The protocol got no dearer than the record says; where it had to, `python -m tests.sim.costs --record`."""

from pathlib import Path

import pytest

from tests.sim.costs import RISE_MAX, SCENARIOS, costs_of, difference, recorded, report_of, rises


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_no_dearer_than_recorded(path: Path, record_cost: list[str]) -> None:
    now = costs_of(report_of(path))
    before = recorded().get(path.stem)
    assert before is not None, f"{path.stem} has no record: python -m tests.sim.costs --record"
    record_cost.append(difference(path.stem, before, now))
    assert rises(before, now) == [], "if it is worth it: python -m tests.sim.costs --record"


def test_every_record_has_its_scenario() -> None:
    assert sorted(recorded()) == [path.stem for path in SCENARIOS]


def test_a_rise_is_found_and_a_small_one_is_not() -> None:
    before = {"bytes_a_swap": 100.0, "swaps_a_node_to_target": 5.0}
    assert rises(before, {"bytes_a_swap": 100.0 * (1.0 + RISE_MAX), "swaps_a_node_to_target": 4.0}) == []
    assert rises(before, {"bytes_a_swap": 111.0, "swaps_a_node_to_target": 5.0}) == [
        "bytes_a_swap rose from 100 to 111"
    ]
    assert len(rises(before, {"bytes_a_swap": 90.0, "swaps_a_node_to_target": None})) == 1
