"""Values as another node receives them, and what sending them costs: the product's own wire form."""

import numpy as np
import numpy.typing as npt

from tests.bench.learning.fleet import Values

BLOCK = 64


def received(values: Values, encoding: str) -> tuple[Values, int]:
    """What arrives, and how many bytes it took."""
    if encoding == "float32":
        return values, sum(value.nbytes for value in values.values())
    levels, bits = {"int4": (7, 4), "int8": (127, 8)}[encoding]
    flat = np.concatenate([value.ravel() for value in values.values()])
    arrived = _rounded(flat, levels)
    ends = np.cumsum([value.size for value in values.values()])[:-1]
    pieces = np.split(arrived, ends)
    named = {name: piece.reshape(value.shape) for (name, value), piece in zip(values.items(), pieces, strict=True)}
    return named, flat.size * bits // 8 + 2 * -(-flat.size // BLOCK)


def _rounded(flat: npt.NDArray[np.float32], levels: int) -> npt.NDArray[np.float32]:
    blocks = np.pad(flat, (0, -flat.size % BLOCK)).reshape(-1, BLOCK)
    scale = (np.abs(blocks).max(axis=1, keepdims=True) / levels).astype(np.float16).astype(np.float32)
    whole = np.round(np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale > 0)).clip(-levels, levels)
    return np.asarray((whole * scale).reshape(-1)[: flat.size], dtype=np.float32)
