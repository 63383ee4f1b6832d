"""Pace: limits that follow what a peer takes, and stay within their bounds."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfed.core.deadline import DEVIATIONS, DOUBLINGS_MAX, Pace

TIMES = st.lists(st.one_of(st.floats(0.0, 1000.0), st.none()), max_size=60)
"""None: nothing came in time."""


def limit_s(pace: Pace) -> float:
    return pace.limit_s(10.0, 0.5, 60.0)


def test_before_anything_was_observed_it_is_the_callers_guess() -> None:
    assert limit_s(Pace()) == 10.0
    assert Pace().limit_s(100.0, 0.5, 60.0) == 60.0 and Pace().limit_s(0.1, 0.5, 60.0) == 0.5, "within the bounds too"


def test_one_time_gives_it_and_twice_as_much_for_its_unknown_spread() -> None:
    pace = Pace()
    pace.observe(2.0)
    assert limit_s(pace) == 2.0 + DEVIATIONS * 1.0


def test_a_steady_peer_is_held_to_its_time_and_a_wavering_one_has_room() -> None:
    steady, wavering, rng = Pace(), Pace(), random.Random(1)
    missed = 0
    for turn in range(2000):
        steady.observe(2.0)
        took_s = max(0.0, rng.gauss(2.0, 0.7))
        missed += turn > 20 and took_s > limit_s(wavering)
        wavering.observe(took_s)
    assert limit_s(steady) == pytest.approx(2.0, abs=0.01)
    assert 3.0 < limit_s(wavering) < 6.5
    assert missed <= 20, "1 % of ordinary times"


def test_it_follows_a_peer_that_becomes_slow_and_one_that_becomes_fast() -> None:
    pace = Pace()
    for _ in range(50):
        pace.observe(0.2)
    pace.observe(5.0)
    assert limit_s(pace) > 5.0, "at once: the next may take as long"
    for _ in range(50):
        pace.observe(0.2)
    assert limit_s(pace) < 0.6


def test_every_miss_doubles_the_limit_until_something_comes() -> None:
    pace = Pace()
    for _ in range(100):
        pace.observe(1.0)
    limits = []
    for _ in range(4):
        pace.late()
        limits.append(limit_s(pace))
    assert limits == pytest.approx([2.0, 4.0, 8.0, 16.0], abs=0.01)
    pace.observe(1.0)
    assert limit_s(pace) == pytest.approx(1.0, abs=0.01)
    unknown = Pace()
    unknown.late()
    assert limit_s(unknown) == 20.0
    for _ in range(10_000):
        unknown.late()
    assert limit_s(unknown) == 60.0 and unknown.limit_s(1e-3, 0.0, 1e9) == 1e-3 * 2.0**DOUBLINGS_MAX


@given(TIMES, st.floats(0.0, 100.0), st.floats(0.0, 100.0), st.floats(0.0, 100.0))
@settings(derandomize=True)
def test_it_never_leaves_its_bounds(times: list[float | None], first_s: float, min_s: float, more_s: float) -> None:
    pace = Pace()
    for took_s in times:
        if took_s is None:
            pace.late()
        else:
            pace.observe(took_s)
        assert min_s <= pace.limit_s(first_s, min_s, min_s + more_s) <= min_s + more_s
