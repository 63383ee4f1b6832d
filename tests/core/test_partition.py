"""Suspicion of a cut: by losses that come together, by counters that shrink; its end; nothing for everyday losses."""

import pytest

from p2pfed.core.estimate import Figures
from p2pfed.core.partition import LOSS_WINDOW_S, REMEMBERED_S, URGENT_S, PartitionWatch
from p2pfed.ports import PeerId


def peers(*names: str) -> list[PeerId]:
    return [PeerId(name) for name in names]


def figures(size: float, error: float = 0.03) -> Figures:
    return Figures(size, error, None, 0.0, 0.0, None)


def lose(watch: PartitionWatch, names: list[PeerId], linked: int, now: float) -> list[bool]:
    """One after the other; whether each gave a suspicion."""
    return [watch.lost(peer, linked - 1 - number, now + number) is not None for number, peer in enumerate(names)]


def test_losing_half_of_the_neighbours_together_is_suspicious_once() -> None:
    watch = PartitionWatch()
    assert lose(watch, peers("a", "b", "c", "d", "e", "f"), 11, 100.0) == [False, False, False, False, True, False]
    assert watch.suspicion is not None and "5 of 11 neighbours" in watch.suspicion.sentence
    assert all(watch.missing(peer) for peer in peers("a", "e", "f")) and not watch.missing(PeerId("g"))


def test_one_loss_and_losses_far_apart_are_everyday_life() -> None:
    watch = PartitionWatch()
    assert watch.lost(PeerId("a"), 0, 0.0) is None
    for number in range(10):
        assert watch.lost(PeerId(f"p{number}"), 3, (number + 1) * (LOSS_WINDOW_S + 1.0)) is None


def test_all_lost_is_told_as_this_device_s_own_trouble() -> None:
    watch = PartitionWatch()
    lose(watch, peers("a", "b"), 2, 0.0)
    assert watch.suspicion is not None and "this device may be cut off" in watch.suspicion.sentence


def test_somebody_of_the_other_side_ends_it_and_a_stranger_does_not() -> None:
    watch = PartitionWatch()
    lose(watch, peers("a", "b", "c"), 4, 0.0)
    assert not watch.found(PeerId("stranger")) and watch.suspicion is not None
    assert watch.found(PeerId("b")) and watch.suspicion is None
    assert not watch.found(PeerId("a")), "once"


def test_a_network_that_shrank_is_suspicious_until_it_has_grown_again() -> None:
    watch = PartitionWatch()
    assert watch.sized(figures(12.0), 0.0) == (None, False)
    assert watch.sized(figures(11.0), 10.0) == (None, False), "somebody left"
    suspicion, over = watch.sized(figures(6.0), 20.0)
    assert suspicion is not None and not over and "from about 11 nodes to 6" in suspicion.sentence
    assert watch.sized(figures(6.0), 30.0) == (None, False), "told once"
    assert watch.sized(figures(8.0), 40.0) == (None, False)
    assert watch.sized(figures(11.0), 50.0) == (None, True) and watch.suspicion is None


@pytest.mark.parametrize("error", [0.3, 1.0])
def test_counters_that_do_not_know_say_nothing(error: float) -> None:
    watch = PartitionWatch()
    watch.sized(figures(12.0), 0.0)
    assert watch.sized(figures(6.0, error), 10.0) == (None, False)


def test_counters_are_the_stronger_word() -> None:
    watch = PartitionWatch()
    watch.sized(figures(12.0), 0.0)
    lose(watch, peers("a", "b", "c"), 5, 1.0)
    assert watch.sized(figures(5.0), 20.0)[0] is not None
    assert not watch.found(PeerId("a")) and watch.suspicion is not None, "one link is not the whole other side"


def test_urgency_ends_and_so_does_the_suspicion() -> None:
    watch = PartitionWatch()
    watch.sized(figures(12.0), 0.0)
    assert watch.sized(figures(6.0), 10.0)[0] is not None
    assert watch.urgent(10.0 + URGENT_S - 1.0) and not watch.urgent(10.0 + URGENT_S)
    assert watch.sized(figures(6.0), 11.0 + REMEMBERED_S) == (None, True)
    assert watch.sized(figures(6.0), 12.0 + REMEMBERED_S) == (None, False), "the network is what it is now"
