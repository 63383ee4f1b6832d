"""How long a swap's partner is waited for: dead fast ones not long, slow ones as long as they go on."""

import pytest

from p2pfed.core.events import LinkDown, MessageReceived, SetTimer, TimerKind
from p2pfed.core.messages import DeclineReason, SwapDecline, SwapOffer
from p2pfed.core.patience import (
    AVOIDED_TIMES_MAX,
    FLAPS_MAX,
    LOST_MIN_S,
    PARTNERS_KEPT,
    SERVE_STALL_S,
    STALL_MIN_S,
    STALL_S,
    Partners,
    Patience,
)
from p2pfed.net.sockets import DEAD_AFTER_S
from p2pfed.ports import PeerId
from tests.core.pair import TERMS, Pair

PEER = PeerId("p")
SLOW_PART_S = 33.0
"""256 KiB at 64 kbit/s."""
STALL_OF_A_RECEIVER_S = 20.0
TOLD_S = 4.0
"""Between the end of a link that carries nothing, as the transport tells it, and a new link."""


def fetched(partners: Partners, part_s: float, parts: int = 14, begun: float = 0.0) -> Patience:
    """A swap in which parts came and went at this pace."""
    patience = partners.begin(PEER, begun)
    patience.asked(begun)
    for number in range(1, parts + 1):
        patience.took(begun + number * part_s)
        patience.gave(begun + number * part_s)
    return patience


def test_a_stranger_is_given_the_most() -> None:
    patience = Partners().begin(PEER, 5.0)
    assert patience.until(serving=False) == 5.0 + STALL_S
    patience.held(10_000_000, 6.0)
    assert patience.until(serving=True) == 6.0 + SERVE_STALL_S


def test_a_fast_neighbour_is_given_the_least_in_the_next_swap_too() -> None:
    partners = Partners()
    patience = fetched(partners, 0.02)
    assert patience.until(serving=False) == patience.since + STALL_MIN_S
    again = partners.begin(PEER, 100.0)
    assert again.until(serving=False) == 100.0 + STALL_MIN_S
    again.held(1000, 101.0)
    assert again.until(serving=True) == 101.0 + STALL_MIN_S
    assert partners.begin(PeerId("other"), 100.0).until(serving=False) == 100.0 + STALL_S, "each by itself"


def test_a_stall_and_the_transports_own_end_of_a_dead_link_fit_into_the_least() -> None:
    assert STALL_MIN_S > STALL_OF_A_RECEIVER_S + TOLD_S and STALL_MIN_S > DEAD_AFTER_S + TOLD_S


@pytest.mark.parametrize("part_s", [0.02, 1.1, SLOW_PART_S])
def test_who_goes_on_is_never_given_up_not_even_after_a_stall(part_s: float) -> None:
    partners = Partners()
    for begun in (0.0, 1000.0):
        patience = fetched(partners, part_s, begun=begun)
        last = patience.since
        assert patience.until(serving=False) > last + part_s + STALL_OF_A_RECEIVER_S
        patience.held(3_600_000, last)
        assert patience.until(serving=True) > last + 2.0 * part_s + STALL_OF_A_RECEIVER_S, "its last two parts"


def test_a_neighbour_that_becomes_slow_is_a_stranger_after_one_failure() -> None:
    partners = Partners()
    patience = fetched(partners, 0.02)
    assert patience.until(serving=False) < patience.since + SLOW_PART_S, "this one swap is lost"
    assert patience.blame(serving=False, now=patience.since + STALL_MIN_S) > 0.0
    assert partners.begin(PEER, 900.0).until(serving=False) == 900.0 + STALL_S


@pytest.mark.parametrize(("lasted_s", "waits_s"), [(0.3, LOST_MIN_S), (20.0, 20.0), (400.0, STALL_S)])
def test_a_lost_link_is_waited_for_as_long_as_the_swap_had_lasted(lasted_s: float, waits_s: float) -> None:
    patience = Partners().begin(PEER, 100.0)
    patience.lost(100.0 + lasted_s)
    assert patience.until(serving=False) == pytest.approx(100.0 + lasted_s + waits_s)
    patience.lost(100.0 + lasted_s + 1.0)
    assert patience.until(serving=True) == pytest.approx(100.0 + lasted_s + waits_s), "it is lost once"
    assert patience.blame(serving=False, now=500.0) == 0.0, "the network is to blame"


@pytest.mark.parametrize("told", [True, False])
def test_links_that_come_and_go_do_not_hold_a_swap_for_ever(told: bool) -> None:
    patience, now, links = Partners().begin(PEER, 0.0), 0.0, 0
    while now < patience.until(serving=False):
        now += 5.0
        if told:
            patience.lost(now)
        now += 1.0
        patience.back(now)
        links += 1
    assert FLAPS_MAX <= links <= FLAPS_MAX + 1 + STALL_S / 6.0
    patience.took(now)
    patience.lost(now)
    assert patience.until(serving=False) > now, "with progress the count begins anew"


def test_times_across_a_lost_link_are_not_learned() -> None:
    partners = Partners()
    patience = fetched(partners, 0.02)
    patience.lost(10.0)
    patience.back(60.0)
    patience.asked(60.0)
    patience.took(60.1)
    patience.gave(60.1)
    assert patience.until(serving=False) == 60.1 + STALL_MIN_S


def test_who_stalls_again_and_again_is_left_alone_for_longer_each_time() -> None:
    partners, now, rests = Partners(), 0.0, []
    for _ in range(8):
        patience = partners.begin(PEER, now)
        now = patience.until(serving=False)
        rests.append(patience.blame(serving=False, now=now))
        assert partners.avoided_s(PEER, now) == rests[-1]
        now += rests[-1]
        assert partners.avoided_s(PEER, now) == 0.0
    assert rests[:3] == [STALL_S, 2.0 * STALL_S, 4.0 * STALL_S] and rests[-1] == AVOIDED_TIMES_MAX * STALL_S
    partners.begin(PEER, now).rewarded()
    assert partners.begin(PEER, now).blame(serving=False, now=now + 10.0) == 10.0


def test_neighbours_of_long_ago_are_forgotten() -> None:
    partners = Partners()
    fetched(partners, 0.02)
    for number in range(PARTNERS_KEPT):
        partners.begin(PeerId(str(number)), 1.0)
    assert len(partners) == PARTNERS_KEPT
    assert partners.begin(PEER, 2.0).until(serving=False) == 2.0 + STALL_S


# In a swap


def stalled(pair: Pair, seconds: float) -> None:
    """Time passes at `a` alone."""
    end = pair.now + seconds
    while pair.now < end:
        pair.now += 0.5
        pair.a.fire(pair.now, TimerKind.SWAP_STALL)


def test_a_partner_that_falls_silent_is_given_up_and_its_offers_are_declined_for_a_while() -> None:
    pair = Pair().start()
    pair.a.trained(pair.now)
    pair.deliver(2)
    pair.a.outgoing.clear()
    stalled(pair, STALL_S + 1.0)
    assert pair.a.counts["aborted"] == 1 and pair.a.state.exchange.swap is None
    pair.a.effects.clear()
    pair.a.handle(MessageReceived(pair.link, SwapOffer(99, pair.b.publish(), TERMS)), pair.now)
    decline = next(message for message in pair.a.sent if isinstance(message, SwapDecline))
    assert decline.reason is DeclineReason.BUSY and 0.0 < decline.retry_after_s <= STALL_S
    pair.now += STALL_S
    pair.a.handle(MessageReceived(pair.link, SwapOffer(100, pair.b.publish(), TERMS)), pair.now)
    assert pair.a.state.exchange.swap is not None


def test_after_a_swap_in_no_time_a_silent_partner_is_given_up_sooner() -> None:
    pair = Pair().start()
    pair.a.trained(pair.now)
    pair.deliver()
    assert pair.a.counts["finished"] == 1
    pair.a.mixer.values[0] += 1.0
    pair.a.trained(pair.now)
    pair.deliver(2)
    stalled(pair, STALL_MIN_S + 1.0)
    assert pair.a.counts["aborted"] == 1


def test_a_lost_partner_is_given_up_within_seconds_and_the_old_timer_is_stale() -> None:
    pair = Pair().start()
    pair.a.trained(pair.now)
    pair.deliver(2)
    pair.now += 0.5
    pair.a.handle(LinkDown(pair.link, "gone"), pair.now)
    pair.up = False
    stalled(pair, LOST_MIN_S + 0.5)
    assert pair.a.counts["aborted"] == 1
    before = len(pair.a.timers)
    stalled(pair, STALL_S)
    assert not any(isinstance(effect, SetTimer) and effect.at > pair.now for effect in pair.a.effects[-5:])
    assert len(pair.a.timers) <= before
