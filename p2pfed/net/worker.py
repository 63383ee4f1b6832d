"""The one task that owns the mixer: steps, mixes, versions and checkpoints, never two at once.

Mixes go before steps, so that one is applied between two steps as soon as it is asked for. The
mixer runs in a worker thread; this task only decides what comes next.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from p2pfed.core.events import Adopt, Event, Mix, Mixed, Publish, Published, StepSkipped, Trained
from p2pfed.core.messages import Version
from p2pfed.core.version import part_of, version_of
from p2pfed.errors import ExitCode, LearnerError
from p2pfed.ports import Encoding, Mixer, MixReport, StepReport

LOSS_SMOOTHING = 0.9
"""Weight of the past in the loss shown: about ten steps."""
SKIPPED_STEPS_MAX = 10
"""Steps in a row without a finite loss, after which the node ends: that is no bad row, that is divergence."""


@dataclass(frozen=True, slots=True)
class Received:
    """A peer's version, whole and checked against its hashes."""

    payload: bytes
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class _Swapped:
    """What a Mix or an Adopt needs. `own` is held here: its version may be retired before its turn comes."""

    effect: Mix | Adopt
    own: bytes
    theirs: Received


class MixerWorker:
    """Carries out Train, Mix, Adopt and Publish. `save` writes a checkpoint; `emit` takes the events that answer."""

    def __init__(
        self,
        mixer: Mixer,
        encoding: Encoding,
        emit: Callable[[Event], Awaitable[None]],
        save: Callable[[int, bytes], None] | None = None,
        checkpoint_interval_s: float = 60.0,
    ) -> None:
        """`encoding`: the device's own, in which every round and every mix is published."""
        self.mixer = mixer
        self.encoding = encoding
        self._emit = emit
        self._save = save
        self._checkpoint_interval_s = checkpoint_interval_s
        self._saved_at: float | None = None
        self._steps_todo: int | None = None
        self._jobs: deque[_Swapped | Publish] = deque()
        self._wake = trio.Event()
        self._skipped = 0
        self._stopping = False
        self.over = trio.Event()
        """Set when `run` has ended and saved."""
        self.saved_steps: int | None = None
        """Local steps in the last checkpoint of this run."""
        self._published: dict[bytes, bytes] = {}
        self.loss: float | None = None

    def train(self, steps: int) -> None:
        self._steps_todo = steps
        self._wake.set()

    def mix(self, effect: Mix, theirs: Received) -> None:
        """Takes the own version's bytes now: it is still published at the moment the effect is interpreted."""
        self._put(_Swapped(effect, self._published[effect.own] if effect.own else b"", theirs))

    def adopt(self, effect: Adopt, theirs: Received) -> None:
        self._put(_Swapped(effect, b"", theirs))

    def publish(self, effect: Publish) -> None:
        self._put(effect)

    def _put(self, job: _Swapped | Publish) -> None:
        self._jobs.append(job)
        self._wake.set()

    def part(self, digest: bytes, index: int) -> bytes | None:
        """A part of a version still served; None once it is retired."""
        payload = self._published.get(digest)
        return part_of(payload, index) if payload is not None else None

    def retire(self, digest: bytes) -> None:
        self._published.pop(digest, None)

    def stop(self) -> None:
        """Let `run` end after what is under way and the mixes it owes its partners, with a checkpoint."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Ends after `stop`, or with the mixer's error. A step cancelled under way is lost, the checkpoint is not."""
        while self._jobs or not self._stopping:
            if self._jobs:
                await self._do(self._jobs.popleft())
            elif self._steps_todo is not None and self._steps_todo > 0:
                await self._do_step()
            elif self._steps_todo == 0:
                await self._finish_round()
            else:
                self._wake = trio.Event()
                await self._wake.wait()
        await self.checkpoint()
        self.over.set()

    async def checkpoint(self) -> None:
        """Save now."""
        steps = self.mixer.progress().steps
        if self._save is None:
            return
        payload = await trio.to_thread.run_sync(self.mixer.save)
        await trio.to_thread.run_sync(self._save, steps, payload)
        self._saved_at = trio.current_time()
        self.saved_steps = steps

    async def _do_step(self) -> None:
        assert self._steps_todo is not None
        try:
            report = await self._step_in_thread()
        except LearnerError as error:
            self._skipped += 1
            if error.exit_code is not ExitCode.TRAINING or self._skipped >= SKIPPED_STEPS_MAX:
                raise
            await self._emit(StepSkipped(str(error)))
            return
        self._skipped = 0
        self._steps_todo -= 1
        known = self.loss if self.loss is not None else report.loss
        self.loss = LOSS_SMOOTHING * known + (1.0 - LOSS_SMOOTHING) * report.loss

    async def _step_in_thread(self) -> StepReport:
        return await trio.to_thread.run_sync(
            self.mixer.step,
            abandon_on_cancel=True,  # type: ignore[call-arg]  # the trio-typing stubs that libp2p brings predate it
        )

    async def _do(self, job: _Swapped | Publish) -> None:
        if isinstance(job, Publish):
            await self._emit(Published(await self._publish(job.encoding)))
            return
        report = await trio.to_thread.run_sync(self._apply, job)
        version = await self._publish(self.encoding)
        await self._checkpoint_if_due()
        await self._emit(Mixed(job.effect.swap, report.distance, report.norm, report.kept, version))

    def _apply(self, job: _Swapped) -> MixReport:
        theirs = job.theirs
        if isinstance(job.effect, Adopt):
            return self.mixer.adopt(theirs.payload, theirs.encoding, job.effect.mixes)
        return self.mixer.mix(job.own, theirs.payload, theirs.encoding, job.effect.weight)

    async def _finish_round(self) -> None:
        self._steps_todo = None
        version = await self._publish(self.encoding)
        await self._checkpoint_if_due()
        await self._emit(Trained(version, version.steps, version.examples, self.loss))

    async def _checkpoint_if_due(self) -> None:
        if self._saved_at is None:
            self._saved_at = trio.current_time()
        elif trio.current_time() - self._saved_at >= self._checkpoint_interval_s:
            await self.checkpoint()

    async def _publish(self, encoding: Encoding) -> Version:
        progress = self.mixer.progress()

        def export() -> tuple[bytes, Version]:
            payload = self.mixer.export(encoding)
            return payload, version_of(payload, encoding, progress.steps, progress.examples, progress.mixes)

        payload, version = await trio.to_thread.run_sync(export)
        self._published[version.digest] = payload
        return version
