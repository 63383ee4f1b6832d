"""Token buckets: never more than the rate, an hour's worth and one swap; and never stuck."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfed.core.budget import BURST_S, DAY_S, LINKS_MAX, Budget
from p2pfed.ports import PeerId

A, B = PeerId("a"), PeerId("b")
HOURS = round(DAY_S / BURST_S)


def test_no_limit_is_no_wait() -> None:
    budget = Budget(0, 0)
    budget.spend(A, 10**15, 0.0)
    assert budget.wait_s(A, 10**15, 0.0) == 0.0
    assert budget.links_kept == 0


def test_an_hour_s_worth_at_once_then_the_rate() -> None:
    budget = Budget(HOURS * 1000, 0)
    for _ in range(10):
        assert budget.wait_s(A, 100, 0.0) == 0.0
        budget.spend(A, 100, 0.0)
    assert math.isclose(budget.wait_s(B, 100, 0.0), BURST_S / 10)
    assert budget.wait_s(B, 100, BURST_S / 10 + 0.001) == 0.0


def test_a_swap_larger_than_the_bucket_goes_when_it_is_full_and_is_paid_off_after() -> None:
    budget = Budget(HOURS * 1000, 0)
    assert budget.wait_s(A, 5000, 0.0) == 0.0
    budget.spend(A, 5000, 0.0)
    assert math.isclose(budget.wait_s(A, 5000, 0.0), 5 * BURST_S)
    assert budget.wait_s(A, HOURS * 1000, 1e9) == 0.0
    assert budget.wait_s(A, HOURS * 1000 + 1, 1e9) == math.inf


def test_the_link_s_limit_holds_for_that_link_only() -> None:
    budget = Budget(0, HOURS * 100)
    budget.spend(A, 100, 0.0)
    assert budget.wait_s(A, 50, 0.0) > 0.0
    assert budget.wait_s(B, 50, 0.0) == 0.0


def test_full_links_are_forgotten_and_their_number_is_bounded() -> None:
    budget = Budget(0, HOURS * 100)
    budget.spend(A, 10, 0.0)
    budget.spend(B, 10, BURST_S)
    assert budget.links_kept == 1
    for number in range(LINKS_MAX + 50):
        budget.spend(PeerId(str(number)), 100, BURST_S)
    assert budget.links_kept == LINKS_MAX
    assert budget.wait_s(PeerId(str(LINKS_MAX + 49)), 100, BURST_S) > 0.0


STEPS = st.lists(
    st.tuples(st.sampled_from([A, B]), st.integers(1, 3000), st.floats(-50.0, 20_000.0), st.booleans()), max_size=60
)


@given(st.integers(0, 60_000), st.integers(0, 60_000), STEPS)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_stretch_of_time_spends_more_than_it_may(
    day_bytes: int, link_day_bytes: int, steps: list[tuple[PeerId, int, float, bool]]
) -> None:
    budget, now = Budget(day_bytes, link_day_bytes), 0.0
    spent: list[tuple[float, PeerId, int]] = []
    for peer, size, gone_s, wait in steps:
        now += gone_s  # a clock that goes back a little must not pay twice
        wait_s = budget.wait_s(peer, size, now)
        assert (wait_s == math.inf) == (0 < day_bytes < size or 0 < link_day_bytes < size)
        if wait and wait_s != math.inf:
            now += wait_s + 1e-3
            assert budget.wait_s(peer, size, now) == 0.0  # what was told was enough
        if budget.wait_s(peer, size, now) == 0.0:
            budget.spend(peer, size, now)
            spent.append((now, peer, size))
    for limit, of in ((day_bytes, {A, B}), (link_day_bytes, {A}), (link_day_bytes, {B})):
        mine = [(at, size) for at, peer, size in spent if peer in of]
        for begin in range(len(mine) if limit else 0):
            latest = first = max(at for at, _ in mine[: begin + 1])
            total = largest = 0
            for at, size in mine[begin:]:
                total, largest, latest = total + size, max(largest, size), max(latest, at)
                allowed = (latest - first) * limit / DAY_S + max(limit * BURST_S / DAY_S, largest)
                assert total <= allowed + 1e-6
