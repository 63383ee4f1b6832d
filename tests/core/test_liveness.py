"""Pings: early on young links, rarer on old ones, one side first; suspicion before loss, patience learned."""

import pytest

from p2pfed.core.deadline import Pace
from p2pfed.core.events import Effect, FoundBy, Report, Send
from p2pfed.core.liveness import (
    ANSWER_FIRST_S,
    ANSWER_MAX_S,
    ANSWER_MIN_S,
    MISSES_MAX,
    PING_EARLY_SHARE,
    PING_IDLE_MAX_S,
    PING_IDLE_MIN_S,
    PING_LATER_S,
    SILENCE_MAX_S,
    Look,
    answer_limit_s,
    answered,
    look_at,
    ping,
    ping_after_s,
)
from p2pfed.core.messages import Ping
from p2pfed.core.view import PeerEntry
from p2pfed.ports import PeerId


def entry(age_s: float, outbound: bool, pinged_at: float = 0.0) -> PeerEntry:
    """Last heard at 1,000 s, after it had stood for `age_s`."""
    made = PeerEntry(PeerId("p"), ("/dns4/p/tcp/1",), FoundBy.PEERS)
    made.linked_at, made.heard_at, made.outbound, made.pinged_at = 1000.0 - age_s, 1000.0, outbound, pinged_at
    made.link, made.pace = 1, Pace()
    return made


def given_up_after_s(silent: PeerEntry, first_ping_at: float) -> tuple[float, list[Effect]]:
    """Nothing is heard any more: seconds from the first ping to the end, and what was done."""
    effects = ping(silent, 7, first_ping_at)
    now = first_ping_at
    while True:
        look, at = look_at(silent, now)
        if look is Look.LOST:
            return now - first_ping_at, effects
        if look is Look.MISS:
            effects += ping(silent, None, now)
        else:
            assert look is Look.WAIT and at > now
            now = at


@pytest.mark.parametrize(
    ("age_s", "idle_s"), [(0.0, PING_IDLE_MIN_S), (150.0, 15.0), (330.0, PING_IDLE_MAX_S), (9000.0, PING_IDLE_MAX_S)]
)
def test_the_longer_it_stood_the_rarer_it_is_pinged(age_s: float, idle_s: float) -> None:
    assert ping_after_s(entry(age_s, outbound=True)) == idle_s
    assert look_at(entry(age_s, outbound=True), 1000.0) == (Look.WAIT, 1000.0 + idle_s)


def test_who_was_dialled_waits_longer() -> None:
    assert ping_after_s(entry(500.0, outbound=False)) - ping_after_s(entry(500.0, outbound=True)) == PING_LATER_S


@pytest.mark.parametrize("age_s", [0.0, 500.0])
def test_a_ping_goes_out_early_along_with_others_but_not_too_early(age_s: float) -> None:
    idle = entry(age_s, outbound=True)
    early_at = 1000.0 + ping_after_s(idle) * (1.0 - PING_EARLY_SHARE)
    assert look_at(idle, early_at - 0.1) == (Look.WAIT, 1000.0 + ping_after_s(idle))
    assert look_at(idle, early_at + 0.1)[0] is Look.PING


def test_the_side_that_was_dialled_is_never_early() -> None:
    idle = entry(500.0, outbound=False)
    due_at = 1000.0 + ping_after_s(idle)
    assert look_at(idle, due_at - 0.1) == (Look.WAIT, due_at) and look_at(idle, due_at)[0] is Look.PING


def test_one_missed_ping_is_a_suspicion_and_three_are_a_loss() -> None:
    silent = entry(500.0, outbound=True)
    took_s, effects = given_up_after_s(silent, 1033.0)
    pings = [effect.message for effect in effects if isinstance(effect, Send)]
    assert pings == [Ping(7)] * MISSES_MAX, "asked again with the same nonce"
    assert [effect.kind for effect in effects if isinstance(effect, Report)] == ["neighbour-suspected"]
    assert took_s == ANSWER_FIRST_S + 2.0 * ANSWER_FIRST_S + ANSWER_MAX_S, "patience doubles up to its bound"


def test_patience_is_learned_from_the_peer_itself() -> None:
    quick, slow = entry(500.0, outbound=True), entry(500.0, outbound=True)
    for peer, rtt_s in ((quick, 0.02), (slow, 5.0)):
        for number in range(20):
            ping(peer, number, 1000.0 + number)
            answered(peer, number, 1000.0 + number + rtt_s)
        peer.heard_at = 1020.0 + rtt_s
        assert peer.rtt_s == pytest.approx(rtt_s)
    assert answer_limit_s(quick) == ANSWER_MIN_S < answer_limit_s(slow) < ANSWER_MAX_S
    assert given_up_after_s(quick, 1100.0)[0] == ANSWER_MIN_S * 7.0


def test_a_late_answer_ends_the_suspicion_and_teaches_more_patience() -> None:
    peer = entry(500.0, outbound=True)
    ping(peer, 7, 1033.0)
    ping(peer, None, 1037.0)
    answered(peer, 7, 1040.0)
    assert peer.rtt_s == 7.0, "from the first time it was asked"
    answered(peer, 7, 1090.0)
    answered(peer, 8, 1090.0)
    assert peer.rtt_s == 7.0, "answered once, and not by a pong nobody asked for"


def test_while_parts_travel_nobody_is_suspected_early() -> None:
    busy = entry(500.0, outbound=True, pinged_at=1010.0)
    busy.bulk_at = 1000.0
    assert look_at(busy, 1020.0) == (Look.WAIT, 1000.0 + SILENCE_MAX_S)
    assert look_at(busy, 1000.0 + SILENCE_MAX_S)[0] is Look.MISS
    busy.bulk_at = 900.0
    assert look_at(busy, 1020.0)[0] is Look.MISS


def test_both_sides_ping_an_old_link_before_the_first_gives_it_up() -> None:
    first = ping_after_s(entry(9000.0, outbound=True))
    assert ping_after_s(entry(9000.0, outbound=False)) < first + given_up_after_s(entry(9000.0, True), 1033.0)[0]
