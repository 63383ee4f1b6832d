"""What a swap does besides the plain mean: adopting, staying, weights, encodings, budgets, the schedule."""

import pytest

from p2pfed.core.events import Adopt, MessageReceived, Mix, Publish
from p2pfed.core.messages import DeclineReason, SwapDecline, SwapOffer, VersionAsk, VersionTold
from p2pfed.core.mixing import AWAY_MIXES
from p2pfed.core.peer import PeerSettings
from p2pfed.ports import Encoding, PeerId
from tests.core.pair import TERMS, Pair, Side


def old_hand(name: str = "b") -> Side:
    """A node that has mixed long since, in this run too."""
    side = Side(name, [5.0, 6.0, 7.0, -8.0])
    for _ in range(AWAY_MIXES):
        payload = side.mixer.export(Encoding.FLOAT32)
        side.mixer.mix(payload, payload, Encoding.FLOAT32, 0.5)
    side.state.exchange.settled = True
    return side


@pytest.mark.parametrize("newcomer_offers", [True, False])
def test_a_newcomer_adopts_what_an_old_hand_has_and_the_old_hand_fetches_nothing(newcomer_offers: bool) -> None:
    pair = Pair(b=old_hand()).start()
    known = list(pair.b.mixer.values)
    (pair.a if newcomer_offers else pair.b).trained(pair.now)
    pair.deliver()
    assert pair.a.mixer.values == known == pair.b.mixer.values
    assert pair.a.mixer.progress().mixes == pair.b.mixer.progress().mixes == AWAY_MIXES
    assert [type(effect) for effect in pair.a.effects if isinstance(effect, Mix | Adopt)] == [Adopt]
    assert not any(isinstance(effect, Mix | Adopt) for effect in pair.b.effects)
    assert pair.delivered.count("Part") == 2, "one way only"
    assert pair.a.counts["adopted"] == 1 and pair.a.counts["finished"] == pair.b.counts["finished"] == 1
    assert "adapter-adopted" in pair.a.reports and pair.a.state.exchange.settled


def test_a_short_absence_is_no_reason_to_forget() -> None:
    pair = Pair(b=old_hand()).start()
    for _ in range(AWAY_MIXES - 1):  # a's checkpoint brings almost as many mixes as b has
        payload = pair.a.mixer.export(Encoding.FLOAT32)
        pair.a.mixer.mix(payload, payload, Encoding.FLOAT32, 0.5)
    pair.a.trained(pair.now)
    pair.a.trained(pair.now)
    pair.deliver()
    assert pair.a.mixer.values == pair.b.mixer.values == [3.0, 4.0, 5.0, -2.0]


def test_two_newcomers_mix_whatever_their_counts() -> None:
    pair = Pair(b=old_hand())
    pair.b.state.exchange.settled = False
    pair.start().a.trained(pair.now)
    pair.deliver()
    assert pair.a.mixer.values == pair.b.mixer.values == [3.0, 4.0, 5.0, -2.0]


@pytest.mark.parametrize("delivered", range(12))
def test_a_break_at_any_message_of_an_adoption_ends_in_one(delivered: int) -> None:
    pair = Pair(b=old_hand()).start()
    known = list(pair.b.mixer.values)
    pair.a.trained(pair.now)
    pair.deliver(delivered)
    pair.break_link()
    pair.relink()
    pair.deliver()
    assert pair.a.mixer.values == pair.b.mixer.values == known
    assert pair.a.counts["adopted"] == 1 and pair.b.counts["adopted"] == 0


def test_equal_versions_move_no_part_and_settle_both() -> None:
    pair = Pair(b=Side("b", [1.0, 2.0, 3.0, 4.0])).start(eager=True)
    assert "Part" not in pair.delivered and "PartAsk" not in pair.delivered
    assert pair.a.counts["finished"] == pair.b.counts["finished"] == 1
    assert pair.a.state.exchange.settled and pair.b.state.exchange.settled
    assert pair.a.mixed == pair.b.mixed == []


def test_weights_keep_the_weighted_sum_and_meet_at_the_weighted_mean() -> None:
    sides = [
        Side(name, values, settings=PeerSettings(weight=weight))
        for name, values, weight in (("a", [1.0, 2.0, 3.0, 4.0], 3), ("b", [5.0, 6.0, 7.0, -8.0], 1))
    ]
    pair = Pair(*sides).start()
    pair.a.trained(pair.now)
    pair.deliver()
    assert pair.a.mixer.values == pair.b.mixer.values == [2.0, 3.0, 4.0, 1.0]


def test_what_is_mixed_is_the_difference_of_what_was_sent() -> None:
    """Steps made while a swap is under way stay whole, at both sides, and are not counted into the difference."""
    pair = Pair().start()
    pair.a.trained(pair.now)
    pair.deliver(4)
    pair.a.mixer.values = [value + 10.0 for value in pair.a.mixer.values]
    pair.b.mixer.values = [value - 2.0 for value in pair.b.mixer.values]
    pair.deliver()
    assert pair.a.mixer.values == [13.0, 14.0, 15.0, 8.0]
    assert pair.b.mixer.values == [1.0, 2.0, 3.0, -4.0]


@pytest.mark.parametrize("wishes", [(Encoding.INT4, Encoding.FLOAT32), (Encoding.FLOAT16, Encoding.INT8)])
def test_the_coarser_wish_of_both_ends_counts(wishes: tuple[Encoding, Encoding]) -> None:
    sides = [
        Side(name, values, encoding=wish)
        for (name, values), wish in zip(
            (("a", [1.0, 2.0, 3.0, 4.0]), ("b", [5.0, 6.0, 7.0, -8.0])), wishes, strict=True
        )
    ]
    pair = Pair(*sides).start()
    coarser = min(wishes, key=list(Encoding).index)
    pair.a.trained(pair.now)
    pair.deliver()
    pair.wait(2.0, step_s=0.1)
    offers = [message for side in pair.sides for message in side.sent if isinstance(message, SwapOffer)]
    assert offers and all(offer.version.encoding is coarser for offer in offers)
    asked = [effect.encoding for side in pair.sides for effect in side.effects if isinstance(effect, Publish)]
    assert asked == [coarser], "the one that publishes in a finer encoding asks its learner, once"
    assert pair.sums == pytest.approx([6.0, 8.0, 10.0, -4.0], abs=1e-12), "the sum is kept in any encoding"
    assert pair.a.counts["finished"] == pair.b.counts["finished"] == 1


def test_an_offer_in_another_encoding_than_the_links_is_a_fault() -> None:
    pair = Pair(Side("a", [1.0], encoding=Encoding.INT8), Side("b", [2.0], encoding=Encoding.INT8)).start()
    version = pair.b.publish(Encoding.FLOAT32)
    pair.a.handle(MessageReceived(pair.link, SwapOffer(3, version, TERMS)), pair.now)
    assert "peer-fault" in pair.a.reports and pair.a.closed == [pair.link]


def test_an_observer_is_told_the_version_in_the_encoding_it_asks_for() -> None:
    pair = Pair(Side("a", [1.0, 2.0], encoding=Encoding.INT4)).start()
    for _ in range(2):
        pair.a.handle(MessageReceived(pair.link, VersionAsk(Encoding.FLOAT32)), pair.now)
    told = [message.version for message in pair.a.sent if isinstance(message, VersionTold)]
    assert [version.encoding for version in told if version is not None] == [Encoding.FLOAT32] * 2
    assert [effect for effect in pair.a.effects if isinstance(effect, Publish)] == [Publish(Encoding.FLOAT32)]


def test_a_days_bytes_are_an_end_to_swaps_and_the_asker_is_told_until_when() -> None:
    size = 16
    frugal = Side("b", [5.0, 6.0, 7.0, -8.0], settings=PeerSettings(swap_day_bytes=4 * size))
    pair = Pair(b=frugal).start()
    for _ in range(6):
        pair.a.mixer.values = [value + 1.0 for value in pair.a.mixer.values]  # something new each time
        pair.a.trained(pair.now)
        pair.wait(70.0)
    moved = 2 * size * pair.b.counts["finished"]
    assert 0 < moved <= 4 * size * (1 + pair.now / 86_400.0)
    declines = [message for message in pair.b.sent if isinstance(message, SwapDecline)]
    assert declines and {message.reason for message in declines} == {DeclineReason.BUDGET}
    assert all(message.retry_after_s > 60.0 for message in declines)


def test_fixed_members_swap_with_whom_the_schedule_names() -> None:
    members = (PeerId("a"), PeerId("b"))
    sides = [
        Side(name, [float(number)] * 4, settings=PeerSettings(members=members, schedule_seed="s"))
        for number, name in enumerate("ab")
    ]
    pair = Pair(*sides).start()
    pair.a.trained(pair.now)
    pair.deliver()
    assert pair.a.mixer.values == pair.b.mixer.values == [0.5] * 4
