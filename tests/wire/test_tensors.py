"""Tensors on the wire: bytes any safetensors reader takes, and nothing but the agreed header accepted."""

import json
import re
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from p2pfed.errors import ExitCode, LearnerError, RemoteError
from p2pfed.ports import Encoding
from p2pfed.wire.tensors import HEADER_BYTES_MAX, Floats, Shapes, layout_of, pack_tensors, payload_size, unpack_tensors

SHAPES: Shapes = {"b.weight": (3,), "a.weight": (2, 3), "c.weight": (4, 1)}
F16, F32 = Encoding.FLOAT16, Encoding.FLOAT32
KINDS = {F16: numpy.float16, F32: numpy.float32}


def tensors() -> dict[str, Floats]:
    """All exact in float16, so that both float encodings keep them."""
    return {
        "b.weight": numpy.array([1.5, -2.0, 0.0], dtype=numpy.float32),
        "a.weight": numpy.arange(6, dtype=numpy.float32).reshape(2, 3),
        "c.weight": numpy.full((4, 1), 0.25, dtype=numpy.float32),
    }


def saved(values: dict[str, Floats], encoding: Encoding = F32, **more: dict[str, str]) -> bytes:
    """As safetensors itself writes them."""
    return save({name: tensor.astype(KINDS[encoding]) for name, tensor in values.items()}, **more)


def header_of(payload: bytes) -> tuple[dict[str, object], bytes]:
    length = int.from_bytes(payload[:8], "little")
    return json.loads(payload[8 : 8 + length]), payload[8 + length :]


def with_header(text: str, data: bytes) -> bytes:
    return len(text.encode()).to_bytes(8, "little") + text.encode() + data


def refused(payload: bytes, encoding: Encoding = F32) -> str:
    with pytest.raises(RemoteError) as caught:
        unpack_tensors(payload, SHAPES, encoding)
    return str(caught.value)


@pytest.mark.parametrize("encoding", [F16, F32])
def test_round_trip_keeps_every_bit_and_the_readers_order(encoding: Encoding) -> None:
    back = unpack_tensors(pack_tensors(tensors(), encoding), SHAPES, encoding)
    assert list(back) == list(SHAPES)
    for name, values in tensors().items():
        assert back[name].dtype == numpy.float32
        assert back[name].tobytes() == values.tobytes()
        assert back[name].shape == values.shape


@pytest.mark.parametrize("encoding", Encoding)
def test_names_and_shapes_come_back_in_every_encoding(encoding: Encoding) -> None:
    payload = pack_tensors(tensors(), encoding)
    back = unpack_tensors(payload, SHAPES, encoding)
    assert {name: values.shape for name, values in back.items()} == SHAPES
    assert all(numpy.abs(back[name] - values).max() <= 5 / 14 for name, values in tensors().items())
    assert layout_of(payload) == (SHAPES, encoding)
    assert payload_size(SHAPES, encoding) == len(payload)


def test_four_bits_a_value_and_a_quarter() -> None:
    """The wire's price for a large tensor, header aside."""
    shapes = {"x": (1024, 1024)}
    header = payload_size({"x": (0,)}, F32)
    assert payload_size(shapes, Encoding.INT4) - header == pytest.approx(4.25 / 8 * 2**20, abs=64)
    assert payload_size(shapes, Encoding.INT8) - header == pytest.approx(8.25 / 8 * 2**20, abs=64)


@pytest.mark.parametrize("encoding", [F16, F32])
def test_a_float_payload_is_a_safetensors_file_byte_by_byte(encoding: Encoding) -> None:
    payload = pack_tensors(tensors(), encoding)
    assert payload == saved(tensors(), encoding)
    for name, values in load(payload).items():
        assert values.dtype == KINDS[encoding]
        assert (values == tensors()[name]).all()


def test_the_order_in_which_tensors_are_given_does_not_matter() -> None:
    for encoding in Encoding:
        assert pack_tensors(dict(reversed(tensors().items())), encoding) == pack_tensors(tensors(), encoding)


def test_views_are_not_copies_and_cannot_be_written() -> None:
    payload = pack_tensors(tensors(), F32)
    back = unpack_tensors(payload, SHAPES, F32)["a.weight"]
    assert not back.flags.writeable
    assert not back.flags.owndata


@pytest.mark.parametrize("encoding", Encoding)
def test_values_laid_out_in_another_order_are_packed_by_index(encoding: Encoding) -> None:
    turned = tensors() | {"a.weight": numpy.asfortranarray(tensors()["a.weight"])}
    assert pack_tensors(turned, encoding) == pack_tensors(tensors(), encoding)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_neither_sent_nor_taken(value: float, encoding: Encoding) -> None:
    bad = tensors()
    bad["b.weight"][1] = value
    with pytest.raises(LearnerError, match=r"b\.weight has a value that is not finite") as caught:
        pack_tensors(bad, encoding)
    assert caught.value.exit_code is ExitCode.TRAINING
    if encoding in KINDS:
        assert "tensor b.weight has a value that is not finite" in refused(saved(bad, encoding), encoding)


def test_what_float16_cannot_hold_is_not_sent() -> None:
    large = tensors() | {"b.weight": numpy.array([1.0, 65520.0, 0.0], numpy.float32)}
    with pytest.raises(LearnerError, match=r"tensor b\.weight has a value that is more than float16 holds") as caught:
        pack_tensors(large, F16)
    assert caught.value.exit_code is ExitCode.TRAINING
    assert unpack_tensors(pack_tensors(large, F32), SHAPES, F32)["b.weight"][1] == 65520.0


def test_another_dtype_than_float32_is_the_callers_bug() -> None:
    with pytest.raises(ValueError, match="float64"):
        pack_tensors({"a": numpy.zeros(3)}, F32)  # type: ignore[dict-item]


def test_the_encoding_must_be_the_one_agreed_on() -> None:
    for sent in Encoding:
        payload = pack_tensors(tensors(), sent)
        for agreed in Encoding:
            if agreed is not sent:
                assert re.search(r"has dtype '\w+', not \w+", refused(payload, agreed))


def test_names_the_tensor_that_differs() -> None:
    ones = tensors()
    assert "tensor c.weight is missing" in refused(save({k: v for k, v in ones.items() if k != "c.weight"}))
    assert "tensor 'd' is not of this adapter" in refused(save(ones | {"d": ones["a.weight"]}))
    assert "a.weight has shape [3, 2], not [2, 3]" in refused(save(ones | {"a.weight": ones["a.weight"].T.copy()}))
    assert "c.weight has dtype 'F16', not F32" in refused(save(ones | {"c.weight": ones["c.weight"].astype("f2")}))


def test_holes_overlaps_and_other_offsets_are_refused() -> None:
    entries, data = header_of(pack_tensors(tensors(), F32))
    for offsets in ([0, 24], [16, 40], [40, 24], [-1, 5], [0, 2**70], "x", None, [[[]]]):
        entries["c.weight"]["data_offsets"] = offsets  # type: ignore[index]
        assert "c.weight has data_offsets" in refused(with_header(json.dumps(entries), data))


def test_only_the_one_form_of_the_header_is_taken() -> None:
    entries, data = header_of(pack_tensors(tensors(), F32))
    assert "not in the one allowed form" in refused(with_header(json.dumps(entries), data))
    entries["a.weight"]["more"] = 1  # type: ignore[index]
    assert "not in the one allowed form" in refused(with_header(json.dumps(entries), data))
    assert "__metadata__" in refused(saved(tensors(), metadata={"format": "np"}))


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "0 bytes, too short"),
        (b"1234567", "7 bytes, too short"),
        (b"\xff" * 16, "header of 18446744073709551615 bytes"),
        ((HEADER_BYTES_MAX + 1).to_bytes(8, "little") + b" " * (HEADER_BYTES_MAX + 1), f"at most {HEADER_BYTES_MAX}"),
        (with_header("nonsense", b""), "not JSON"),
        (with_header("[" * 200_000, b""), "not JSON"),
        (with_header('{"a":' * 100_000, b""), "not JSON"),
        (with_header("1" * 9000, b""), "not JSON"),
        ((2).to_bytes(8, "little") + b"\xff\xfe", "not JSON"),
        (with_header("[]", b""), "not a JSON object"),
        (with_header('{"a.weight":1,"b.weight":1,"c.weight":1}', b""), "a.weight is not described"),
    ],
    ids=range(11),
)
def test_hostile_headers_are_named(payload: bytes, words: str) -> None:
    assert words in refused(payload)


def test_a_byte_too_few_or_too_many_is_refused() -> None:
    payload = pack_tensors(tensors(), F32)
    assert f"of {len(payload) - 1} bytes, not {len(payload)}" in refused(payload[:-1])
    assert f"of {len(payload) + 1} bytes, not {len(payload)}" in refused(payload + b"\0")


@given(st.sampled_from(Encoding), st.binary(max_size=400), st.integers(0, 400), st.booleans())
def test_any_bytes_give_tensors_or_a_remote_error(encoding: Encoding, junk: bytes, at: int, spliced: bool) -> None:
    right = pack_tensors(tensors(), encoding)
    payload = right[:at] + junk + right[at + len(junk) :] if spliced else junk
    for read in (lambda: unpack_tensors(payload, SHAPES, encoding), lambda: layout_of(payload)[0]):
        try:
            back = read()
        except RemoteError as error:
            assert len(str(error)) < 400
        else:
            assert back.keys() == SHAPES.keys() or spliced


def test_a_layout_is_refused_where_it_cannot_be_one_adapter() -> None:
    def problem(payload: bytes) -> str:
        with pytest.raises(RemoteError) as caught:
            layout_of(payload)
        return str(caught.value)

    mixed = save(tensors() | {"b.weight": tensors()["b.weight"].astype(numpy.float16)})
    assert "tensors in 2 encodings, not in one" in problem(mixed)
    assert "do not fill it" in problem(pack_tensors(tensors(), Encoding.INT4)[:-1])
    assert "has no dtype and shape we take" in problem(save({"a": numpy.zeros(3)}))
    assert "an impossible shape" in problem(with_header('{"a":{"dtype":"Q4","shape":[-1]}}', b""))
    assert "an impossible shape" in problem(with_header('{"a":{"dtype":"Q4","shape":[1,1,1,1,1]}}', b""))
    assert "names no tensor" in problem(with_header("{}", b""))
    assert "not JSON" in problem(with_header("{", b""))


def test_a_saved_payload_opens_as_a_file(tmp_path: Path) -> None:
    from safetensors import safe_open

    path = tmp_path / "adapter.safetensors"
    path.write_bytes(pack_tensors(tensors(), F32))
    with safe_open(path, framework="numpy") as file:
        assert sorted(file.keys()) == sorted(SHAPES)
