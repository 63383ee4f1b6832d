"""Named float32 tensors to bytes and back, in one of four encodings; float payloads are valid .safetensors files.

All peers of a network agree on names and shapes before any byte moves, so for an encoding there is exactly
one right header. A payload is accepted only where its header equals that one, byte by byte: what a
stranger sent is parsed for one purpose, to say what is wrong with it. Values must be finite.
Layout: 8 bytes header length (little endian), JSON header padded with spaces to 8 bytes, the tensors by
name without gaps; `quantize` has the inside of an integer one.
"""

import io
import json
import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy
import numpy.typing as npt

from p2pfed.core.version import SIZE_MAX
from p2pfed.errors import ExitCode, LearnerError, RemoteError
from p2pfed.ports import Encoding
from p2pfed.wire.quantize import Quantiser, quantised_bytes

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape."""
Floats = npt.NDArray[numpy.float32]

DTYPES: Mapping[Encoding, str] = MappingProxyType(
    {Encoding.INT4: "Q4", Encoding.INT8: "Q8", Encoding.FLOAT16: "F16", Encoding.FLOAT32: "F32"}
)
"""What a header calls them: the last two are safetensors' own, the others ours."""
HEADER_BYTES_MAX = 1024 * 1024
"""A stranger's header is looked into up to here: 10,000 tensors, 7B with all linear layers has 448."""
NAME_SHOWN_CHARS = 80
DIMENSIONS_MAX = 4
"""LoRA factors have two; one to spare for convolutions' four."""
_FLOATS: Mapping[Encoding, str] = MappingProxyType({Encoding.FLOAT16: "<f2", Encoding.FLOAT32: "<f4"})
_LENGTH_BYTES = 8
_ALIGNMENT_BYTES = 8


def pack_tensors(values: Mapping[str, Floats], encoding: Encoding) -> bytes:
    """In wire form. Raises LearnerError (TRAINING) for NaN, infinity, and what overflows in the encoding."""
    for name, tensor in values.items():
        if tensor.dtype != numpy.float32:
            raise ValueError(f"tensor {name} has dtype {tensor.dtype}, not float32")
    shapes = {name: tensor.shape for name, tensor in values.items()}
    quantiser = Quantiser(encoding) if encoding not in _FLOATS else None
    payload = io.BytesIO()  # grows in place and gives its bytes away without a copy
    payload.write(_header(shapes, encoding))
    for name in sorted(shapes):
        flat = values[name].reshape(-1)
        wire = quantiser.encode(name, flat) if quantiser else _floats(name, flat, encoding)
        payload.write(wire.data)
    return payload.getvalue()


def unpack_tensors(payload: bytes, shapes: Shapes, encoding: Encoding) -> dict[str, Floats]:
    """The values, as float32 in the order of `shapes`; of a float32 payload read-only views into it.

    Raises RemoteError that names the defect.
    """
    header = _header(shapes, encoding)
    if not payload.startswith(header):
        raise RemoteError(f"adapter payload: {_difference(payload, shapes, encoding)}")
    size = len(header) + _data_size(shapes, encoding)
    if len(payload) != size:
        raise RemoteError(f"adapter payload of {len(payload)} bytes, not {size}")
    quantiser = Quantiser(encoding) if encoding not in _FLOATS else None
    tensors: dict[str, Floats] = {}
    start = len(header)
    for name in sorted(shapes):
        count = math.prod(shapes[name])
        length = _bytes_of(count, encoding)
        if quantiser:
            flat = quantiser.decode(name, numpy.frombuffer(payload, numpy.uint8, length, start), count)
        else:
            wire = numpy.frombuffer(payload, _FLOATS[encoding], count, start)
            if not _finite(wire):
                raise RemoteError(f"adapter payload: tensor {name} has a value that is not finite")
            flat = wire.astype(numpy.float32, copy=False)
        tensors[name] = flat.reshape(shapes[name])
        start += length
    return {name: tensors[name] for name in shapes}


def payload_size(shapes: Shapes, encoding: Encoding) -> int:
    """Exact bytes of a payload with these tensors."""
    return len(_header(shapes, encoding)) + _data_size(shapes, encoding)


def layout_of(payload: bytes) -> tuple[Shapes, Encoding]:
    """Names, shapes and encoding as the payload itself tells, for a reader that has no model to compare with.

    Raises RemoteError. Nothing is allocated for the tensors; `unpack_tensors` then checks the rest.
    """
    length = int.from_bytes(payload[:_LENGTH_BYTES], "little")
    if len(payload) < _LENGTH_BYTES or length > min(HEADER_BYTES_MAX, len(payload) - _LENGTH_BYTES):
        raise RemoteError(f"adapter payload of {len(payload)} bytes with a header of {length}")
    try:
        entries = json.loads(payload[_LENGTH_BYTES : _LENGTH_BYTES + length])
    except (ValueError, RecursionError):
        raise RemoteError("adapter payload: header is not JSON") from None
    if not isinstance(entries, dict) or not entries:
        raise RemoteError("adapter payload: header names no tensor")
    shapes: dict[str, tuple[int, ...]] = {}
    encodings = set()
    for name, entry in entries.items():
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        shape = entry.get("shape") if isinstance(entry, dict) else None
        encoding = next((each for each, word in DTYPES.items() if word == dtype), None)
        if encoding is None or not isinstance(shape, list):
            raise RemoteError(f"adapter payload: tensor {name[:NAME_SHOWN_CHARS]!r} has no dtype and shape we take")
        if len(shape) > DIMENSIONS_MAX or not all(type(each) is int and 0 < each <= SIZE_MAX for each in shape):
            raise RemoteError(f"adapter payload: tensor {name[:NAME_SHOWN_CHARS]!r} has an impossible shape")
        shapes[name] = tuple(shape)
        encodings.add(encoding)
    if len(encodings) > 1:
        raise RemoteError(f"adapter payload: tensors in {len(encodings)} encodings, not in one")
    if _data_size(shapes, encoding := encodings.pop()) + _LENGTH_BYTES + length != len(payload):
        raise RemoteError("adapter payload: its tensors do not fill it")
    return shapes, encoding


def _floats(name: str, values: Floats, encoding: Encoding) -> npt.NDArray[numpy.floating]:
    """Contiguous, in the float type of the encoding, and finite there."""
    with numpy.errstate(over="ignore"):
        wire = numpy.ascontiguousarray(values, dtype=_FLOATS[encoding])
    if not _finite(wire):
        why = f"more than {encoding} holds" if _finite(values) else "not finite: training diverged"
        raise LearnerError(f"tensor {name} has a value that is {why}", ExitCode.TRAINING)
    return wire


def _finite(values: npt.NDArray[numpy.floating]) -> bool:
    return bool(numpy.isfinite(values).all())


def _bytes_of(count: int, encoding: Encoding) -> int:
    if encoding in _FLOATS:
        return count * numpy.dtype(_FLOATS[encoding]).itemsize
    return quantised_bytes(count, encoding)


def _data_size(shapes: Shapes, encoding: Encoding) -> int:
    return sum(_bytes_of(math.prod(shape), encoding) for shape in shapes.values())


def _header(shapes: Shapes, encoding: Encoding) -> bytes:
    """The one right header, with its length in front."""
    entries: dict[str, object] = {}
    start = 0
    for name in sorted(shapes):
        end = start + _bytes_of(math.prod(shapes[name]), encoding)
        entries[name] = {"dtype": DTYPES[encoding], "shape": list(shapes[name]), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _difference(payload: bytes, shapes: Shapes, encoding: Encoding) -> str:
    """What is wrong with a header that is not the right one, in a few words."""
    if len(payload) < _LENGTH_BYTES:
        return f"{len(payload)} bytes, too short for a header"
    length = int.from_bytes(payload[:_LENGTH_BYTES], "little")
    if length > min(HEADER_BYTES_MAX, len(payload) - _LENGTH_BYTES):
        return f"header of {length} bytes in a payload of {len(payload)}, at most {HEADER_BYTES_MAX}"
    try:
        entries = json.loads(payload[_LENGTH_BYTES : _LENGTH_BYTES + length])
    except (ValueError, RecursionError):
        return "header is not JSON"
    if not isinstance(entries, dict):
        return "header is not a JSON object"
    right = json.loads(_header(shapes, encoding)[_LENGTH_BYTES:])
    for name in right:
        if name not in entries:
            return f"tensor {name} is missing"
    for name, entry in entries.items():
        if name not in right:
            return f"tensor {name[:NAME_SHOWN_CHARS]!r} is not of this adapter"
        if not isinstance(entry, dict):
            return f"tensor {name} is not described by a JSON object"
        for key in ("dtype", "shape", "data_offsets"):
            if entry.get(key) != right[name][key]:
                return f"tensor {name} has {key} {_shown(entry.get(key))}, not {right[name][key]}"
    return "header is not in the one allowed form (key order, spacing, or an extra key)"


def _shown(value: object) -> str:
    """A stranger's JSON value, only where it is small."""
    if isinstance(value, list) and len(value) <= 8 and all(type(each) is int for each in value):
        return repr(value)[:NAME_SHOWN_CHARS]
    return repr(value)[:NAME_SHOWN_CHARS] if isinstance(value, str) else f"of type {type(value).__name__}"
