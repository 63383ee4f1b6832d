"""A learner of a few floats: pulls its vector to an optimum of its own, or keeps it. Standard library only.

Its adapter is the bare values, little endian. Unlike a real network's nodes, toys may start apart:
that is what makes the contraction of their distances visible.
"""

import math
import struct
from collections.abc import Mapping, Sequence

from p2pfed.errors import ConfigError, LearnerError, RemoteError
from p2pfed.ports import MixReport, Progress, StepReport

FORMATS: Mapping[str, str] = {"float64": "d", "float32": "f"}
EXAMPLES_A_STEP = 2


class ToyLearner:
    """Implements `ports.Learner`: gradient descent on |values - optimum|^2 / 2; `optimum` None: nothing to learn."""

    def __init__(
        self,
        start: Sequence[float],
        optimum: Sequence[float] | None = None,
        learning_rate: float = 0.05,
        encoding: str = "float64",
    ) -> None:
        if encoding not in FORMATS:
            raise ConfigError(f"encoding {encoding!r} is none of {', '.join(FORMATS)}")
        self.values = list(start)
        self._start = tuple(start)
        self._optimum = tuple(optimum) if optimum is not None else None
        self._learning_rate = learning_rate
        self._encoding = encoding
        self._wire = struct.Struct(f"<{len(self.values)}{FORMATS[encoding]}")
        self._checkpoint = struct.Struct(f"<QQ{len(self.values)}d")
        self._progress = Progress(0, 0)

    def progress(self) -> Progress:
        return self._progress

    def fingerprint(self) -> Mapping[str, str]:
        return {"learner": f"toy of {len(self.values)} values as {self._encoding}"}

    def adapter_bytes(self) -> int:
        return self._wire.size

    def step(self) -> StepReport:
        self._progress = Progress(self._progress.steps + 1, self._progress.examples + EXAMPLES_A_STEP)
        if self._optimum is not None:
            pairs = zip(self.values, self._optimum, strict=True)
            self.values = [value + self._learning_rate * (best - value) for value, best in pairs]
        return StepReport(self.loss(), EXAMPLES_A_STEP, EXAMPLES_A_STEP)

    def loss(self) -> float:
        if self._optimum is None:
            return 0.0
        return math.dist(self.values, self._optimum) ** 2 / 2.0

    def export(self) -> bytes:
        return self._wire.pack(*self.values)

    def admit(self, payload: bytes) -> None:
        if len(payload) != self._wire.size:
            raise RemoteError(f"adapter of {len(payload)} bytes, not {self._wire.size}")
        if not all(map(math.isfinite, self._wire.unpack(payload))):
            raise RemoteError("adapter holds a value that is not finite")

    def mix(self, payload: bytes, weight: float) -> MixReport:
        theirs = self._wire.unpack(payload)
        distance = math.dist(self.values, theirs)
        self.values = [own + weight * (other - own) for own, other in zip(self.values, theirs, strict=True)]
        return MixReport(distance, math.dist(self.values, self._start))

    def save(self) -> bytes:
        return self._checkpoint.pack(self._progress.steps, self._progress.examples, *self.values)

    def load(self, checkpoint: bytes) -> None:
        if len(checkpoint) != self._checkpoint.size:
            raise LearnerError(f"checkpoint of {len(checkpoint)} bytes, not {self._checkpoint.size}")
        steps, examples, *values = self._checkpoint.unpack(checkpoint)
        self._progress = Progress(steps, examples)
        self.values = values
