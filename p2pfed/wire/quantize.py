"""Blocks of small integers with a scale each: how float32 values travel in 4 or 8 bits.

A tensor is flattened and cut into blocks of 64 values, the last one filled up with zeros. A block's scale is
the smallest float16 with `limit * scale >= absmax`: the nearest one could fall short, and below 2^-14, where float16
steps coarsely, that would clip the first steps of an adapter. So nothing is ever clipped and no value is off by
more than half a scale. A code is the integer nearest to value / scale; a value is again scale * code, which
float32 holds exactly (11 bits times 7). Layout: the scales of all blocks, then the codes of all blocks.
int8: one byte a code, two's complement. int4: byte i of a block holds code i in its low and code i + 32 in its
high half, each plus 8. -128 and -8 are never sent: what is sent for -x is the negated codes of x.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

import numpy
import numpy.typing as npt

from p2pfed.errors import ExitCode, LearnerError, RemoteError
from p2pfed.ports import Encoding

BLOCK_VALUES = 64
"""One scale each: 0.25 bits a value."""
LIMITS: Mapping[Encoding, int] = MappingProxyType({Encoding.INT4: 7, Encoding.INT8: 127})
"""The largest code of each integer encoding."""
SCALE_MAX = 65504.0
"""The largest float16."""
SCALE_BYTES = 2
CHUNK_BLOCKS = 1024
"""Blocks in work at once: 256 KiB of float32 and what they become stay in a core's second cache. Half of it is 20 %
slower, twice of it no faster (tests.bench.encoding)."""

Floats = npt.NDArray[numpy.float32]
Bytes = npt.NDArray[numpy.uint8]

_HALF = BLOCK_VALUES // 2
_WORD = 8
_INT4_OFFSET = 8
_MAGNITUDE_BITS = 0x7FFFFFFF
_INFINITY_BITS = 0x7F800000
"""Of float32: what is not below it, sign aside, is infinite or no number."""
_INFINITY_BITS_16 = 0x7C00
"""Of float16: what is not below it is infinite, no number, or negative."""
_HALF_SHIFT = 13
"""Bits of float32's mantissa that float16 lacks."""
_HALF_BIAS = (127 - 15) << 10
"""Between the two exponents, where float16 has its own."""
_HALF_NORMAL = numpy.float32(2.0**-14)
_HALF_STEPS = numpy.float32(2.0**24)
"""Below _HALF_NORMAL float16 counts in steps of 2^-24."""


def quantised_bytes(count: int, encoding: Encoding) -> int:
    """Of a tensor of `count` values."""
    return _blocks_of(count) * (SCALE_BYTES + _codes_bytes(encoding))


class Quantiser:
    """Tensors to scales and codes and back, one after the other, through scratch memory of its own.

    What takes the time in numpy is not arithmetic but starting a loop for each block of 64, so there are as few of
    these as possible: a block's peak by `reduceat`, halves of int4 joined as words of 8 codes, column by column.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._limit = numpy.float32(LIMITS[encoding])
        self._floats = numpy.empty((CHUNK_BLOCKS, BLOCK_VALUES), numpy.float32)
        self._codes = numpy.empty((CHUNK_BLOCKS, BLOCK_VALUES), numpy.int8)
        self._shifted = numpy.empty((CHUNK_BLOCKS, BLOCK_VALUES // _WORD), numpy.uint64)
        self._packed = numpy.empty((CHUNK_BLOCKS, _HALF), numpy.uint8)
        self._starts = numpy.arange(0, CHUNK_BLOCKS * BLOCK_VALUES, BLOCK_VALUES)

    def encode(self, name: str, values: Floats) -> Bytes:
        """Flat, contiguous values in wire form. Raises LearnerError naming the tensor."""
        blocks = _blocks_of(values.size)
        out = numpy.empty(quantised_bytes(values.size, self._encoding), numpy.uint8)
        scales = out[: blocks * SCALE_BYTES].view("<f2")
        codes = out[blocks * SCALE_BYTES :].reshape(blocks, _codes_bytes(self._encoding))
        for start in range(0, blocks, CHUNK_BLOCKS):
            end = min(start + CHUNK_BLOCKS, blocks)
            chunk = _filled_up(values[start * BLOCK_VALUES : end * BLOCK_VALUES], end - start)
            self._encode_chunk(name, chunk, scales[start:end], codes[start:end])
        return out

    def decode(self, name: str, data: Bytes, count: int) -> Floats:
        """The `count` values of a tensor. Raises RemoteError naming what no encoder sends."""
        blocks = _blocks_of(count)
        scales = data[: blocks * SCALE_BYTES].view("<f2")
        packed = data[blocks * SCALE_BYTES :].reshape(blocks, _codes_bytes(self._encoding))
        if scales.size and int(scales.view("<u2").max()) >= _INFINITY_BITS_16:
            raise RemoteError(f"adapter payload: tensor {name} has a scale that is negative or not finite")
        out = numpy.empty((blocks, BLOCK_VALUES), numpy.float32)
        for start in range(0, blocks, CHUNK_BLOCKS):
            end = min(start + CHUNK_BLOCKS, blocks)
            codes = self._read_codes(packed[start:end])
            if int(codes.min()) < -self._limit:
                raise RemoteError(f"adapter payload: tensor {name} has a code below {-int(self._limit)}")
            wide = scales[start:end].astype(numpy.float32)
            if codes[wide == 0].any():
                raise RemoteError(f"adapter payload: tensor {name} has a code in a block of scale 0")
            if end == blocks and codes.reshape(-1)[count - start * BLOCK_VALUES :].any():
                raise RemoteError(f"adapter payload: tensor {name} has a code after its last value")
            numpy.copyto(out[start:end], codes)
            numpy.multiply(out[start:end], wide[:, None], out=out[start:end])
        return out.reshape(-1)[:count]

    def _encode_chunk(self, name: str, values: Floats, scales: npt.NDArray[numpy.float16], codes: Bytes) -> None:
        many = len(values)
        floats = self._floats[:many]
        numpy.bitwise_and(values.view(numpy.int32), _MAGNITUDE_BITS, out=floats.view(numpy.int32))
        # Magnitudes order like their bits; as integers NaN is above all of them and needs no care.
        peak_bits = numpy.maximum.reduceat(floats.view(numpy.int32).reshape(-1), self._starts[:many])
        if int(peak_bits.max()) >= _INFINITY_BITS:
            raise LearnerError(f"tensor {name} has a value that is not finite: training diverged", ExitCode.TRAINING)
        peaks = peak_bits.view(numpy.float32)
        self._write_scales(name, peaks, scales)
        wide = scales.astype(numpy.float32)
        inverse = numpy.divide(numpy.float32(1.0), wide, out=numpy.zeros_like(wide), where=wide > 0)
        numpy.multiply(values, inverse[:, None], out=floats)
        numpy.rint(floats, out=floats)
        self._write_codes(floats, codes)

    def _write_scales(self, name: str, peaks: Floats, scales: npt.NDArray[numpy.float16]) -> None:
        peak, most = float(peaks.max()), float(self._limit) * SCALE_MAX
        if peak > most:
            why = f"more than {self._encoding} holds ({most:g})"
            raise LearnerError(f"tensor {name} has a value of {peak:g}, {why}", ExitCode.TRAINING)
        bits = scales.view(numpy.uint16)
        bits[...] = _half_bits_below(peaks / self._limit)
        # The product is exact, so this finds every scale that falls short; its bits plus one are the next float16.
        bits += scales.astype(numpy.float32) * self._limit < peaks

    def _write_codes(self, rounded: Floats, out: Bytes) -> None:
        if self._encoding is Encoding.INT8:
            numpy.copyto(out.view(numpy.int8), rounded, casting="unsafe")
            return
        many = len(rounded)
        codes = self._codes[:many]
        numpy.copyto(codes, rounded, casting="unsafe")
        numpy.add(codes, _INT4_OFFSET, out=codes)
        words, packed = codes.view(numpy.uint64), self._packed[:many].view(numpy.uint64)
        # Codes are below 16 here, so none is shifted into its neighbour.
        shifted = numpy.left_shift(words, numpy.uint64(4), out=self._shifted[:many])
        columns = _HALF // _WORD
        for column in range(columns):
            numpy.bitwise_or(words[:, column], shifted[:, columns + column], out=packed[:, column])
        out[...] = self._packed[:many]

    def _read_codes(self, packed: Bytes) -> npt.NDArray[numpy.int8]:
        if self._encoding is Encoding.INT8:
            return packed.view(numpy.int8)
        codes = self._codes[: len(packed)]
        halves = codes.view(numpy.uint8)
        numpy.bitwise_and(packed, 15, out=halves[:, :_HALF])
        numpy.right_shift(packed, 4, out=halves[:, _HALF:])
        return cast(npt.NDArray[numpy.int8], numpy.subtract(codes, _INT4_OFFSET, out=codes))


def _blocks_of(count: int) -> int:
    return -(-count // BLOCK_VALUES)


def _codes_bytes(encoding: Encoding) -> int:
    """Of one block."""
    return _HALF if encoding is Encoding.INT4 else BLOCK_VALUES


def _half_bits_below(values: Floats) -> npt.NDArray[numpy.int32]:
    """Bits of the largest float16 not above each value, none negative or above SCALE_MAX.

    Not numpy's cast: below 2^-14, where an adapter's int8 scales are at first, it takes 70 ns a value.
    """
    bits = (values.view(numpy.int32) >> _HALF_SHIFT) - _HALF_BIAS
    tiny = values < _HALF_NORMAL
    if tiny.any():
        bits[tiny] = (values[tiny] * _HALF_STEPS).astype(numpy.int32)
    return bits


def _filled_up(values: Floats, blocks: int) -> Floats:
    """So many blocks; a copy only where the last one is not full."""
    if values.size == blocks * BLOCK_VALUES:
        return values.reshape(blocks, BLOCK_VALUES)
    filled = numpy.zeros((blocks, BLOCK_VALUES), numpy.float32)
    filled.reshape(-1)[: values.size] = values
    return filled
