"""Small stand-ins that tests share."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy

from p2pfed.config import GossipConfig
from p2pfed.errors import LearnerError
from p2pfed.mixer import AdapterMixer
from p2pfed.ports import Encoding, Progress, StepReport


class VectorLearner:
    """A vector that each step pulls towards `target`; `rate` 0 leaves training out.

    It begins at `start`, as if it had learnt that far from the zeros all share.
    """

    def __init__(self, target: float, size: int = 64, rate: float = 0.1, start: float = 0.0) -> None:
        self.vector = numpy.full(size, start, numpy.float32)
        self.target = target
        self.rate = rate
        self.steps = 0

    def progress(self) -> Progress:
        return Progress(self.steps, 2 * self.steps)

    def fingerprint(self) -> Mapping[str, str]:
        return {"base": "vector"}

    def step(self) -> StepReport:
        self.vector += numpy.float32(self.rate) * (numpy.float32(self.target) - self.vector)
        self.steps += 1
        return StepReport(float(abs(self.vector - self.target).mean()), 2, 20)

    def start(self) -> Mapping[str, numpy.ndarray]:
        return {"vector": numpy.zeros_like(self.vector)}

    def values(self) -> Mapping[str, numpy.ndarray]:
        return {"vector": self.vector.copy()}

    def move(self, by: Mapping[str, numpy.ndarray]) -> None:
        self.vector += by["vector"]

    def save(self) -> bytes:
        return struct.pack(">Q", self.steps) + self.vector.tobytes()

    def load(self, checkpoint: bytes) -> None:
        if len(checkpoint) != 8 + self.vector.nbytes:
            raise LearnerError(f"checkpoint of {len(checkpoint)} bytes, not {8 + self.vector.nbytes}")
        (self.steps,) = struct.unpack(">Q", checkpoint[:8])
        self.vector = numpy.frombuffer(checkpoint[8:], numpy.float32).copy()


class LyingMixer(AdapterMixer):
    """Publishes values or scales that are not finite, as a broken or hostile peer would."""

    def export(self, encoding: Encoding) -> bytes:
        payload = bytearray(super().export(encoding))
        data = 8 + int.from_bytes(payload[:8], "little")
        payload[data : data + 4] = b"\xff" * 4
        return bytes(payload)


def vector_mixer(
    target: float = 0.0, size: int = 64, rate: float = 0.1, start: float = 0.0, **gossip: Any
) -> AdapterMixer:
    """A VectorLearner in its mixer; keyword arguments are GossipConfig's."""
    return AdapterMixer(VectorLearner(target, size, rate, start), GossipConfig(**gossip))
