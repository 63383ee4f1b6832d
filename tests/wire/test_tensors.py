"""Tensors on the wire: bytes any safetensors reader takes, and nothing but the agreed header accepted."""

import json
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from p2pfed.errors import ExitCode, LearnerError, RemoteError
from p2pfed.wire.tensors import HEADER_BYTES_MAX, Expected, expected_size, pack_tensors, unpack_tensors

EXPECTED: Expected = {"a.weight": ("F32", (2, 3)), "b.weight": ("F16", (3,)), "c.weight": ("F32", (4, 1))}


def tensors() -> dict[str, numpy.ndarray]:
    return {
        "a.weight": numpy.arange(6, dtype=numpy.float32).reshape(2, 3),
        "b.weight": numpy.array([1.5, -2.0, 0.0], dtype=numpy.float16),
        "c.weight": numpy.full((4, 1), 0.25, dtype=numpy.float32),
    }


def header_of(payload: bytes) -> tuple[dict[str, object], bytes]:
    length = int.from_bytes(payload[:8], "little")
    return json.loads(payload[8 : 8 + length]), payload[8 + length :]


def with_header(text: str, data: bytes) -> bytes:
    return len(text.encode()).to_bytes(8, "little") + text.encode() + data


def refused(payload: bytes) -> str:
    with pytest.raises(RemoteError) as caught:
        unpack_tensors(payload, EXPECTED)
    return str(caught.value)


def test_round_trip_keeps_every_bit_and_the_callers_order() -> None:
    payload = pack_tensors(tensors())
    back = unpack_tensors(payload, EXPECTED)
    assert list(back) == list(EXPECTED)
    for name, values in tensors().items():
        assert back[name].dtype == values.dtype
        assert back[name].tobytes() == values.tobytes()
        assert back[name].shape == values.shape


def test_the_size_is_known_before_any_byte_arrives() -> None:
    assert expected_size(EXPECTED) == len(pack_tensors(tensors()))


def test_the_payload_is_a_safetensors_file_byte_by_byte() -> None:
    payload = pack_tensors(tensors())
    assert payload == save(tensors())
    for name, values in load(payload).items():
        assert (values == tensors()[name]).all()


def test_the_order_in_which_tensors_are_given_does_not_matter() -> None:
    assert pack_tensors(dict(reversed(tensors().items()))) == pack_tensors(tensors())


def test_views_are_not_copies_and_cannot_be_written() -> None:
    payload = pack_tensors(tensors())
    back = unpack_tensors(payload, EXPECTED)["a.weight"]
    assert not back.flags.writeable
    assert not back.flags.owndata


def test_values_laid_out_in_another_order_are_packed_by_index() -> None:
    turned = tensors() | {"a.weight": numpy.asfortranarray(tensors()["a.weight"])}
    assert pack_tensors(turned) == pack_tensors(tensors())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_neither_sent_nor_taken(value: float) -> None:
    bad = tensors()
    bad["b.weight"][1] = value
    with pytest.raises(LearnerError, match=r"b\.weight") as caught:
        pack_tensors(bad)
    assert caught.value.exit_code is ExitCode.TRAINING
    assert "tensor b.weight has a value that is not finite" in refused(save(bad))


def test_another_dtype_than_the_two_is_the_callers_bug() -> None:
    with pytest.raises(ValueError, match="float64"):
        pack_tensors({"a": numpy.zeros(3)})


def test_names_the_tensor_that_differs() -> None:
    ones = tensors()
    assert "tensor c.weight is missing" in refused(save({k: v for k, v in ones.items() if k != "c.weight"}))
    assert "tensor 'd' is not of this adapter" in refused(save(ones | {"d": ones["a.weight"]}))
    assert "a.weight has shape [3, 2], not [2, 3]" in refused(save(ones | {"a.weight": ones["a.weight"].T.copy()}))
    assert "b.weight has dtype 'F32', not F16" in refused(save(ones | {"b.weight": numpy.zeros(3, numpy.float32)}))


def test_holes_overlaps_and_other_offsets_are_refused() -> None:
    entries, data = header_of(pack_tensors(tensors()))
    for offsets in ([0, 24], [16, 40], [40, 24], [-1, 5], [0, 2**70], "x", None, [[[]]]):
        entries["c.weight"]["data_offsets"] = offsets  # type: ignore[index]
        assert "c.weight has data_offsets" in refused(with_header(json.dumps(entries), data))


def test_only_the_one_form_of_the_header_is_taken() -> None:
    entries, data = header_of(pack_tensors(tensors()))
    assert "not in the one allowed form" in refused(with_header(json.dumps(entries), data))
    entries["a.weight"]["more"] = 1  # type: ignore[index]
    assert "not in the one allowed form" in refused(with_header(json.dumps(entries), data))
    assert "__metadata__" in refused(save(tensors(), metadata={"format": "np"}))


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
    payload = pack_tensors(tensors())
    assert f"of {len(payload) - 1} bytes, not {len(payload)}" in refused(payload[:-1])
    assert f"of {len(payload) + 1} bytes, not {len(payload)}" in refused(payload + b"\0")


@given(st.binary(max_size=400), st.integers(0, 400), st.booleans())
def test_any_bytes_give_tensors_or_a_remote_error(junk: bytes, at: int, spliced: bool) -> None:
    right = pack_tensors(tensors())
    payload = right[:at] + junk + right[at + len(junk) :] if spliced else junk
    try:
        back = unpack_tensors(payload, EXPECTED)
    except RemoteError as error:
        assert len(str(error)) < 400
    else:
        assert list(back) == list(EXPECTED)


def test_a_saved_payload_opens_as_a_file(tmp_path: Path) -> None:
    from safetensors import safe_open

    path = tmp_path / "adapter.safetensors"
    path.write_bytes(pack_tensors(tensors()))
    with safe_open(path, framework="numpy") as file:
        assert sorted(file.keys()) == sorted(EXPECTED)
