"""Pings: early on young links, rarer on old ones, one side first, and silence found within its time."""

import pytest

from p2pfed.core.events import FoundBy
from p2pfed.core.liveness import (
    PING_EARLY_SHARE,
    PING_IDLE_MAX_S,
    PING_IDLE_MIN_S,
    PING_LATER_S,
    SILENCE_MAX_S,
    check_at,
    ping_after_s,
)
from p2pfed.core.view import PeerEntry
from p2pfed.ports import PeerId


def entry(age_s: float, outbound: bool, pinged_at: float = 0.0) -> PeerEntry:
    """Last heard at 1,000 s, after it had stood for `age_s`."""
    made = PeerEntry(PeerId("p"), ("/dns4/p/tcp/1",), FoundBy.PEERS)
    made.linked_at, made.heard_at, made.outbound, made.pinged_at = 1000.0 - age_s, 1000.0, outbound, pinged_at
    return made


@pytest.mark.parametrize(
    ("age_s", "idle_s"), [(0.0, PING_IDLE_MIN_S), (150.0, 15.0), (330.0, PING_IDLE_MAX_S), (9000.0, PING_IDLE_MAX_S)]
)
def test_the_longer_it_stood_the_rarer_it_is_pinged(age_s: float, idle_s: float) -> None:
    assert ping_after_s(entry(age_s, outbound=True)) == idle_s
    assert check_at(entry(age_s, outbound=True), 1000.0) == 1000.0 + idle_s


def test_who_was_dialled_waits_longer() -> None:
    assert ping_after_s(entry(500.0, outbound=False)) - ping_after_s(entry(500.0, outbound=True)) == PING_LATER_S


@pytest.mark.parametrize("age_s", [0.0, 500.0])
def test_a_ping_goes_out_early_along_with_others_but_not_too_early(age_s: float) -> None:
    idle = entry(age_s, outbound=True)
    early_at = 1000.0 + ping_after_s(idle) * (1.0 - PING_EARLY_SHARE)
    assert check_at(idle, early_at - 0.1) > early_at > 1000.0 == check_at(idle, early_at + 0.1)


def test_the_side_that_was_dialled_is_never_early() -> None:
    idle = entry(500.0, outbound=False)
    due_at = 1000.0 + ping_after_s(idle)
    assert check_at(idle, due_at - 0.1) == due_at and check_at(idle, due_at) == 1000.0


def test_a_ping_without_answer_is_left_to_the_other_side_and_the_link_is_looked_at_when_it_is_to_be_given_up() -> None:
    asked = entry(500.0, outbound=True, pinged_at=1033.0)
    assert check_at(asked, 1033.0) == check_at(asked, 1044.0) == 1000.0 + SILENCE_MAX_S


def test_both_sides_ping_an_old_link_in_time_for_an_answer() -> None:
    for outbound in (True, False):
        assert ping_after_s(entry(9000.0, outbound)) <= SILENCE_MAX_S - PING_LATER_S
