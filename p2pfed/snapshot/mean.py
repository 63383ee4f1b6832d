"""A running weighted mean of adapters, as a Learner that only mixes: what an observer needs of a model."""

import math
from collections.abc import Mapping

import numpy

from p2pfed.errors import LearnerError, RemoteError
from p2pfed.ports import MixReport, Progress, StepReport
from p2pfed.wire.tensors import Expected, expected_size, layout_of, pack_tensors, unpack_tensors


class MeanLearner:
    """Names and shapes are taken from the first payload and held against all others. Sums in float64."""

    def __init__(self) -> None:
        self._layout: Expected | None = None
        self._mean: dict[str, numpy.ndarray] = {}
        self._mean_square = 0.0

    def progress(self) -> Progress:
        return Progress(0, 0)

    def fingerprint(self) -> Mapping[str, str]:
        return {}

    def adapter_bytes(self) -> int:
        return expected_size(self._layout) if self._layout is not None else 0

    def step(self) -> StepReport:
        raise LearnerError("an observer does not train")

    def export(self) -> bytes:
        """The mean so far, float32."""
        return pack_tensors({name: values.astype(numpy.float32) for name, values in self._mean.items()})

    def admit(self, payload: bytes) -> None:
        layout = self._layout if self._layout is not None else layout_of(payload)
        unpack_tensors(payload, layout)

    def mix(self, payload: bytes, weight: float) -> MixReport:
        """mean += weight * (payload - mean); the first payload has weight 1."""
        if self._layout is None:
            if weight != 1.0:
                raise RemoteError("the first adapter of a mean must have weight 1")
            self._layout = layout_of(payload)
            self._mean = {name: numpy.zeros(shape) for name, (_, shape) in self._layout.items()}
        square = moved = 0.0
        for name, values in unpack_tensors(payload, self._layout).items():
            mean = self._mean[name]
            wide = values.astype(numpy.float64)
            difference = wide - mean
            square += float(numpy.vdot(wide, wide))
            moved += float(numpy.vdot(difference, difference))
            mean += weight * difference
        self._mean_square += weight * (square - self._mean_square)
        return MixReport(math.sqrt(moved), math.sqrt(self._norm_square()))

    def save(self) -> bytes:
        return self.export()

    def load(self, checkpoint: bytes) -> None:
        raise LearnerError("an observer starts anew")

    def consensus_distance(self) -> float:
        """sqrt(weighted mean of |x_i - mean|^2) = sqrt(mean of |x_i|^2 - |mean|^2), in float64."""
        return math.sqrt(max(0.0, self._mean_square - self._norm_square()))

    def _norm_square(self) -> float:
        return sum(float(numpy.vdot(mean, mean)) for mean in self._mean.values())
