"""Swaps over lines that die, stall and lie: they resume from the last whole part and nothing waits for ever.

Everything is the real thing (driver, libp2p, TCP) but for the learner; between two peers lies a proxy.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from p2pfed.core import patience
from p2pfed.core.events import Effect, Event, FoundBy, MessageReceived, PeerFound, Send, SendPart
from p2pfed.core.messages import Part, PartAsk, SwapAbort, SwapOffer, SwapReady
from p2pfed.core.transfer import WINDOW
from tests.net.bad_line import VALUES, Announcing, BadLine, Watched, watched
from tests.net.test_driver import until

ROOT = Path(__file__).parents[2]
SIZE = 4 * VALUES
PARTS = 8
PART_BYTES = 256 * 1024
STALL_S = 20.0
STORY_S = 60.0
MESSAGES_BYTES = 64 * 1024
"""Everything of a story that is no part."""


async def meet(nursery: trio.Nursery, line: BadLine, listener: Watched) -> None:
    """It listens, and tells the line's address for its own."""
    await nursery.start(line.run)
    await nursery.start(listener.run, [])
    assert isinstance(listener.transport, Announcing)
    line.port, listener.transport.told = listener.transport.listens_at, (line.address(),)


async def met(nursery: trio.Nursery, line: BadLine, listener: Watched, dialler: Watched) -> None:
    """The dialler reaches the listener over the line, and never the other way round."""
    await meet(nursery, line, listener)
    await nursery.start(dialler.run, [listener])


def play(story: Callable[[trio.Nursery], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(STORY_S):
            async with trio.open_nursery() as nursery:
                await story(nursery)
                nursery.cancel_scope.cancel()

    trio.run(main)


def assert_one_swap(*peers: Watched, parts: int = PARTS) -> None:
    """It was not begun anew, and no part came twice."""
    for peer in peers:
        assert peer.counts["aborted"] == peer.counts["half_done"] == peer.counts["faults"] == 0
        assert len(peer.came) == parts and set(peer.came.values()) == {1}, peer.came
        assert peer.driver.bytes_received <= parts * PART_BYTES + WINDOW * PART_BYTES + MESSAGES_BYTES


def swapped(*peers: Watched) -> Callable[[], bool]:
    return lambda: all(peer.state.statistics.finished > 0 and not peer.state.exchange.busy for peer in peers)


@pytest.mark.parametrize("tenth", range(10))
def test_a_link_that_dies_at_any_tenth_of_a_swap_costs_what_was_under_way(tenth: int) -> None:
    line = BadLine()
    one, two = watched(1.0), watched(2.0)

    async def story(nursery: trio.Nursery) -> None:
        line.cut_at = MESSAGES_BYTES // 4 + tenth * 2 * SIZE // 10
        await met(nursery, line, one, two)
        await until(swapped(one, two))
        assert line.cut_at is None and line.connections == 2
        assert_one_swap(one, two)
        assert one.learner is not None and two.learner is not None
        assert one.learner.vector[0] == two.learner.vector[0] == 1.5

    play(story)


@pytest.mark.slow
def test_a_link_that_dies_at_every_tenth_of_one_swap_carries_it_to_its_end() -> None:
    """Each of eleven links lives for less than a second; a tenth of the adapter is a whole part and some."""
    values, parts = 900_000, 14
    one, two, line = watched(1.0, values), watched(2.0, values), BadLine()
    tenth = 2 * 4 * values // 10

    async def cut() -> None:
        for _ in range(10):
            line.cut_at = line.forwarded + tenth
            await until(lambda: line.cut_at is None)

    async def story(nursery: trio.Nursery) -> None:
        nursery.start_soon(cut)
        await met(nursery, line, one, two)
        await until(swapped(one, two))
        assert line.connections >= 10
        assert_one_swap(one, two, parts=parts)

    play(story)


class Deaf(Watched):
    """Its sessions stop reading for a while, as soon as so many parts came: a handler that waits for something."""

    def deaf_after(self, parts: int, seconds: float) -> None:
        inner = self.driver.tell

        async def tell(event: Event) -> None:
            if isinstance(event, MessageReceived) and isinstance(event.message, Part) and len(self.came) == parts:
                await trio.sleep(seconds)
            await inner(event)

        self.driver.tell = tell  # type: ignore[method-assign]


@pytest.mark.slow
def test_a_receiver_that_stalls_and_a_line_that_carries_nothing_for_a_while_end_in_the_same_swap() -> None:
    """Two pairs at once, each with a stall of its own; where the line stalls, both sides wait for each other."""
    deaf = watched(2.0, kind=Deaf)
    assert isinstance(deaf, Deaf)
    stalled = BadLine()
    pairs = ((BadLine(), watched(1.0), deaf), (stalled, watched(1.0), watched(2.0)))

    async def stall() -> None:
        await until(lambda: stalled.forwarded > SIZE)
        stalled.stall()
        await trio.sleep(STALL_S)
        stalled.flowing.set()

    async def story(nursery: trio.Nursery) -> None:
        deaf.deaf_after(3, STALL_S)
        nursery.start_soon(stall)
        for line, one, two in pairs:
            await met(nursery, line, one, two)
        begun = trio.current_time()
        for _, one, two in pairs:
            await until(swapped(one, two))
            assert_one_swap(one, two)
        assert trio.current_time() - begun > 0.9 * STALL_S

    play(story)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
def test_a_process_that_is_stopped_for_a_while_ends_the_swap_it_was_in() -> None:
    one, line = watched(1.0), BadLine()
    line.rate_bytes_s = 300_000.0

    async def story(nursery: trio.Nursery) -> None:
        await meet(nursery, line, one)
        words = [sys.executable, "-m", "tests.net.stopped_peer", one.transport.peer, line.address()]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)  # noqa: ASYNC220  it is quick
        try:
            await until(lambda: line.forwarded > SIZE // 2)
            assert one.state.statistics.finished == 0
            child.send_signal(signal.SIGSTOP)
            await trio.sleep(STALL_S)
            child.send_signal(signal.SIGCONT)
            assert child.stdout is not None
            told = json.loads(await trio.to_thread.run_sync(child.stdout.readline, abandon_on_cancel=True))
            await until(swapped(one))
        finally:
            child.kill()
            child.wait()
        assert told["counts"]["aborted"] == told["counts"]["half_done"] == 0
        assert told["came"] == [1] * PARTS
        assert_one_swap(one)

    play(story)


class Mute(Watched):
    """Accepts a swap and then says nothing of it, for ever; it answers pings."""

    def said(self, effects: list[Effect]) -> list[Effect]:
        return [effect for effect in effects if not self._of_a_swap(effect)]

    def _of_a_swap(self, effect: Effect) -> bool:
        return isinstance(effect, SendPart) or (
            isinstance(effect, Send) and isinstance(effect.message, PartAsk | SwapReady | SwapAbort | SwapOffer)
        )


def test_a_peer_that_accepts_and_then_says_nothing_costs_one_limit_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "STALL_S", 2.0)
    monkeypatch.setattr(patience, "STALL_MIN_S", 1.0)
    node, other, mute = watched(1.0), watched(2.0), watched(3.0, kind=Mute)
    mute.state.turns.pacing.spend()  # it waits to be asked

    async def story(nursery: trio.Nursery) -> None:
        await met(nursery, BadLine(), mute, node)
        await until(lambda: node.state.exchange.swap is not None and node.state.exchange.swap.theirs is not None)
        begun = trio.current_time()
        await meet(nursery, line := BadLine(), other)
        await node.driver.tell(PeerFound(other.transport.peer, (line.address(),), FoundBy.BOOTSTRAP))
        await until(lambda: node.state.statistics.finished > 0)
        assert trio.current_time() - begun < STORY_S / 4
        assert node.counts["aborted"] != 0
        assert len(node.driver._inbox) <= 1 and node.counts["half_done"] == 0, "it may be in the next swap already"
        assert len(node.driver.sessions) == 2
        for peer in (mute, other):
            assert isinstance(node.transport, Announcing)
            assert node.transport.streams(peer.transport.peer) == 1

    play(story)


def test_a_node_whose_line_refuses_goes_on_when_it_does_not() -> None:
    one, two, line = watched(1.0), watched(2.0), BadLine()
    line.refuses = True

    async def story(nursery: trio.Nursery) -> None:
        await met(nursery, line, one, two)
        await until(lambda: line.refused >= 2)
        assert not two.driver.sessions
        line.refuses = False
        await until(swapped(one, two))
        assert_one_swap(one, two)

    play(story)
