"""Pings: early on young links, rarer on old ones, one side first, and silence found within its time."""

import pytest

from p2pfed.core.events import FoundBy
from p2pfed.core.liveness import (
    PING_AGAIN_S,
    PING_EARLY_S,
    PING_IDLE_MAX_S,
    PING_IDLE_MIN_S,
    SILENCE_MAX_S,
    ping_at,
    ping_due,
    silent_at,
)
from p2pfed.core.view import PeerEntry
from p2pfed.ports import PeerId


def entry(age_s: float, outbound: bool, pinged_at: float = 0.0) -> PeerEntry:
    """Last heard at 1,000 s, after it had stood for `age_s`."""
    made = PeerEntry(PeerId("p"), ("/dns4/p/tcp/1",), FoundBy.PEERS)
    made.linked_at, made.heard_at, made.outbound, made.pinged_at = 1000.0 - age_s, 1000.0, outbound, pinged_at
    return made


@pytest.mark.parametrize(
    ("age_s", "idle_s"), [(0.0, PING_IDLE_MIN_S), (150.0, 15.0), (260.0, PING_IDLE_MAX_S), (9000.0, PING_IDLE_MAX_S)]
)
def test_the_longer_it_stood_the_rarer_it_is_pinged(age_s: float, idle_s: float) -> None:
    assert ping_at(entry(age_s, outbound=True)) == 1000.0 + idle_s


def test_who_was_dialled_waits_longer() -> None:
    assert ping_at(entry(500.0, outbound=False)) - ping_at(entry(500.0, outbound=True)) == PING_AGAIN_S > PING_EARLY_S


def test_a_ping_without_answer_is_repeated_but_not_at_once() -> None:
    asked = entry(500.0, outbound=True, pinged_at=1026.0)
    assert ping_at(asked) == 1030.0
    assert not ping_due(asked, 1029.0) and ping_due(asked, 1030.0)


def test_two_pings_fit_before_the_oldest_link_is_given_up() -> None:
    first = ping_at(entry(9000.0, outbound=True))
    again = ping_at(entry(9000.0, outbound=True, pinged_at=first))
    assert first < again <= silent_at(entry(9000.0, outbound=True)) - PING_AGAIN_S
    assert silent_at(entry(0.0, outbound=True)) == 1000.0 + SILENCE_MAX_S
