"""Integer blocks: the form, how far a value may be off, and that nothing but the one form is taken."""

import json
import math
from fractions import Fraction

import numpy
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from p2pfed.errors import ExitCode, LearnerError, RemoteError
from p2pfed.ports import Encoding
from p2pfed.wire.quantize import BLOCK_VALUES, CHUNK_BLOCKS, LIMITS, SCALE_MAX, Quantiser, quantised_bytes
from p2pfed.wire.tensors import pack_tensors, unpack_tensors
from tests.wire.payloads import FOLDER, REFUSED, example_values, numbers, payload_vector, refused_payloads

Floats = npt.NDArray[numpy.float32]
INTEGER = (Encoding.INT4, Encoding.INT8)
SMALLEST_NORMAL_SCALE = 2.0**-14

vectors = stn.arrays(
    numpy.float32,
    st.integers(1, 200),
    elements=st.one_of(
        st.floats(-(2.0**18), 2.0**18, width=32),
        st.floats(-(2.0**-10), 2.0**-10, width=32),
        st.floats(-(2.0**-19), 2.0**-19, width=32),
        st.sampled_from([0.0, -0.0, 2.0**-149, 3.0, -7.0]),
    ),
)


def there_and_back(values: Floats, encoding: Encoding) -> tuple[npt.NDArray[numpy.float64], Floats]:
    """The scale of every value, and what the value became."""
    quantiser = Quantiser(encoding)
    data = quantiser.encode("x", values)
    assert data.size == quantised_bytes(values.size, encoding)
    blocks = -(-values.size // BLOCK_VALUES)
    scales = data[: 2 * blocks].view("<f2").astype(numpy.float64)
    return numpy.repeat(scales, BLOCK_VALUES)[: values.size], quantiser.decode("x", data, values.size)


def by_the_page(values: Floats, encoding: Encoding) -> bytes:
    """docs/protocol.md in plain Python, a value at a time."""
    limit = LIMITS[encoding]
    halves = numpy.arange(0x7C00, dtype=numpy.uint16).view(numpy.float16)
    scales, codes = b"", b""
    for start in range(0, values.size, BLOCK_VALUES):
        block = [float(each) for each in values[start : start + BLOCK_VALUES]]
        block += [0.0] * (BLOCK_VALUES - len(block))
        peak = max(abs(each) for each in block)
        low, high = 0, 0x7BFF
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if limit * float(halves[middle]) >= peak else (middle + 1, high)
        scales += low.to_bytes(2, "little")
        scale = numpy.float32(halves[low])
        inverse = numpy.float32(1.0) / scale if scale else numpy.float32(0.0)
        each = [round(float(numpy.float32(value) * inverse)) for value in block]  # ties to even, as IEEE has it
        if encoding is Encoding.INT8:
            codes += b"".join(code.to_bytes(1, "little", signed=True) for code in each)
        else:
            codes += bytes((each[at] + 8) | (each[at + 32] + 8) << 4 for at in range(32))
    return scales + codes


@settings(max_examples=60, deadline=None)
@given(vectors, st.sampled_from(INTEGER))
def test_the_bytes_are_those_of_the_page(values: Floats, encoding: Encoding) -> None:
    assert Quantiser(encoding).encode("x", values).tobytes() == by_the_page(values, encoding)


@settings(max_examples=150, deadline=None)
@given(vectors, st.sampled_from(INTEGER))
def test_no_value_is_off_by_more_than_half_its_scale(values: Floats, encoding: Encoding) -> None:
    scales, back = there_and_back(values, encoding)
    error = numpy.abs(back.astype(numpy.float64) - values)
    # The quotient is rounded twice to float32 before it is rounded to an integer: limit * 2^-23 of a scale on top.
    assert (error <= scales * (0.5 + LIMITS[encoding] * 2.0**-23)).all()


@settings(max_examples=150, deadline=None)
@given(vectors, st.sampled_from(INTEGER))
def test_a_scale_is_the_smallest_that_reaches_the_peak(values: Floats, encoding: Encoding) -> None:
    scales, _ = there_and_back(values, encoding)
    for start in range(0, values.size, BLOCK_VALUES):
        peak = float(numpy.abs(values[start : start + BLOCK_VALUES]).max())
        scale = numpy.float16(scales[start])
        assert LIMITS[encoding] * float(scale) >= peak
        if scale > 0:
            assert LIMITS[encoding] * float(numpy.nextafter(scale, numpy.float16(0))) < peak


@pytest.mark.parametrize("encoding", INTEGER)
def test_every_scale_there_is_comes_out_at_its_peak_and_the_next_just_above(encoding: Encoding) -> None:
    scales = numpy.arange(0x7C00, dtype=numpy.uint16).view(numpy.float16).astype(numpy.float32)
    values = numpy.zeros((scales.size, BLOCK_VALUES), numpy.float32)
    values[:, 5] = -scales * LIMITS[encoding]
    found, back = there_and_back(values.reshape(-1), encoding)
    assert (found[::BLOCK_VALUES] == scales).all()
    assert (back == values.reshape(-1)).all()
    above = numpy.nextafter(values[:-1], numpy.float32(-math.inf), where=values[:-1] != 0, out=values[:-1].copy())
    found, _ = there_and_back(above.reshape(-1), encoding)
    assert (found[BLOCK_VALUES::BLOCK_VALUES] == scales[2:]).all()


@settings(max_examples=100, deadline=None)
@given(vectors, st.sampled_from(INTEGER))
def test_decoding_is_exact_in_float32(values: Floats, encoding: Encoding) -> None:
    """So every receiver reads the same numbers, and what one side adds is what the other takes away."""
    scales, back = there_and_back(values, encoding)
    for scale, value in zip(scales, back, strict=True):
        code = Fraction(float(value)) / Fraction(float(scale)) if scale else Fraction(0)
        assert code.denominator == 1
        assert abs(code) <= LIMITS[encoding]


@settings(max_examples=100, deadline=None)
@given(vectors, st.sampled_from(INTEGER))
def test_the_negated_tensor_has_the_negated_codes(values: Floats, encoding: Encoding) -> None:
    scales, back = there_and_back(values, encoding)
    other_scales, other = there_and_back(-values, encoding)
    assert (scales == other_scales).all()
    assert (back == -other).all()


@settings(max_examples=150, deadline=None)
@given(vectors, st.sampled_from(INTEGER))
def test_encoding_what_was_decoded_changes_nothing_where_scales_are_normal(values: Floats, encoding: Encoding) -> None:
    """There a scale is at most 2^-10 above peak / limit, so the peak's code is the limit and gives the scale again.

    Below 2^-14 the peak's code may be smaller, and a smaller scale may then do (next test).
    """
    scales, back = there_and_back(values, encoding)
    again_scales, again = there_and_back(back, encoding)
    normal = (scales >= SMALLEST_NORMAL_SCALE) | (scales == 0)
    assert (again[normal] == back[normal]).all()
    assert (again_scales[normal] == scales[normal]).all()
    assert (again_scales <= scales).all()


def test_the_smallest_scales_are_not_a_fixed_point() -> None:
    unit = numpy.float32(2.0**-24)
    scales, back = there_and_back(numpy.full(1, 21.5, numpy.float32) * unit, Encoding.INT4)
    assert (scales[0] / unit, back[0] / unit) == (4, 20)
    scales, back = there_and_back(back, Encoding.INT4)
    assert (scales[0] / unit, back[0] / unit) == (3, 21)


@pytest.mark.parametrize("encoding", INTEGER)
def test_a_small_peak_is_not_clipped(encoding: Encoding) -> None:
    """The nearest float16 of 2.4e-6 / 127 is 0, that of 9.8e-6 / 7 is 30 % off."""
    values = numpy.array([2.4e-6, -1e-6, 9.8e-6, 0.0], numpy.float32)
    for value in values:
        scales, back = there_and_back(value.reshape(1), encoding)
        assert abs(float(back[0]) - float(value)) <= scales[0] / 2
    assert there_and_back(numpy.array([1e-38], numpy.float32), encoding)[1] == 0


@pytest.mark.parametrize("encoding", INTEGER)
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, CHUNK_BLOCKS * BLOCK_VALUES, CHUNK_BLOCKS * BLOCK_VALUES + 1])
def test_chunks_and_ends_leave_no_mark(encoding: Encoding, count: int) -> None:
    values = numpy.random.default_rng(count).standard_normal(count).astype(numpy.float32)
    quantiser = Quantiser(encoding)
    quantiser.encode("before", numpy.full(70_000, 3.0, numpy.float32))  # scratch memory is not clean
    data = quantiser.encode("x", values)
    assert data.tobytes() == by_the_page(values, encoding)
    assert numpy.abs(quantiser.decode("x", data, count) - values).max(initial=0.0) <= 5.0 / LIMITS[encoding]


@pytest.mark.parametrize("encoding", INTEGER)
def test_more_than_the_largest_scale_holds_is_not_sent(encoding: Encoding) -> None:
    most = numpy.float32(LIMITS[encoding] * SCALE_MAX)
    _, back = there_and_back(numpy.array([most, -most, 1.0], numpy.float32), encoding)
    assert back[0] == most
    assert back[1] == -most
    for value, words in ((numpy.nextafter(most, numpy.float32(math.inf)), "more than int"), (math.inf, "not finite")):
        for sign in (1, -1):
            with pytest.raises(LearnerError, match=f"tensor x has a value .*{words}") as caught:
                there_and_back(numpy.array([0.0, sign * value], numpy.float32), encoding)
            assert caught.value.exit_code is ExitCode.TRAINING
    for bits in (0x7FC00000, 0xFFC00000, 0x7F800001):
        with pytest.raises(LearnerError, match="not finite"):
            there_and_back(numpy.array([bits], numpy.uint32).view(numpy.float32), encoding)


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=34, max_size=34), st.integers(1, 64))
def test_any_block_is_read_into_finite_values_or_refused(data: bytes, count: int) -> None:
    try:
        values = Quantiser(Encoding.INT4).decode("x", numpy.frombuffer(data, numpy.uint8), count)
    except RemoteError as error:
        assert str(error).startswith("adapter payload: tensor x has a ")
    else:
        assert numpy.isfinite(values).all()


# Vectors: docs/protocol.md refers to these files, other implementations may test against them


@pytest.mark.parametrize("encoding", Encoding)
def test_payload_vector(encoding: Encoding) -> None:
    kept = json.loads((FOLDER / f"{encoding}.json").read_text())
    assert kept == payload_vector(encoding)
    shapes = {name: tuple(shape) for name, shape in kept["shapes"].items()}
    values = {name: numpy.array(kept["values"][name], numpy.float32).reshape(shape) for name, shape in shapes.items()}
    payload = bytes.fromhex(kept["payload"])
    assert pack_tensors(values, encoding) == payload
    assert numbers(unpack_tensors(payload, shapes, encoding)) == kept["decoded"]
    if encoding in INTEGER:
        by_hand = b"".join(by_the_page(example_values()[name].reshape(-1), encoding) for name in sorted(shapes))
        assert payload.endswith(by_hand)


def test_refused_payloads() -> None:
    kept = json.loads((FOLDER / f"{REFUSED}.json").read_text())
    assert kept == refused_payloads()
    for case in kept:
        with pytest.raises(RemoteError) as caught:
            unpack_tensors(bytes.fromhex(case["payload"]), {"a": (6,)}, Encoding(case["encoding"]))
        assert str(caught.value) == f"adapter payload: tensor a has {case['why']}"
