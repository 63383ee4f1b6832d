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
from p2pfed.wire.tensors import INTEGER_HEADER_BYTES, Shapes, pack_tensors, unpack_tensors

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
    """Each differs in one place from a right payload of six values named "a", or is one of something else."""
    values = {"a": numpy.array([1.0, -2.0, 3.0, -4.0, 5.0, -7.0], numpy.float32)}
    right = {encoding: pack_tensors(values, encoding) for encoding in Encoding}

    def refused(why: str, encoding: Encoding, payload: bytes) -> dict[str, object]:
        return {"why": why, "encoding": str(encoding), "shapes": {"a": [6]}, "payload": payload.hex()}

    def case(why: str, encoding: Encoding, at: int, data: str) -> dict[str, object]:
        payload = bytearray(right[encoding])
        begin = data_start(right[encoding], encoding) + at
        payload[begin : begin + len(data) // 2] = bytes.fromhex(data)
        return refused(f"tensor a has {why}", encoding, bytes(payload))

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
        refused("in int8, not in int4", Encoding.INT4, right[Encoding.INT8]),
        refused("in float16, not in int8", Encoding.INT8, right[Encoding.FLOAT16]),
        refused("in int4, not in float32", Encoding.FLOAT32, right[Encoding.INT4]),
        refused(
            "begins with 7032706665645132, not with 7032706665645134 for int4",
            Encoding.INT4,
            right[Encoding.INT4].replace(b"p2pfedQ4", b"p2pfedQ2"),
        ),
        refused(
            "layout differs (976ef910..., not 7efb29fa...): names and shapes were to be agreed at the handshake",
            Encoding.INT4,
            pack_tensors({"a": values["a"].reshape(2, 3)}, Encoding.INT4),
        ),
        refused(
            "layout differs (aa5c0827..., not 7efb29fa...): names and shapes were to be agreed at the handshake",
            Encoding.INT4,
            pack_tensors({"b": values["a"]}, Encoding.INT4),
        ),
    ]


def data_start(payload: bytes, encoding: Encoding) -> int:
    """Where the first tensor lies."""
    if encoding in (Encoding.INT4, Encoding.INT8):
        return INTEGER_HEADER_BYTES
    return 8 + int.from_bytes(payload[:8], "little")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    cases: dict[str, object] = {str(encoding): payload_vector(encoding) for encoding in Encoding}
    for name, content in {**cases, REFUSED: refused_payloads()}.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
