"""A toy with the gossip rule: a few floats pulled to an optimum of their own, or kept. Standard library only.

Unlike a real network's nodes, toys may start apart: that is what makes the contraction of their distances
visible. What travels is quantised as in reality, but in a form of the toy's own and as one block.
"""

import math
import struct
from collections.abc import Mapping, Sequence

from p2pfed.errors import LearnerError, RemoteError
from p2pfed.ports import Encoding, MixReport, Progress, StepReport

EXAMPLES_A_STEP = 2
CODES_MAX: Mapping[Encoding, int] = {Encoding.INT4: 7, Encoding.INT8: 127}
FLOATS: Mapping[Encoding, str] = {Encoding.FLOAT16: "e", Encoding.FLOAT32: "f"}


class ToyMixer:
    """Implements `ports.Mixer`: gradient descent on |values - optimum|^2 / 2; `optimum` None: nothing to learn."""

    def __init__(
        self, start: Sequence[float], optimum: Sequence[float] | None = None, learning_rate: float = 0.05
    ) -> None:
        self.values = list(start)
        self.start = tuple(start)
        self._optimum = tuple(optimum) if optimum is not None else None
        self._learning_rate = learning_rate
        self._checkpoint = struct.Struct(f"<QQQ{len(self.values)}d")
        self._progress = Progress(0, 0)
        self._forms: dict[Encoding, struct.Struct] = {}

    def progress(self) -> Progress:
        return self._progress

    def fingerprint(self) -> Mapping[str, str]:
        return {"learner": f"toy of {len(self.values)} values"}

    def payload_bytes(self, encoding: Encoding) -> int:
        return self._form(encoding).size

    def step(self) -> StepReport:
        done = self._progress
        self._progress = Progress(done.steps + 1, done.examples + EXAMPLES_A_STEP, done.mixes)
        if self._optimum is not None:
            pairs = zip(self.values, self._optimum, strict=True)
            self.values = [value + self._learning_rate * (best - value) for value, best in pairs]
        return StepReport(self.loss(), EXAMPLES_A_STEP, EXAMPLES_A_STEP)

    def loss(self) -> float:
        if self._optimum is None:
            return 0.0
        return math.dist(self.values, self._optimum) ** 2 / 2.0

    def export(self, encoding: Encoding) -> bytes:
        return self.export_of(self.values, encoding)

    def export_of(self, values: Sequence[float], encoding: Encoding) -> bytes:
        form, most = self._form(encoding), CODES_MAX.get(encoding)
        if most is None:
            return form.pack(*values)
        scale = max(map(abs, values), default=0.0) / most
        return form.pack(scale, *(round(value / scale) if scale else 0 for value in values))

    def admit(self, payload: bytes, encoding: Encoding) -> None:
        size = self.payload_bytes(encoding)
        if len(payload) != size:
            raise RemoteError(f"adapter of {len(payload)} bytes, not {size}")
        if not all(map(math.isfinite, self._decode(payload, encoding))):
            raise RemoteError("adapter holds a value that is not finite")

    def mix(self, own: bytes, theirs: bytes, encoding: Encoding, weight: float) -> MixReport:
        sent, got = self._decode(own, encoding), self._decode(theirs, encoding)
        triples = zip(self.values, sent, got, strict=True)
        self.values = [value + weight * (other - before) for value, before, other in triples]
        self._mixed(self._progress.mixes + 1)
        return MixReport(math.dist(sent, got), math.dist(self.values, self.start))

    def adopt(self, theirs: bytes, encoding: Encoding, mixes: int) -> MixReport:
        before, self.values = self.values, list(self._decode(theirs, encoding))
        self._mixed(mixes)
        return MixReport(math.dist(before, self.values), math.dist(self.values, self.start))

    def save(self) -> bytes:
        done = self._progress
        return self._checkpoint.pack(done.steps, done.examples, done.mixes, *self.values)

    def load(self, checkpoint: bytes) -> None:
        if len(checkpoint) != self._checkpoint.size:
            raise LearnerError(f"checkpoint of {len(checkpoint)} bytes, not {self._checkpoint.size}")
        steps, examples, mixes, *values = self._checkpoint.unpack(checkpoint)
        self._progress = Progress(steps, examples, mixes)
        self.values = values

    def _mixed(self, mixes: int) -> None:
        self._progress = Progress(self._progress.steps, self._progress.examples, mixes)

    def _form(self, encoding: Encoding) -> struct.Struct:
        form = self._forms.get(encoding)
        if form is None:
            count = len(self.values)
            form = struct.Struct(f"<{count}{FLOATS[encoding]}" if encoding in FLOATS else f"<f{count}b")
            self._forms[encoding] = form
        return form

    def _decode(self, payload: bytes, encoding: Encoding) -> Sequence[float]:
        numbers = self._form(encoding).unpack(payload)
        if encoding in FLOATS:
            return numbers
        scale, *codes = numbers
        return [scale * code for code in codes]
