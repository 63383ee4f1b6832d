"""The seeded matching of a fixed membership: symmetric, exact where it can be, fair, the same everywhere."""

import os
import random
import statistics
import subprocess
import sys
from collections import Counter
from itertools import combinations
from math import exp, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfed.core.schedule import cycle_rounds, partner
from p2pfed.ports import PeerId


def members_of(count: int) -> list[PeerId]:
    return [PeerId(f"peer-{number:03}") for number in range(count)]


def pairs_of(members: list[PeerId], round: int, seed: str) -> list[tuple[PeerId, PeerId]]:
    met = [(own, partner(members, own, round, seed)) for own in members]
    return [(own, other) for own, other in met if other is not None and own < other]


def spread_after(values: dict[PeerId, float], matchings: list[list[tuple[PeerId, PeerId]]]) -> float:
    values = dict(values)
    for pairs in matchings:
        for one, other in pairs:
            values[one] = values[other] = (values[one] + values[other]) / 2.0
    return statistics.pvariance(values.values())


@given(st.integers(1, 40), st.integers(0, 10_000), st.text(max_size=8))
@settings(derandomize=True)
def test_a_partner_s_partner_is_oneself(count: int, round: int, seed: str) -> None:
    members = members_of(count)
    for own in members:
        other = partner(members, own, round, seed)
        assert other != own
        assert other is None or partner(list(reversed(members)), other, round, seed) == own


@pytest.mark.parametrize("count", [2, 4, 8, 16])
@pytest.mark.parametrize("cycle", range(3))
def test_one_cycle_of_a_power_of_two_is_the_exact_mean(count: int, cycle: int) -> None:
    members, rng = members_of(count), random.Random(count)
    values = {member: rng.gauss(0.0, 1.0) for member in members}
    rounds = cycle_rounds(count)
    assert 2**rounds == count
    matchings = [pairs_of(members, cycle * rounds + turn, "seed") for turn in range(rounds)]
    assert all(len(pairs) == count // 2 for pairs in matchings)
    assert spread_after(values, matchings[:-1]) > 1e-6 or count == 2
    assert spread_after(values, matchings) < 1e-30


@pytest.mark.parametrize("count", [3, 5, 6, 7, 12, 24, 33, 100])
def test_other_counts_contract(count: int) -> None:
    """Against random matchings (one member rests where N is odd) in as many rounds; printed, the geometric mean."""
    members, rng = members_of(count), random.Random(count)
    rounds, trials = 2 * cycle_rounds(count), 20
    logs: dict[str, list[float]] = {"schedule": [], "random": []}
    for trial in range(trials):
        values = {member: rng.gauss(0.0, 1.0) for member in members}
        begin = statistics.pvariance(values.values())
        scheduled = [pairs_of(members, turn, str(trial)) for turn in range(rounds)]
        shuffled = []
        for _ in range(rounds):
            order = rng.sample(members, count)
            shuffled.append(list(zip(order[0::2], order[1::2], strict=False)))
        for name, matchings in (("schedule", scheduled), ("random", shuffled)):
            logs[name].append(log(max(spread_after(values, matchings), 1e-300) / begin) / rounds)
    factor = {name: exp(sum(those) / trials) for name, those in logs.items()}
    print(f"{count} members: variance times {factor['schedule']:.3f} a round, random matching {factor['random']:.3f}")
    assert factor["schedule"] < 0.65


@pytest.mark.parametrize("count", [4, 6, 8, 13])
def test_over_many_cycles_every_pair_meets_equally_often(count: int) -> None:
    members, cycles = members_of(count), 1000
    met: Counter[tuple[PeerId, PeerId]] = Counter()
    rested: Counter[PeerId] = Counter()
    for round in range(cycles * cycle_rounds(count)):
        pairs = pairs_of(members, round, "fair")
        met.update(pairs)
        rested.update(set(members) - {member for pair in pairs for member in pair})
    mean = met.total() / len(list(combinations(members, 2)))
    assert len(met) == len(list(combinations(members, 2)))
    assert all(0.8 * mean < count_met < 1.2 * mean for count_met in met.values()), (mean, met)
    if rested:
        mean = rested.total() / count
        assert all(0.8 * mean < times < 1.2 * mean for times in rested.values())


def test_alone_or_unlisted() -> None:
    assert partner([PeerId("a")], PeerId("a"), 0, "") is None
    assert partner([], PeerId("a"), 5, "") is None
    assert partner([PeerId("b")], PeerId("a"), 5, "") == PeerId("b")
    assert [cycle_rounds(count) for count in (1, 2, 3, 4, 5, 8, 9, 1000)] == [1, 1, 2, 2, 3, 3, 4, 10]


def test_every_process_sees_the_same_schedule() -> None:
    code = (
        "from p2pfed.core.schedule import partner\n"
        "import sys\n"
        "members = [f'peer-{n:03}' for n in range(11)]\n"
        "sys.stdout.write(' '.join(str(partner(set(members), m, r, 's')) for m in members for r in range(9)))\n"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    members = members_of(11)
    assert told == {" ".join(str(partner(members, m, r, "s")) for m in members for r in range(9))}
