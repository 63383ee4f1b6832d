"""Adapter payloads in every encoding, kept as files for other implementations, and payloads nobody may take.

`python -m tests.wire.payloads` writes them anew, where the form was meant to change.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy
import numpy.typing as npt

from p2pfed.ports import Encoding
from p2pfed.wire.tensors import Shapes, pack_tensors, unpack_tensors

FOLDER = Path(__file__).parent / "vectors" / "payloads"
REFUSED = "refused"
Floats = npt.NDArray[numpy.float32]

SHAPES: Shapes = MappingProxyType({"b.weight": (2, 35), "a.weight": (4, 16), "zero": (3,)})
"""One block and six of the next, with 58 to fill up; one full block; one block of zeros. Not in the order of names."""


def example_values() -> dict[str, Floats]:
    """Written down, not drawn: equal on every platform. Scales of both sides of float16's 2^-14 occur."""
    steps = numpy.arange(64, dtype=numpy.float32) - numpy.float32(31)
    small = (numpy.arange(70, dtype=numpy.float32) - numpy.float32(35)) * numpy.float32(2.0**-22)
    return {
        "b.weight": small.reshape(2, 35),
        "a.weight": (steps * numpy.float32(0.011)).reshape(4, 16),
        "zero": numpy.zeros(3, numpy.float32),
    }


def numbers(values: Mapping[str, Floats]) -> dict[str, list[float]]:
    """Flat, as JSON numbers: float32 survives the way there and back."""
    return {name: [float(each) for each in tensor.reshape(-1)] for name, tensor in values.items()}


def payload_vector(encoding: Encoding) -> dict[str, object]:
    """`values` are put in, `payload` travels, `decoded` is what every receiver must read."""
    payload = pack_tensors(example_values(), encoding)
    return {
        "encoding": str(encoding),
        "shapes": {name: list(shape) for name, shape in SHAPES.items()},
        "values": numbers(example_values()),
        "payload": payload.hex(),
        "decoded": numbers(unpack_tensors(payload, SHAPES, encoding)),
    }


def refused_payloads() -> list[dict[str, object]]:
    """Each differs in one place from a right payload of six values named "a"."""
    values = {"a": numpy.array([1.0, -2.0, 3.0, -4.0, 5.0, -7.0], numpy.float32)}
    right = {encoding: pack_tensors(values, encoding) for encoding in Encoding}
    start = {encoding: len(payload) - bytes_after for encoding, payload, bytes_after in _data_lengths(right)}

    def case(why: str, encoding: Encoding, at: int, data: str) -> dict[str, object]:
        payload = bytearray(right[encoding])
        begin = start[encoding] + at
        payload[begin : begin + len(data) // 2] = bytes.fromhex(data)
        return {"why": why, "encoding": str(encoding), "shapes": {"a": [6]}, "payload": payload.hex()}

    return [
        case("a scale that is negative or not finite", Encoding.INT4, 0, "007c"),  # infinity
        case("a scale that is negative or not finite", Encoding.INT8, 0, "007e"),  # no number
        case("a scale that is negative or not finite", Encoding.INT4, 0, "00bc"),  # -1
        case("a scale that is negative or not finite", Encoding.INT8, 0, "0080"),  # -0
        case("a code below -7", Encoding.INT4, 2, "80"),
        case("a code below -7", Encoding.INT4, 2, "09"),
        case("a code below -127", Encoding.INT8, 2, "80"),
        case("a code after its last value", Encoding.INT4, 2 + 6, "89"),
        case("a code after its last value", Encoding.INT4, 2, "99"),  # code 32, in a high half
        case("a code after its last value", Encoding.INT8, 2 + 63, "01"),
        case("a code in a block of scale 0", Encoding.INT4, 0, "0000"),
        case("a code in a block of scale 0", Encoding.INT8, 0, "0000"),
        case("a value that is not finite", Encoding.FLOAT16, 2, "007c"),
        case("a value that is not finite", Encoding.FLOAT32, 4, "0000c07f"),
    ]


def _data_lengths(right: Mapping[Encoding, bytes]) -> list[tuple[Encoding, bytes, int]]:
    return [
        (encoding, payload, len(payload) - 8 - int.from_bytes(payload[:8], "little"))
        for encoding, payload in right.items()
    ]


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    cases: dict[str, object] = {str(encoding): payload_vector(encoding) for encoding in Encoding}
    for name, content in {**cases, REFUSED: refused_payloads()}.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
