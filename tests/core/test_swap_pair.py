"""The swap between two peers, message by message: both mix or neither does, or somebody counted it."""

from collections import deque

import pytest

from p2pfed.core import patience
from p2pfed.core.events import MessageReceived, Mix, StopAsked, TimerKind
from p2pfed.core.exchange import Swap
from p2pfed.core.messages import (
    DeclineReason,
    Message,
    Part,
    PartAsk,
    PartMissing,
    SwapAbort,
    SwapAccept,
    SwapCommit,
    SwapDecline,
    SwapDone,
    SwapReady,
)
from p2pfed.core.patience import SERVE_STALL_S, STALL_S
from p2pfed.core.transfer import WINDOW_FIRST, WINDOW_MIN
from p2pfed.ports import Encoding
from tests.core.pair import PART_BYTES, TERMS, Pair, Side

SUM = [6.0, 8.0, 10.0, -4.0]
SWAP_MESSAGES = 11
"""Offer, accept, an ask for and two parts each way, ready each way, commit, done: what a whole swap delivers."""
SLOW_PART_S = 33.0
"""256 KiB at 64 kbit/s."""


def mixes(pair: Pair) -> tuple[int, int]:
    return len(pair.a.mixed), len(pair.b.mixed)


def balanced(side: Side) -> bool:
    """Every swap begun or answered ended in exactly one way, or is under way."""
    counts = side.state.statistics
    ended = counts.finished + counts.declined + counts.aborted
    return counts.begun + counts.answered == ended + (side.state.exchange.swap is not None)


def test_both_mix_and_their_sum_is_kept() -> None:
    pair = Pair().start()
    before = len(pair.delivered)
    pair.a.trained(pair.now)
    pair.deliver()
    assert pair.a.mixer.values == pair.b.mixer.values == [3.0, 4.0, 5.0, -2.0]
    assert pair.a.mixed == pair.b.mixed and mixes(pair) == (1, 1)
    assert pair.delivered[before:].count("Part") == 4
    assert len(pair.delivered) - before >= SWAP_MESSAGES
    assert pair.a.counts["finished"] == pair.b.counts["finished"] == 1
    assert pair.a.counts["half_done"] == pair.b.counts["half_done"] == 0
    assert not pair.a.state.exchange.busy and not pair.b.state.exchange.busy
    assert pair.a.state.statistics.consensus_distance() is not None
    assert pair.a.inbox == pair.b.inbox == {}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("opener", ["a", "b"])
@pytest.mark.parametrize("delivered", range(SWAP_MESSAGES + 3))
def test_a_break_at_any_message_and_a_new_link_end_in_one_whole_swap(delivered: int, opener: str, seed: int) -> None:
    pair = Pair(seed=seed).start()
    pair.a.trained(pair.now)
    pair.deliver(delivered)
    pair.break_link()
    pair.now += 2.0
    pair.relink(opener)
    pair.deliver()
    assert mixes(pair) == (1, 1)
    assert pair.sums == SUM
    for side in pair.sides:
        assert side.counts["half_done"] == side.counts["aborted"] == 0, "a swap that both mixed is no half-done one"
        assert balanced(side) and not side.state.exchange.busy


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("delivered", range(SWAP_MESSAGES + 3))
def test_a_break_for_good_leaves_both_or_neither_or_a_counted_half(delivered: int, seed: int) -> None:
    pair = Pair(seed=seed).start()
    pair.a.trained(pair.now)
    pair.deliver(delivered)
    pair.break_link()
    pair.wait(STALL_S + SERVE_STALL_S)
    assert mixes(pair) in ((0, 0), (1, 1)) or pair.a.counts["half_done"] == 1
    for side in pair.sides:
        assert side.state.exchange.swap is None and balanced(side)
        assert side.inbox == {}


@pytest.mark.parametrize("lost", range(SWAP_MESSAGES))
def test_a_message_lost_on_a_link_that_goes_on_ends_within_the_stall_bound(lost: int) -> None:
    pair = Pair().start()
    pair.a.trained(pair.now)
    pair.deliver(lost)
    for side in pair.sides:
        if side.outgoing:
            side.outgoing.popleft()
            break
    pair.wait(2.0 * SERVE_STALL_S + STALL_S)
    assert all(balanced(side) for side in pair.sides)
    both = mixes(pair)[0] == mixes(pair)[1]
    assert both or pair.a.counts["half_done"] == 1
    pair.a.trained(pair.now)
    pair.wait(2.0)
    assert mixes(pair)[0] >= 1 and mixes(pair)[1] >= 1, "the next swap works"


@pytest.mark.parametrize("seed", range(8))
def test_crossing_offers_become_one_swap(seed: int) -> None:
    pair = Pair(seed=seed).start()
    for side in pair.sides:
        side.trained(pair.now)
    pair.deliver()
    assert mixes(pair) == (1, 1) and pair.sums == SUM
    assert all(balanced(side) for side in pair.sides)
    assert pair.b.counts["begun"] == 1 and pair.b.counts["declined"] == 1, "b yielded its own offer to a's"


@pytest.mark.parametrize("seed", range(4))
def test_crossing_offers_lost_with_their_link_cross_again(seed: int) -> None:
    pair = Pair(seed=seed).start()
    for side in pair.sides:
        side.trained(pair.now)
    pair.break_link()
    pair.relink()
    pair.deliver()
    assert mixes(pair) == (1, 1) and pair.sums == SUM


def test_a_busy_partner_declines_and_is_left_alone_for_a_while() -> None:
    pair = Pair().start()
    pair.b.slow = True
    pair.a.trained(pair.now)
    pair.deliver()
    assert pair.b.waiting, "b has not applied its mix yet"
    pair.a.trained(pair.now)
    pair.deliver()
    declines = [message for message in pair.b.sent if isinstance(message, SwapDecline)]
    assert [message.reason for message in declines] == [DeclineReason.BUSY]
    assert pair.a.counts["declined"] == 1 and pair.a.state.exchange.swap is None
    pair.wait(4.0, step_s=0.1)
    assert 2 < pair.a.counts["begun"] <= 6, "it rests, twice as long after each refusal"
    pair.b.slow = False
    pair.b.mix_now(pair.now)
    pair.wait(8.0, step_s=0.3)
    assert pair.a.counts["finished"] == pair.b.counts["finished"] == 2, "and is asked again"


def test_never_two_swaps_at_once_while_a_mix_waits() -> None:
    pair = Pair().start()
    pair.a.slow = pair.b.slow = True
    pair.a.trained(pair.now)
    pair.deliver()
    for side in pair.sides:
        side.trained(pair.now)
    pair.deliver()
    assert [isinstance(effect, Mix) for effect in pair.a.effects].count(True) == 1
    assert pair.a.counts["begun"] == 1 and pair.b.counts["begun"] == 0


def test_an_adapter_of_another_size_is_declined_before_any_part() -> None:
    pair = Pair(b=Side("b", [1.0] * 6)).start()
    pair.a.trained(pair.now)
    pair.deliver()
    declines = [message for message in pair.b.sent if isinstance(message, SwapDecline)]
    assert [message.reason for message in declines] == [DeclineReason.SIZE]
    assert "Part" not in pair.delivered and mixes(pair) == (0, 0)
    assert "swap-size" in pair.a.reports and "swap-size" in pair.b.reports


def test_a_version_that_the_learner_refuses_drops_its_peer() -> None:
    pair = Pair().start()
    pair.b.problem = "holds a value that is not finite"
    pair.a.trained(pair.now)
    pair.deliver()
    assert mixes(pair) == (0, 0)
    assert "peer-fault" in pair.b.reports and pair.b.closed == [pair.link]
    assert pair.b.inbox == {}


@pytest.mark.parametrize("delivered", range(SWAP_MESSAGES))
@pytest.mark.parametrize("noticed", [True, False])
def test_a_partner_that_restarts_frees_the_other(delivered: int, noticed: bool) -> None:
    """Whether the old link was seen to break, or the new one came first and the old one had to be doubted."""
    pair = Pair().start()
    pair.a.trained(pair.now)
    pair.deliver(delivered)
    again = Side("b", pair.b.mixer.values, instance=2)
    if noticed:
        pair.break_link()
    pair.b = again
    pair.a.outgoing.clear()
    again.start(pair.now)
    pair.relink("b")
    pair.wait(6.0)
    assert pair.a.state.exchange.swap is None and balanced(pair.a)
    assert pair.a.counts["half_done"] == (len(pair.a.mixed) if "SwapDone" not in pair.delivered else 0)
    before = [side.counts["finished"] for side in pair.sides]
    for _ in range(2):  # the first makes up for a swap that b has just answered
        pair.b.trained(pair.now)
        pair.wait(3.0)
    assert all(side.counts["finished"] > count for side, count in zip(pair.sides, before, strict=True)), "they go on"


def serving_pair() -> tuple[Pair, Swap]:
    """`a` holds all of `b`; the parts that `b` has asked for wait in `a.outgoing`, everything else got through."""
    pair = Pair(Side("a", [1.0] * 30), Side("b", [2.0] * 30)).start()
    pair.a.trained(pair.now)
    parts: deque[tuple[int, Message]] = deque()
    while pair.a.outgoing or pair.b.outgoing:
        parts += [item for item in pair.a.outgoing if isinstance(item[1], Part)]
        pair.a.outgoing = deque(item for item in pair.a.outgoing if not isinstance(item[1], Part))
        pair.deliver(1)
    pair.a.outgoing = parts
    swap = pair.a.state.exchange.swap
    assert swap is not None and swap.admitted and len(parts) == WINDOW_FIRST
    return pair, swap


def test_a_slow_download_at_the_partner_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first to hold everything waits as long as the other asks for new parts, and not much longer."""
    monkeypatch.setattr(patience, "SERVE_RATE_MIN", patience.SERVE_RATE_MIN * PART_BYTES / 262_144)
    pair, swap = serving_pair()
    while len(pair.a.outgoing) >= WINDOW_MIN:
        pair.now += SLOW_PART_S
        pair.b.handle(MessageReceived(pair.link, pair.a.outgoing.popleft()[1]), pair.now)
        if pair.b.outgoing:
            pair.a.handle(MessageReceived(pair.link, pair.b.outgoing.popleft()[1]), pair.now)
        pair.a.fire(pair.now, TimerKind.SWAP_STALL)
        assert pair.a.state.exchange.swap is swap
    assert pair.now > 2.0 * SERVE_STALL_S, "it took long"
    asked = pair.now
    for _ in range(20):
        pair.now += STALL_S / 5.0
        pair.a.handle(MessageReceived(pair.link, PartAsk(swap.own.digest, (0,))), pair.now)
        pair.a.fire(pair.now, TimerKind.SWAP_STALL)
        if pair.a.state.exchange.swap is None:
            break
    assert pair.a.state.exchange.swap is None and pair.now - asked <= SERVE_STALL_S, "asking for one part again is none"


def test_a_liar_that_asks_for_one_more_part_in_the_last_moment_does_not_hold_a_node_for_long() -> None:
    pair, swap = serving_pair()
    for index in range(WINDOW_FIRST, len(swap.own.parts)):
        pair.now += SERVE_STALL_S - 1.0
        pair.a.handle(MessageReceived(pair.link, PartAsk(swap.own.digest, (index,))), pair.now)
        pair.a.fire(pair.now, TimerKind.SWAP_STALL)
        if pair.a.state.exchange.swap is None:
            break
    assert pair.a.counts["aborted"] == 1 and pair.now < 2.0 * SERVE_STALL_S


@pytest.mark.parametrize("message", ["ready", "part"])
def test_repeating_a_message_is_no_progress(message: str) -> None:
    """Else a liar could hold a node's only swap for ever."""
    pair = Pair().start()
    pair.a.trained(pair.now)
    pair.deliver(5)
    swap = pair.a.state.exchange.swap
    assert swap is not None
    payload = pair.b.mixer.export(Encoding.FLOAT32)
    part = Part(swap.fetch.version.digest if swap.fetch else bytes(32), 0, payload[:PART_BYTES])
    pair.up = False
    said = SwapReady(swap.number) if message == "ready" else part
    while pair.now < STALL_S + 5.0:
        pair.a.handle(MessageReceived(pair.link, said), pair.now)
        pair.a.fire(pair.now)
        pair.now += 1.0
    assert pair.a.counts["aborted"] == 1 and pair.a.state.exchange.swap != swap


def test_a_stop_before_the_acknowledgement_is_counted() -> None:
    pair = Pair().start()
    pair.a.trained(pair.now)
    while not pair.a.mixed:
        pair.deliver(1)
    pair.a.handle(StopAsked("test"), pair.now)
    assert pair.a.counts["half_done"] == 1 and pair.a.state.exchange.swap is None
    pair.deliver()
    assert mixes(pair) == (1, 1), "the commit went out before the goodbye"
    assert pair.b.state.membership.links == {}


def test_a_partner_that_stops_frees_the_other_at_once() -> None:
    pair = Pair().start()
    pair.a.trained(pair.now)
    pair.deliver(4)
    pair.b.handle(StopAsked("test"), pair.now)
    pair.deliver()
    assert pair.a.state.exchange.swap is None and mixes(pair) == (0, 0)
    assert pair.a.counts["aborted"] == 1 and pair.b.counts["aborted"] == 1


def test_a_late_word_of_an_older_version_does_not_end_a_swap() -> None:
    pair = Pair().start()
    pair.a.trained(pair.now)
    pair.deliver(2)
    pair.a.handle(MessageReceived(pair.link, PartMissing(bytes(32))), pair.now)
    assert pair.a.state.exchange.swap is not None
    swap = pair.a.state.exchange.swap
    assert swap.fetch is not None
    pair.a.handle(MessageReceived(pair.link, PartMissing(swap.fetch.version.digest)), pair.now)
    assert pair.a.state.exchange.swap is None, "and it is not tried again at once"
    assert pair.a.counts["aborted"] == 1


def test_unknown_swap_numbers_change_nothing() -> None:
    pair = Pair().start()
    pair.a.trained(pair.now)
    pair.deliver(3)
    swap = pair.a.state.exchange.swap
    assert swap is not None
    other = swap.number + 1
    for message in (SwapAccept(other, swap.own, TERMS), SwapReady(other), SwapCommit(other), SwapDone(other)):
        pair.a.handle(MessageReceived(pair.link, message), pair.now)
    for message in (SwapAbort(other, "x"), SwapDecline(other, DeclineReason.BUSY, 0.0)):
        pair.a.handle(MessageReceived(pair.link, message), pair.now)
    pair.deliver()
    assert mixes(pair) == (1, 1) and pair.sums == SUM


def test_a_forged_part_drops_its_sender_and_changes_nothing() -> None:
    pair = Pair().start()
    before = list(pair.a.mixer.values)
    pair.a.trained(pair.now)
    pair.deliver(4)
    swap = pair.a.state.exchange.swap
    assert swap is not None and swap.fetch is not None
    pair.a.handle(MessageReceived(pair.link, Part(swap.fetch.version.digest, 0, bytes(PART_BYTES))), pair.now)
    assert pair.a.closed == [pair.link] and "peer-fault" in pair.a.reports
    assert pair.a.counts["faults"] == 1 and pair.a.mixer.values == before
    assert pair.a.state.exchange.swap is None and pair.a.inbox == {}


def test_stall_timers_do_not_pile_up() -> None:
    pair = Pair().start()
    for _ in range(20):
        pair.a.trained(pair.now)
        pair.deliver()
        pair.now += 0.1
    assert pair.a.counts["finished"] == 20
    kinds = [timer.timer.kind for timer in pair.a.timers]
    assert kinds.count(TimerKind.SWAP_STALL) == 1
    kinds = [timer.timer.kind for timer in pair.b.timers]
    assert kinds.count(TimerKind.SWAP_STALL) == 1


def test_a_link_that_carried_a_swap_is_dialled_again_soon_however_short_it_lived() -> None:
    """Else one that dies every second is dialled ever more rarely, and no swap comes to its end over it."""
    pair = Pair(Side("a", [1.0] * 40), Side("b", [2.0] * 40)).start()
    pair.a.trained(pair.now)
    for _ in range(6):
        pair.deliver(10)
        pair.now += 0.5
        pair.break_link()
        entry = pair.a.state.membership.view.get(pair.b.peer)
        assert entry is not None and entry.failures == 0 and entry.dial_at <= pair.now + 1.0
        pair.now += 1.0
        pair.relink()
    pair.deliver()
    assert pair.a.counts["finished"] == pair.b.counts["finished"] == 1
