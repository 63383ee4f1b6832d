"""The worker: jobs between steps, the own bytes of a mix, other encodings, what is owed at a stop."""

from collections.abc import Awaitable, Callable, Mapping

import trio

from p2pfed.core.events import Adopt, Event, Mix, Mixed, Publish, Published, Trained
from p2pfed.net.worker import MixerWorker, Received
from p2pfed.ports import Encoding, MixReport, Progress, StepReport

INT4, F32 = Encoding.INT4, Encoding.FLOAT32
THEIRS = Received(b"theirs", INT4)
WAIT_S = 5.0


class NotingMixer:
    """Writes down what it is asked for; its adapter is a counter."""

    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []
        self.steps = 0
        self.mixes = 0

    def progress(self) -> Progress:
        return Progress(self.steps, 2 * self.steps, self.mixes)

    def fingerprint(self) -> Mapping[str, str]:
        return {}

    def payload_bytes(self, encoding: Encoding) -> int:
        return len(self.export(encoding))

    def step(self) -> StepReport:
        self.steps += 1
        return StepReport(1.0, 2, 2)

    def export(self, encoding: Encoding) -> bytes:
        return f"{encoding} {self.steps} {self.mixes}".encode()

    def admit(self, payload: bytes, encoding: Encoding) -> None:
        pass

    def mix(self, own: bytes, theirs: bytes, encoding: Encoding, weight: float) -> MixReport:
        self.mixes += 1
        self.done.append(("mix", own, theirs, encoding, weight))
        return MixReport(3.0, 2.0, 0.5)

    def adopt(self, theirs: bytes, encoding: Encoding, mixes: int) -> MixReport:
        self.mixes = mixes
        self.done.append(("adopt", theirs, encoding))
        return MixReport(1.0, 1.0)

    def save(self) -> bytes:
        return self.export(F32)

    def load(self, checkpoint: bytes) -> None:
        pass


Story = Callable[[MixerWorker, NotingMixer, Callable[[], Awaitable[Event]]], Awaitable[None]]


def play(story: Story) -> list[tuple[int, bytes]]:
    """What was saved."""
    saved: list[tuple[int, bytes]] = []

    async def main() -> None:
        tell, told = trio.open_memory_channel[Event](8)
        mixer = NotingMixer()
        worker = MixerWorker(mixer, INT4, tell.send, lambda steps, payload: saved.append((steps, payload)))
        with trio.fail_after(WAIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.run)
                await story(worker, mixer, told.receive)
                worker.stop()

    trio.run(main)
    return saved


async def version_of_round(worker: MixerWorker, told: Callable[[], Awaitable[Event]], steps: int) -> bytes:
    worker.train(steps)
    trained = await told()
    assert isinstance(trained, Trained)
    assert (trained.version.encoding, trained.version.steps) == (INT4, trained.steps)
    return trained.version.digest


def test_a_mix_has_the_own_bytes_of_the_moment_it_was_asked_for() -> None:
    async def story(worker: MixerWorker, mixer: NotingMixer, told: Callable[[], Awaitable[Event]]) -> None:
        own = await version_of_round(worker, told, 4)
        worker.mix(Mix(7, own, b"", 0.25), THEIRS)
        worker.retire(own)
        mixed = await told()
        assert mixer.done == [("mix", b"int4 4 0", b"theirs", INT4, 0.25)]
        assert isinstance(mixed, Mixed)
        assert (mixed.swap, mixed.distance, mixed.norm, mixed.kept) == (7, 3.0, 2.0, 0.5)
        assert (mixed.version.encoding, mixed.version.mixes) == (INT4, 1)
        assert worker.part(own, 0) is None
        assert worker.part(mixed.version.digest, 0) == b"int4 4 1"

    assert play(story) == [(4, b"float32 4 1")]


def test_an_observer_has_no_bytes_of_its_own() -> None:
    async def story(worker: MixerWorker, mixer: NotingMixer, told: Callable[[], Awaitable[Event]]) -> None:
        worker.mix(Mix(1, b"", b"", 1.0), Received(b"theirs", F32))
        await told()
        assert mixer.done == [("mix", b"", b"theirs", F32, 1.0)]

    play(story)


def test_publish_gives_another_form_of_the_adapter_as_it_is() -> None:
    async def story(worker: MixerWorker, mixer: NotingMixer, told: Callable[[], Awaitable[Event]]) -> None:
        own = await version_of_round(worker, told, 2)
        worker.publish(Publish(F32))
        published = await told()
        assert isinstance(published, Published)
        assert published.version.encoding is F32
        assert worker.part(published.version.digest, 0) == b"float32 2 0"
        assert worker.part(own, 0) == b"int4 2 0", "the other one is served on"

    play(story)


def test_an_adopted_adapter_brings_its_count_of_mixes() -> None:
    async def story(worker: MixerWorker, mixer: NotingMixer, told: Callable[[], Awaitable[Event]]) -> None:
        worker.adopt(Adopt(5, b"", 40), THEIRS)
        mixed = await told()
        assert isinstance(mixed, Mixed)
        assert (mixed.swap, mixed.kept, mixed.version.mixes) == (5, 1.0, 40)
        assert mixer.done == [("adopt", b"theirs", INT4)]

    play(story)


def test_a_stop_applies_the_mixes_it_owes_before_it_saves() -> None:
    async def story(worker: MixerWorker, mixer: NotingMixer, told: Callable[[], Awaitable[Event]]) -> None:
        own = await version_of_round(worker, told, 1)
        worker.train(1000)
        for swap in (1, 2):
            worker.mix(Mix(swap, own, b"", 0.5), THEIRS)
        worker.stop()

    ((_, payload),) = play(story)
    assert payload.endswith(b" 2")
