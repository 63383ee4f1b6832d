"""The observer's running mean: exact, the same in any order, and of adapters only."""

import itertools

import numpy
import pytest

from p2pfed.errors import RemoteError
from p2pfed.ports import Encoding
from p2pfed.snapshot.mean import MeanMixer
from p2pfed.wire.tensors import layout_of, pack_tensors, unpack_tensors

RNG = numpy.random.default_rng(7)
ADAPTERS = [
    {"b": RNG.standard_normal((3, 5), numpy.float32), "a": RNG.standard_normal(8, numpy.float32)} for _ in range(3)
]
WEIGHTS = (1.0, 3.0, 2.0)
F32 = Encoding.FLOAT32


def mean_of(order: tuple[int, ...]) -> MeanMixer:
    mean, total = MeanMixer(), 0.0
    for place in order:
        total += WEIGHTS[place]
        payload = pack_tensors(ADAPTERS[place], F32)
        mean.admit(payload, F32)
        mean.mix(b"", payload, F32, WEIGHTS[place] / total)
    return mean


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_weighted_mean_and_distance_in_any_order(order: tuple[int, ...]) -> None:
    mean = mean_of(order)
    payload = mean.export(F32)
    values = unpack_tensors(payload, *layout_of(payload))
    right = {name: sum(w * x[name] for w, x in zip(WEIGHTS, ADAPTERS, strict=True)) / 6.0 for name in ("a", "b")}
    for name, expected in right.items():
        numpy.testing.assert_allclose(values[name], expected, rtol=1e-6, atol=1e-7)
    squares = [sum(float(((x[name] - right[name]) ** 2).sum()) for name in right) for x in ADAPTERS]
    distance = float(numpy.sqrt(numpy.dot(WEIGHTS, squares) / 6.0))
    assert mean.consensus_distance() == pytest.approx(distance, rel=1e-6)


def test_moments_that_travel_along_are_no_part_of_the_mean() -> None:
    plain, mean = MeanMixer(), MeanMixer()
    plain.mix(b"", pack_tensors(ADAPTERS[0], F32), F32, 1.0)
    payload = pack_tensors({**ADAPTERS[0], "first.a": numpy.full(8, 9.0, numpy.float32)}, F32)
    mean.admit(payload, F32)
    mean.mix(b"", payload, F32, 1.0)
    assert mean.payload_bytes(F32) == len(payload)
    assert mean.export(F32) == plain.export(F32)
    assert mean.consensus_distance() == 0.0


def test_an_adapter_of_another_shape_is_refused() -> None:
    mean = mean_of((0, 1))
    with pytest.raises(RemoteError, match="tensor a has shape"):
        mean.admit(pack_tensors({**ADAPTERS[2], "a": numpy.zeros(9, numpy.float32)}, F32), F32)
