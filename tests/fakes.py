"""Small stand-ins that tests share."""

import struct
from collections.abc import Mapping

import numpy

from p2pfed.errors import LearnerError
from p2pfed.ports import MixReport, Progress, StepReport
from p2pfed.wire.tensors import expected_size, pack_tensors, unpack_tensors


class VectorLearner:
    """A vector that each step pulls towards `target`; `rate` 0 leaves training out."""

    def __init__(self, target: float, size: int = 64, rate: float = 0.1, start: float = 0.0) -> None:
        self.values = numpy.full(size, start, numpy.float32)
        self.target = target
        self.rate = rate
        self.steps = 0
        self._expected = {"vector": ("F32", (size,))}

    def progress(self) -> Progress:
        return Progress(self.steps, 2 * self.steps)

    def fingerprint(self) -> Mapping[str, str]:
        return {"base": "vector", "shapes": str(self.values.size)}

    def adapter_bytes(self) -> int:
        return expected_size(self._expected)

    def step(self) -> StepReport:
        self.values += numpy.float32(self.rate) * (numpy.float32(self.target) - self.values)
        self.steps += 1
        return StepReport(float(abs(self.values - self.target).mean()), 2, 20)

    def export(self) -> bytes:
        return pack_tensors({"vector": self.values})

    def admit(self, payload: bytes) -> None:
        unpack_tensors(payload, self._expected)

    def mix(self, payload: bytes, weight: float) -> MixReport:
        theirs = unpack_tensors(payload, self._expected)["vector"]
        distance = float(numpy.linalg.norm(theirs - self.values))
        self.values = self.values + numpy.float32(weight) * (theirs - self.values)
        return MixReport(distance, float(numpy.linalg.norm(self.values)))

    def save(self) -> bytes:
        return struct.pack(">Q", self.steps) + self.values.tobytes()

    def load(self, checkpoint: bytes) -> None:
        if len(checkpoint) != 8 + self.values.nbytes:
            raise LearnerError(f"checkpoint of {len(checkpoint)} bytes, not {8 + self.values.nbytes}")
        (self.steps,) = struct.unpack(">Q", checkpoint[:8])
        self.values = numpy.frombuffer(checkpoint[8:], numpy.float32).copy()


class LyingLearner(VectorLearner):
    """Publishes values that are not finite, as a broken or hostile peer would."""

    def export(self) -> bytes:
        payload = bytearray(super().export())
        payload[-4:] = struct.pack("<f", float("nan"))
        return bytes(payload)
