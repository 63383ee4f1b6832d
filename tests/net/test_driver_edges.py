"""What the driver does at its edges: addresses that are none, events after the end, a start in any order."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from p2pfed.core.collection import CollectionSettings, Collector
from p2pfed.core.events import (
    Dial,
    DialFailed,
    Effect,
    Event,
    Finish,
    FoundBy,
    PeerFound,
    Started,
    StopAsked,
    Timer,
    TimerFired,
    TimerKind,
)
from p2pfed.core.messages import PROTOCOL_VERSION, Hello, Role
from p2pfed.errors import ConfigError
from p2pfed.net.driver import EVENTS_QUEUED_MAX, Driver
from p2pfed.ports import Encoding, Link, PeerId

OWN, OTHER = PeerId("own"), PeerId("other")
HELLO = Hello(PROTOCOL_VERSION, "id", (), (), Role.NODE, Encoding.INT4, 1, "own", (), 0.0)


class StrictTransport:
    """Dials nothing: every address is malformed."""

    peer = OWN

    def addresses(self) -> Sequence[str]:
        return ()

    def serve(self, protocol: str, handler: Callable[[Link], Awaitable[None]]) -> None:
        pass

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    async def open(self, peer: PeerId | None, address: str, protocol: str) -> Link:
        raise ConfigError(f"multiaddr {address!r} is none")

    async def disconnect(self, peer: PeerId) -> None:
        pass


class OneDial:
    """Dials once and ends with what came of it."""

    def __init__(self) -> None:
        self.heard: list[Event] = []

    def handle(self, event: Event, now: float) -> list[Effect]:
        self.heard.append(event)
        return [Dial(OTHER, ("rubbish",))] if isinstance(event, Started) else [Finish()]


def driver() -> Driver:
    return Driver(StrictTransport(), "id", on_report=lambda _: None, on_remember=lambda _: None, wall_clock=lambda: 0.0)


def test_a_stranger_s_rubbish_address_is_a_failed_dial() -> None:
    machine = OneDial()
    trio.run(driver().run, machine, HELLO, [Started()])
    assert isinstance(machine.heard[1], DialFailed)
    assert "rubbish" in machine.heard[1].reason


def test_nobody_waits_for_a_driver_that_has_ended() -> None:
    async def main() -> None:
        running = driver()
        await running.run(OneDial(), HELLO, [Started(), StopAsked("over")])
        with trio.fail_after(5.0):
            for _ in range(2 * EVENTS_QUEUED_MAX):
                await running.tell(StopAsked("late"))
        assert not running.tell_nowait(StopAsked("late"))

    trio.run(main)


def collector() -> Collector:
    return Collector(HELLO, OWN, CollectionSettings(settle_s=2.0), random.Random(0), lambda _: 1.0)


def test_a_collection_does_not_end_before_it_began() -> None:
    """On a device up for longer than the deadline, the clock stood far beyond it."""
    begun = collector()
    found = PeerFound(OTHER, ("/ip4/192.0.2.1/tcp/1",), FoundBy.BOOTSTRAP)
    effects = [*begun.handle(found, 10_000.0), *begun.handle(Started(), 10_000.0)]
    assert not any(isinstance(effect, Finish) for effect in effects)


def test_a_collection_waits_for_its_first_dial() -> None:
    begun = collector()
    begun.handle(PeerFound(OTHER, ("/ip4/192.0.2.1/tcp/1",), FoundBy.BOOTSTRAP), 0.0)
    begun.handle(Started(), 0.0)
    later = begun.handle(TimerFired(Timer(TimerKind.MAINTAIN)), 3.0)
    assert not any(isinstance(effect, Finish) for effect in later), "the dial is still under way"
    assert any(isinstance(effect, Finish) for effect in begun.handle(DialFailed(OTHER, "nobody answers"), 4.0))
