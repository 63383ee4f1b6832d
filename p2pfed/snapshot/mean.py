"""A running weighted mean of adapters, as a Mixer that trains nothing: what an observer needs of a model."""

import math
from collections.abc import Mapping

import numpy
import numpy.typing as npt

from p2pfed.errors import LearnerError, RemoteError
from p2pfed.mixer import FIRST
from p2pfed.ports import Encoding, MixReport, Progress, StepReport
from p2pfed.wire.tensors import Floats, Shapes, layout_of, pack_tensors, payload_size, unpack_tensors


class MeanMixer:
    """Names and shapes are taken from the first payload and held against all others. Sums in float64.

    The optimizer's first moments, which may travel along, are checked and left out: they are no part of an adapter.
    """

    def __init__(self) -> None:
        self._shapes: Shapes | None = None
        self._mean: dict[str, npt.NDArray[numpy.float64]] = {}
        self._mean_square = 0.0

    def progress(self) -> Progress:
        return Progress(0, 0)

    def fingerprint(self) -> Mapping[str, str]:
        return {}

    def payload_bytes(self, encoding: Encoding) -> int:
        return payload_size(self._shapes, encoding) if self._shapes is not None else 0

    def step(self) -> StepReport:
        raise LearnerError("an observer does not train")

    def export(self, encoding: Encoding) -> bytes:
        """The mean so far."""
        return pack_tensors({name: values.astype(numpy.float32) for name, values in self._mean.items()}, encoding)

    def admit(self, payload: bytes, encoding: Encoding) -> None:
        self._unpack(payload, encoding)

    def mix(self, own: bytes, theirs: bytes, encoding: Encoding, weight: float) -> MixReport:
        """mean += weight * (theirs - mean), unclipped; the first payload has weight 1. `own` has no meaning here."""
        values = self._unpack(theirs, encoding)
        if self._shapes is None:
            if weight != 1.0:
                raise RemoteError("the first adapter of a mean must have weight 1")
            self._shapes, _ = layout_of(theirs)
            self._mean = {name: numpy.zeros(tensor.shape) for name, tensor in values.items()}
        square = moved = 0.0
        for name, tensor in values.items():
            mean = self._mean[name]
            wide = tensor.astype(numpy.float64)
            difference = wide - mean
            square += float(numpy.vdot(wide, wide))
            moved += float(numpy.vdot(difference, difference))
            mean += weight * difference
        self._mean_square += weight * (square - self._mean_square)
        return MixReport(math.sqrt(moved), math.sqrt(self._norm_square()))

    def adopt(self, theirs: bytes, encoding: Encoding, mixes: int) -> MixReport:
        raise LearnerError("an observer has no adapter of its own")

    def save(self) -> bytes:
        raise LearnerError("an observer keeps nothing")

    def load(self, checkpoint: bytes) -> None:
        raise LearnerError("an observer starts anew")

    def consensus_distance(self) -> float:
        """sqrt(weighted mean of |x_i - mean|^2) = sqrt(mean of |x_i|^2 - |mean|^2), in float64."""
        return math.sqrt(max(0.0, self._mean_square - self._norm_square()))

    def _unpack(self, payload: bytes, encoding: Encoding) -> dict[str, Floats]:
        shapes = self._shapes if self._shapes is not None else layout_of(payload)[0]
        values = unpack_tensors(payload, shapes, encoding)
        return {name: tensor for name, tensor in values.items() if not name.startswith(FIRST)}

    def _norm_square(self) -> float:
        return sum(float(numpy.vdot(mean, mean)) for mean in self._mean.values())
