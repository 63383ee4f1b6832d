"""A collection over bad lines: it goes on where it was, and nobody holds it for long."""

import random

import pytest

from p2pfed.core.collection import STALL_MIN_S, STALL_S, CollectionSettings, Collector
from p2pfed.core.events import (
    Admit,
    Effect,
    LinkDown,
    LinkUp,
    MessageReceived,
    Report,
    Send,
    Started,
    Timer,
    TimerFired,
    TimerKind,
)
from p2pfed.core.messages import Part, PartAsk, Role, VersionAsk, VersionTold
from p2pfed.core.version import part_of, version_of
from p2pfed.ports import Encoding, PeerId
from tests.core.pair import hello

NODE = PeerId("n")
PART_SIZE = 16
PARTS = 8
PAYLOAD = random.Random(1).randbytes(PART_SIZE * PARTS)
VERSION = version_of(PAYLOAD, Encoding.FLOAT32, 1, 1, 0, PART_SIZE)


def asked(effects: list[Effect]) -> list[int]:
    return [
        index
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, PartAsk)
        for index in effect.message.indexes
    ]


def failed(effects: list[Effect]) -> bool:
    return any(isinstance(effect, Report) and effect.kind == "collect-failed" for effect in effects)


def linked(collector: Collector, link: int, now: float) -> list[Effect]:
    return collector.handle(LinkUp(link, NODE, hello("n"), True, "/dns4/n/tcp/1"), now)


def part(collector: Collector, link: int, index: int, now: float) -> list[Effect]:
    message = Part(VERSION.digest, index, part_of(PAYLOAD, index, PART_SIZE))
    return collector.handle(MessageReceived(link, message), now)


def reading() -> Collector:
    """A collector that has asked the node for its first parts, at 0 s."""
    collector = Collector(
        hello("c", role=Role.OBSERVER), PeerId("c"), CollectionSettings(), random.Random(2), lambda _: 1.0
    )
    collector.handle(Started(), 0.0)
    effects = linked(collector, 1, 0.0)
    assert any(isinstance(effect, Send) and isinstance(effect.message, VersionAsk) for effect in effects)
    assert asked(collector.handle(MessageReceived(1, VersionTold(VERSION)), 0.0))
    return collector


def test_a_lost_link_is_waited_for_and_no_part_is_asked_for_twice() -> None:
    collector = reading()
    for index in range(3):
        part(collector, 1, index, 10.0)
    assert not failed(collector.handle(LinkDown(1, "cut"), 11.0))
    wanted = asked(linked(collector, 2, 15.0))
    assert wanted and not {0, 1, 2} & set(wanted)
    effects: list[Effect] = []
    for index in range(3, PARTS):
        effects += part(collector, 2, index, 16.0)
    assert any(isinstance(effect, Admit) for effect in effects)


def test_who_broke_the_protocol_is_not_waited_for() -> None:
    assert failed(reading().handle(LinkDown(1, "lied", fault=True), 11.0))


@pytest.mark.parametrize(("part_s", "limit_s"), [(0.1, STALL_MIN_S), (33.0, STALL_S)])
def test_a_silent_node_is_left_as_soon_as_its_own_pace_says(part_s: float, limit_s: float) -> None:
    collector, now = reading(), 0.0
    for index in range(4):
        now += part_s
        part(collector, 1, index, now)
    assert not failed(collector.handle(TimerFired(Timer(TimerKind.MAINTAIN)), now + limit_s - 0.1))
    part(collector, 1, 0, now + limit_s - 0.05)  # a part it has already is no progress
    assert failed(collector.handle(TimerFired(Timer(TimerKind.MAINTAIN)), now + limit_s + 0.1))
