"""Sampler, library, fetch, view, compatibility, statistics, mixing: each by itself."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfed.core.compatibility import VALUE_CHARS_SHOWN, difference
from p2pfed.core.events import FoundBy, KeepPart, Publish, Retire, Send
from p2pfed.core.library import PIN_S, PINS_MAX, Library
from p2pfed.core.messages import ADDRESSES_MAX, Part, PartAsk, Role, Version
from p2pfed.core.mixing import AWAY_MIXES, Outcome, outcome_of, weight_of
from p2pfed.core.sampling import LAST_PATIENCE, REST_MAX_S, SCHEDULE_PATIENCE, Sampler
from p2pfed.core.statistics import DISTANCES_KEPT, SwapStatistics
from p2pfed.core.transfer import WINDOW, Fetch
from p2pfed.core.version import part_of, version_of
from p2pfed.core.view import VIEW_MAX, View
from p2pfed.errors import RemoteError
from p2pfed.ports import Encoding, PeerId
from tests.core.pair import TERMS, hello

PEERS = [PeerId(name) for name in "abcdef"]


def version(number: int, size: int = 40) -> Version:
    return version_of(number.to_bytes(2, "big") * (size // 2), Encoding.FLOAT32, number, number, 0, 16)


# Sampler


@given(st.integers(0, 1000), st.integers(1, 6))
@settings(derandomize=True)
def test_every_neighbour_is_drawn_before_any_comes_twice(seed: int, count: int) -> None:
    sampler, neighbours = Sampler(random.Random(seed)), PEERS[:count]
    for _ in range(4):
        assert sorted(str(sampler.draw(neighbours, 0.0)) for _ in neighbours) == sorted(neighbours)


@given(st.integers(0, 1000), st.lists(st.sampled_from(["draw", "busy", "join", "leave"]), max_size=60))
@settings(max_examples=150, derandomize=True)
def test_nobody_is_starved(seed: int, history: list[str]) -> None:
    """A neighbour that stays and does not rest gets its turn within two rounds of draws."""
    rng = random.Random(seed)
    sampler, neighbours, now = Sampler(rng), PEERS[:3], 0.0
    waited = dict.fromkeys(PEERS, 0)
    rests = dict.fromkeys(PEERS, 0.0)
    for act in history:
        now += 1.0
        if act == "join":
            neighbours = list(dict.fromkeys([*neighbours, rng.choice(PEERS)]))
        elif act == "leave" and len(neighbours) > 1:
            left = neighbours.pop(rng.randrange(len(neighbours)))
            waited[left] = 0
        drawn = sampler.draw(neighbours, now)
        assert drawn is None or (drawn in neighbours and rests[drawn] <= now)
        assert (drawn is None) == all(rests[peer] > now for peer in neighbours)
        if drawn is not None and act == "busy":
            rests[drawn] = now + 3.0
            sampler.rest(drawn, rests[drawn])
        for peer in neighbours:
            waited[peer] = 0 if peer == drawn or rests[peer] > now else waited[peer] + 1
            assert waited[peer] <= 3 * len(PEERS)


def test_who_was_busy_comes_next() -> None:
    sampler = Sampler(random.Random(1))
    busy = sampler.draw(PEERS, 0.0)
    assert busy is not None
    sampler.rest(busy, 2.0)
    assert sampler.draw(PEERS, 1.0) != busy
    assert sampler.draw(PEERS, 2.0) == busy
    sampler.rest(busy, 3.0)
    assert sampler.draw([busy], 2.5) is None


@pytest.mark.parametrize("usual_s", [0.0, 5.0, 40.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_scheduled_partner_in_its_first_slow_swap_is_waited_for(usual_s: float, seed: int) -> None:
    """It says 0.2 s each time, as a node does that does not know yet how long its swaps take."""
    sampler, now, asked = Sampler(random.Random(seed)), 0.0, 0
    while (drawn := sampler.draw(PEERS, now, PEERS[0], usual_s)) in (None, PEERS[0]):
        if drawn is not None:
            sampler.refused(drawn, 0.2, now)
            asked += 1
        woken = sampler.wakes_at(PEERS)
        assert woken is not None and now < 10.0 * max(usual_s, 1.0), "not for ever"
        now = min(woken, now + 1.0)
    assert asked >= SCHEDULE_PATIENCE and now >= SCHEDULE_PATIENCE * usual_s
    sampler.swapped(PEERS[0])
    sampler.refused(PEERS[0], 0.2, now)
    assert sampler.draw(PEERS, now, PEERS[0], usual_s) is None, "patience is whole again after a swap"


def test_a_scheduled_partner_without_bytes_for_today_is_passed_over() -> None:
    sampler = Sampler(random.Random(1))
    sampler.refused(PEERS[0], 60.0 * REST_MAX_S, 0.0)
    assert sampler.draw(PEERS, 0.1, PEERS[0], 5.0) in PEERS[1:]
    sampler.rest(PEERS[1], 1.0)
    assert sampler.draw(PEERS, 0.1, PEERS[1], 5.0) is None, "a short rest is waited for"


def test_the_last_partner_is_not_drawn_while_another_is_free_soon() -> None:
    sampler, (last, other) = Sampler(random.Random(1)), PEERS[:2]
    for now in range(20):
        sampler.swapped(last)
        assert sampler.draw([last, other], float(now)) == other
    sampler.rest(other, 21.0)
    assert sampler.draw([last, other], 20.0) is None and sampler.wakes_at([last, other]) == 21.0
    assert sampler.draw([last], 20.0) == last, "alone it is as good as ever"


def test_the_last_partner_is_drawn_where_the_others_refuse_again_and_again() -> None:
    sampler, (last, other), now = Sampler(random.Random(1)), PEERS[:2], 0.0
    sampler.swapped(last)
    for refusal in range(1, LAST_PATIENCE + 1):
        assert sampler.draw([last, other], now) == other
        sampler.refused(other, 5.0, now)
        assert sampler.draw([last, other], now) == (last if refusal == LAST_PATIENCE else None)
        now += 60.0
    sampler.swapped(last)
    sampler.swapped(other)
    sampler.refused(last, 60.0 * REST_MAX_S, now)
    assert sampler.draw([last, other], now) == other, "the last one rests for an hour"


# Library


def test_a_version_is_kept_while_somebody_needs_it() -> None:
    library = Library()
    old, new, newer = version(1), version(2), version(3)
    assert library.renew(old, None, 0.0) == []
    assert library.renew(new, old.digest, 1.0) == [], "in a swap"
    assert library.serves(old.digest, (0, 1, 2)) and not library.serves(old.digest, (3,))
    assert not library.serves(bytes(32), (0,))
    library.pin(new.digest, 1.0)
    assert library.renew(newer, None, 2.0) == [Retire(old.digest)]
    assert library.serves(new.digest, (0,)) and library.current(Encoding.FLOAT32) == newer
    assert library.renew(newer, None, 2.0 + PIN_S) == [Retire(new.digest)]


def test_pins_are_few_and_expired_ones_make_room() -> None:
    library = Library()
    versions = [version(number) for number in range(PINS_MAX + 1)]
    for one in versions[:-1]:
        library.renew(one, None, 0.0)
        library.pin(one.digest, 0.0)
    library.renew(versions[-1], None, 0.0)
    library.pin(versions[-1].digest, 1.0)
    assert library.pins == PINS_MAX
    assert Retire(versions[-1].digest) in library.renew(version(99), None, 2.0)
    library = Library()
    for one in versions[:-1]:
        library.renew(one, None, 0.0)
        library.pin(one.digest, 0.0)
    library.renew(versions[-1], None, 0.0)
    library.pin(versions[-1].digest, PIN_S + 1.0)
    assert Retire(versions[-1].digest) not in library.renew(version(99), None, PIN_S + 2.0)


# Fetch


@given(st.integers(1, 40), st.integers(0, 1000))
@settings(derandomize=True)
def test_a_fetch_keeps_its_window_and_ends_with_all(parts: int, seed: int) -> None:
    payload = random.Random(seed).randbytes(16 * parts - 7)
    fetch = Fetch(version_of(payload, Encoding.FLOAT32, 0, 0, 0, 16))
    rng, kept = random.Random(seed), {}
    now = 0.0
    effects = list(fetch.resume(1, now))
    waiting: list[int] = []
    link = 1
    while not fetch.complete:
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, PartAsk):
                assert effect.link == link
                waiting += effect.message.indexes
        assert len(dict.fromkeys(waiting)) == len(waiting) <= WINDOW
        if rng.random() < 0.1:
            waiting, link = [], link + 1  # the link broke: all in flight is lost
            effects = fetch.resume(link, now)
            continue
        now += rng.choice((0.0, 0.1, 30.0))
        index = waiting.pop(rng.randrange(len(waiting)))
        effects = fetch.on_part(link, Part(fetch.version.digest, index, part_of(payload, index, 16)), now)
        kept.update({effect.index: effect.data for effect in effects if isinstance(effect, KeepPart)})
    assert b"".join(kept[index] for index in range(parts)) == payload == payload[: fetch.version.size]
    assert len(kept) == parts


def test_a_part_of_the_wrong_length_or_content_is_a_lie() -> None:
    """A liar may announce the hash of bytes of any length: what is kept must fit all the same."""
    long = version_of(bytes(48), Encoding.FLOAT32, 0, 0, 0, 16)
    lying = replace(long, size=40)
    fetch = Fetch(lying)
    with pytest.raises(RemoteError, match="bytes"):
        fetch.on_part(1, Part(lying.digest, 2, bytes(16)), 0.0)
    with pytest.raises(RemoteError, match="hash"):
        fetch.on_part(1, Part(lying.digest, 0, b"x" * 16), 0.0)
    assert fetch.on_part(1, Part(lying.digest, 99, bytes(16)), 0.0) == [], "an index that is not missing is passed over"


# View


def test_a_flood_of_hearsay_evicts_hearsay_only() -> None:
    view = View(PeerId("m"), random.Random(1))
    linked = view.found(PeerId("linked"), ("/dns4/l/tcp/1",), FoundBy.INBOUND)
    once = view.found(PeerId("once"), ("/dns4/o/tcp/1",), FoundBy.PEERS)
    boot = view.found(PeerId("boot"), ("/dns4/b/tcp/1",), FoundBy.BOOTSTRAP)
    assert linked is not None and once is not None and boot is not None
    linked.link, once.linked_at = 1, 5.0
    for number in range(3 * VIEW_MAX):
        assert view.found(PeerId(f"x{number}"), (f"/dns4/{number}/tcp/1",), FoundBy.PEERS) is not None
    assert len(view) == VIEW_MAX
    assert all(view.get(PeerId(name)) is not None for name in ("linked", "once", "boot"))
    assert view.found(PeerId("m"), (), FoundBy.MDNS) is None, "oneself is no entry"


def met(view: View, names: str) -> None:
    """Linked once, the first longest ago."""
    for number, name in enumerate(names):
        entry = view.found(PeerId(name), ("/dns4/x/tcp/1",), FoundBy.INBOUND)
        assert entry is not None
        entry.linked_at, entry.heard_at = 1.0, float(number)


def known(view: View) -> str:
    return "".join(entry.peer for entry in view.entries())


def test_hearsay_pushes_out_a_peer_once_met_only_where_those_take_more_than_half() -> None:
    view = View(PeerId("m"), random.Random(1), size_max=4)
    met(view, "abcd")
    for name in "xyz":
        assert view.found(PeerId(name), (), FoundBy.PEERS) is not None
    assert known(view).startswith("cd") and len(view) == 4, "the longest unheard went, then hearsay for hearsay"


def test_who_shook_hands_finds_a_place_and_linked_peers_keep_theirs() -> None:
    view = View(PeerId("m"), random.Random(1), size_max=2)
    met(view, "ab")
    assert view.found(PeerId("c"), (), FoundBy.INBOUND) is not None and known(view) == "bc"
    for entry in view.entries():
        view.link(entry, 1, Role.NODE)
    assert view.found(PeerId("d"), (), FoundBy.INBOUND) is None


def test_addresses_are_few_and_the_newest_come_first() -> None:
    view = View(PeerId("m"), random.Random(1))
    for number in range(ADDRESSES_MAX + 5):
        entry = view.found(PeerId("p"), (f"/dns4/{number}/tcp/1",), FoundBy.MDNS)
    assert entry is not None
    assert len(entry.addresses) == ADDRESSES_MAX and entry.addresses[0] == f"/dns4/{ADDRESSES_MAX + 4}/tcp/1"


def test_told_peers_are_a_bounded_sample() -> None:
    view = View(PeerId("m"), random.Random(1))
    for number in range(20):
        entry = view.found(PeerId(f"p{number}"), ("/dns4/p/tcp/1",), FoundBy.INBOUND)
        assert entry is not None
        entry.link, entry.role = number, Role.NODE
    told = view.tellable(PeerId("p3"), 5, 0.0)
    assert len(told) == 5 == len(dict.fromkeys(told)) and "p3" not in [record.peer for record in told]


# Compatibility, statistics, mixing


def test_a_difference_is_one_short_sentence_with_both_values() -> None:
    own = hello("m")
    assert difference(own, hello("p")) is None
    other = type(own)(**{**fields_of(own), "network": (("name", "x" * 5000),)})
    sentence = difference(own, other)
    assert sentence is not None and sentence.startswith("name is x") and '"pair"' in sentence
    assert len(sentence) < 2 * VALUE_CHARS_SHOWN + 40
    lacking = type(own)(**{**fields_of(own), "network": ()})
    assert difference(own, lacking) == 'name is nothing there and "pair" here'


def fields_of(own: object) -> dict[str, object]:
    return {name: getattr(own, name) for name in type(own).__dataclass_fields__}  # type: ignore[attr-defined]


def test_the_consensus_distance_is_estimated_from_swap_distances() -> None:
    """Two random members of a population are sqrt(2) of its spread apart, in root mean square."""
    rng = random.Random(3)
    statistics = SwapStatistics()
    assert statistics.consensus_distance() is None
    for _ in range(3 * DISTANCES_KEPT):
        one, other = ([rng.gauss(0.0, 1.0) for _ in range(500)] for _ in range(2))
        statistics.mixed(math.dist(one, other), 1.0, 1.0)
    assert statistics.consensus_distance() == pytest.approx(math.sqrt(500.0), rel=0.03)
    assert statistics.as_fields()["norm"] == 1.0


def test_a_version_in_another_encoding_is_asked_for_once_and_gone_with_the_next_round() -> None:
    library = Library()
    assert library.ask(Encoding.INT8, 1) == [Publish(Encoding.INT8)] and library.ask(Encoding.INT8, 2) == []
    own, coarse = version(1), replace(version(2), encoding=Encoding.INT8)
    library.renew(own, None, 0.0)
    assert library.waiting(Encoding.INT8) == (1, 2) and library.waiting(Encoding.INT8) == ()
    assert library.add(coarse, None, 0.0) == [] and library.current(Encoding.FLOAT32) == own
    assert library.current(Encoding.INT8) == coarse
    assert library.renew(version(3), own.digest, 1.0) == [Retire(coarse.digest)]
    assert library.current(Encoding.INT8) is None
    assert library.ask(Encoding.INT8) == [Publish(Encoding.INT8)]


# Mixing


@pytest.mark.parametrize(("one", "other"), [(1, 1), (1, 9), (40, 2)])
def test_shares_follow_the_weights_and_make_one_whole(one: int, other: int) -> None:
    mine, theirs = replace(TERMS, weight=one), replace(TERMS, weight=other)
    assert weight_of(mine, theirs) == other / (one + other)
    assert weight_of(mine, theirs) + weight_of(theirs, mine) == 1.0


@given(st.booleans(), st.booleans(), st.integers(0, 30), st.integers(0, 30))
def test_both_sides_come_to_the_mirror_image(settled: bool, theirs_settled: bool, mixes: int, their_mixes: int) -> None:
    one, other = replace(version(1), mixes=mixes), replace(version(2), mixes=their_mixes)
    terms, their_terms = replace(TERMS, settled=settled), replace(TERMS, settled=theirs_settled)
    here, there = outcome_of(one, terms, other, their_terms), outcome_of(other, their_terms, one, terms)
    mirror = {Outcome.MIX: Outcome.MIX, Outcome.ADOPT: Outcome.STAY, Outcome.STAY: Outcome.ADOPT}
    assert there is mirror[here]
    away = not settled and theirs_settled and their_mixes - mixes >= AWAY_MIXES
    assert (here is Outcome.ADOPT) is away
    assert outcome_of(one, terms, replace(one, mixes=99), their_terms) is Outcome.SAME
