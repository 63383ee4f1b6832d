"""Named tensors to bytes and back; the bytes are a valid .safetensors file.

All peers of a network agree on names, dtypes and shapes before any byte moves, so there is exactly
one right header. A payload is accepted only where its header equals that one, byte by byte: what a
stranger sent is parsed for one purpose, to say what is wrong with it. Values must be finite.
Layout: 8 bytes header length (little endian), JSON header padded with spaces to 8 bytes, the data,
float32 tensors before float16 ones, by name.
"""

import json
import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy

from p2pfed.core.version import SIZE_MAX
from p2pfed.errors import ExitCode, LearnerError, RemoteError

Expected = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor name -> (dtype "F32" or "F16", shape)."""

DTYPES: Mapping[str, str] = MappingProxyType({"F32": "<f4", "F16": "<f2"})
HEADER_BYTES_MAX = 1024 * 1024
"""A stranger's header is looked into up to here: 10,000 tensors, 7B with all linear layers has 448."""
NAME_SHOWN_CHARS = 80
DIMENSIONS_MAX = 4
"""LoRA factors have two; one to spare for convolutions' four."""
_LENGTH_BYTES = 8
_ALIGNMENT_BYTES = 8


def pack_tensors(named: Mapping[str, numpy.ndarray]) -> bytes:
    """One copy of the values, in wire form. Raises LearnerError for NaN or infinity: training diverged."""
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, values in named.items():
        dtype = next((key for key, code in DTYPES.items() if values.dtype == numpy.dtype(code)), None)
        if dtype is None:
            raise ValueError(f"tensor {name} has dtype {values.dtype}, not float32 or float16")
        if not _finite(values):
            raise LearnerError(f"tensor {name} has a value that is not finite: training diverged", ExitCode.TRAINING)
        expected[name] = (dtype, values.shape)
    header = _header(expected)
    payload = bytearray(len(header) + _data_size(expected))
    payload[: len(header)] = header
    start = len(header)
    for name in _order(expected):
        dtype, shape = expected[name]
        view = numpy.frombuffer(payload, DTYPES[dtype], math.prod(shape), start)
        view[:] = named[name].reshape(-1)
        start += view.nbytes
    return bytes(payload)


def unpack_tensors(payload: bytes, expected: Expected) -> dict[str, numpy.ndarray]:
    """Read-only views into `payload`. Raises RemoteError that names the defect."""
    header = _header(expected)
    size = len(header) + _data_size(expected)
    if not payload.startswith(header):
        raise RemoteError(f"adapter payload: {_difference(payload, expected)}")
    if len(payload) != size:
        raise RemoteError(f"adapter payload of {len(payload)} bytes, not {size}")
    tensors: dict[str, numpy.ndarray] = {}
    start = len(header)
    for name in _order(expected):
        dtype, shape = expected[name]
        values = numpy.frombuffer(payload, DTYPES[dtype], math.prod(shape), start)
        if not _finite(values):
            raise RemoteError(f"adapter payload: tensor {name} has a value that is not finite")
        tensors[name] = values.reshape(shape)
        start += values.nbytes
    return {name: tensors[name] for name in expected}


def layout_of(payload: bytes) -> Expected:
    """Names, dtypes and shapes as the payload itself tells, for a reader that has no model to compare with.

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
    layout: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, entry in entries.items():
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(dtype, str) or dtype not in DTYPES or not isinstance(shape, list):
            raise RemoteError(f"adapter payload: tensor {name[:NAME_SHOWN_CHARS]!r} has no dtype and shape we take")
        if len(shape) > DIMENSIONS_MAX or not all(type(each) is int and 0 < each <= SIZE_MAX for each in shape):
            raise RemoteError(f"adapter payload: tensor {name[:NAME_SHOWN_CHARS]!r} has an impossible shape")
        layout[name] = (dtype, tuple(shape))
    if _data_size(layout) + _LENGTH_BYTES + length != len(payload):
        raise RemoteError("adapter payload: its tensors do not fill it")
    return layout


def expected_size(expected: Expected) -> int:
    """Exact bytes of a payload with these tensors."""
    return len(_header(expected)) + _data_size(expected)


def _finite(values: numpy.ndarray) -> bool:
    return bool(numpy.isfinite(values).all())


def _order(expected: Expected) -> list[str]:
    """Wider types first, so that every tensor is aligned; then by name."""
    return sorted(expected, key=lambda name: (-_bytes_each(expected[name][0]), name))


def _bytes_each(dtype: str) -> int:
    return numpy.dtype(DTYPES[dtype]).itemsize


def _data_size(expected: Expected) -> int:
    return sum(_bytes_each(dtype) * math.prod(shape) for dtype, shape in expected.values())


def _header(expected: Expected) -> bytes:
    """The one right header, with its length in front."""
    entries: dict[str, object] = {}
    start = 0
    for name in _order(expected):
        dtype, shape = expected[name]
        end = start + _bytes_each(dtype) * math.prod(shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _difference(payload: bytes, expected: Expected) -> str:
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
    right = json.loads(_header(expected)[_LENGTH_BYTES:])
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
