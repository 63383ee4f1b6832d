"""A learner whose optimum is known: a quadratic of its own curvature and centre at each node, with noisy gradients.

f_i(x) = sum_j a_ij (x_j - c_ij)^2 / 2. The mean over nodes has its least value at x*_j = sum_i a_ij c_ij / sum_i a_ij,
so the loss gap to the optimum of the mean is exact (`population`). It is mixed by the production mixer: real
encodings, real clipping. All nodes start from zero, as those of a real network start from equal factors.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy

from p2pfed.config import GossipConfig
from p2pfed.errors import LearnerError
from p2pfed.mixer import RELATIVE, AdapterMixer
from p2pfed.ports import Encoding, Progress, StepReport
from p2pfed.wire.tensors import pack_tensors

if TYPE_CHECKING:
    from p2pfed.ports import Values

NAME = "x"
EXAMPLES_A_STEP = 2


class QuadraticLearner:
    """Implements `ports.Learner` by gradient descent. The noise of a step is drawn from the seed and its number."""

    def __init__(
        self, centre: Sequence[float], curvature: Sequence[float], learning_rate: float, noise: float, seed: int
    ) -> None:
        self._centre = numpy.array(centre)
        self._curvature = numpy.array(curvature)
        self._learning_rate = learning_rate
        self._noise = noise
        self._seed = seed
        self.x = numpy.zeros(len(centre), numpy.float32)
        self._steps = 0

    def progress(self) -> Progress:
        return Progress(self._steps, self._steps * EXAMPLES_A_STEP)

    def fingerprint(self) -> Mapping[str, str]:
        return {"learner": f"quadratic of {len(self.x)} values"}

    def step(self) -> StepReport:
        apart = self.x - self._centre
        gradient = self._curvature * apart
        if self._noise > 0.0:
            gradient += self._noise * numpy.random.default_rng((self._seed, self._steps)).standard_normal(len(self.x))
        self.x = (self.x - self._learning_rate * gradient).astype(numpy.float32)
        if not numpy.isfinite(self.x).all():
            raise LearnerError(f"the quadratic diverged at learning rate {self._learning_rate}")
        self._steps += 1
        return StepReport(float((self._curvature * apart**2).sum() / 2.0), EXAMPLES_A_STEP, EXAMPLES_A_STEP)

    def start(self) -> "Values":
        return {NAME: numpy.zeros_like(self.x)}

    def values(self) -> "Values":
        return {NAME: self.x.copy()}

    def move(self, by: "Values") -> None:
        self.x = self.x + by[NAME]

    def save(self) -> bytes:
        return struct.pack("<Q", self._steps) + self.x.tobytes()

    def load(self, checkpoint: bytes) -> None:
        if len(checkpoint) != 8 + self.x.nbytes:
            raise LearnerError(f"checkpoint of {len(checkpoint)} bytes, not {8 + self.x.nbytes}")
        (self._steps,) = struct.unpack_from("<Q", checkpoint)
        self.x = numpy.frombuffer(checkpoint, numpy.float32, offset=8).copy()


class AdaptedMixer(AdapterMixer):
    """The production mixer around any learner, as a `SimMixer`."""

    @property
    def values(self) -> list[float]:
        return self._flat(self.learner.values())

    @property
    def start(self) -> list[float]:
        return self._flat(self.learner.start())

    def export_of(self, values: Sequence[float], encoding: Encoding) -> bytes:
        named = {}
        first = 0
        begin = self.learner.start()
        for name in sorted(begin):
            last = first + begin[name].size
            array = numpy.array(values[first:last], numpy.float32).reshape(begin[name].shape)
            named[name] = array - begin[name] if encoding in RELATIVE else array
            first = last
        return pack_tensors(named, encoding)

    @staticmethod
    def _flat(named: "Values") -> list[float]:
        return [value for name in sorted(named) for value in named[name].ravel().tolist()]


def quadratic_mixer(learner: QuadraticLearner, steps_between_swaps: int, clip: float) -> AdaptedMixer:
    return AdaptedMixer(learner, GossipConfig(steps_between_swaps=steps_between_swaps, clip=clip))
