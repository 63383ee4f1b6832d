"""About one swap a round, whoever begins it."""

import random

from p2pfed.core.pacing import Pacing


def test_a_round_is_worth_one_swap() -> None:
    pacing = Pacing()
    assert not pacing.due
    pacing.earn()
    assert pacing.due
    pacing.spend()
    assert not pacing.due


def test_nothing_is_saved_up_and_a_rush_is_forgiven_after_one_round() -> None:
    pacing = Pacing()
    for _ in range(50):
        pacing.earn()
    pacing.spend()
    assert not pacing.due
    for _ in range(50):
        pacing.spend()
    pacing.earn()
    assert not pacing.due
    pacing.earn()
    assert pacing.due


def test_in_a_network_of_equals_each_takes_part_in_about_one_swap_a_round() -> None:
    rng = random.Random(1)
    nodes = [Pacing() for _ in range(50)]
    parts, rounds = [0] * 50, 400
    for _ in range(rounds):
        for own in rng.sample(range(50), 50):
            nodes[own].earn()
            if nodes[own].due:
                other = rng.choice([number for number in range(50) if number != own])
                for number in (own, other):
                    nodes[number].spend()
                    parts[number] += 1
    rates = [part / rounds for part in parts]
    print(f"swaps a round: least {min(rates):.2f}, most {max(rates):.2f}, mean {sum(rates) / 50:.2f}")
    assert 0.9 < sum(rates) / 50 < 1.25
    assert min(rates) > 0.8 and max(rates) < 1.4
