"""Encoding and decoding of a 42 M-value adapter, against numpy's plain copy of the same float32 values.

GB/s count float32 bytes in or out. The copy goes into memory that is already there, the quickest a value can be
moved at all; encoding and decoding take new memory, as a node does. CPU seconds of one thread, the best of ROUNDS
taken in turns, so that what else the machine does counts little. `python -m tests.bench.encoding` prints one JSON line.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy

from p2pfed.ports import Encoding
from p2pfed.wire.tensors import Floats, pack_tensors, payload_size, unpack_tensors
from tests.bench.children import say

ROUNDS = 7
LAYERS, RANK, HIDDEN, KEYS, INNER = 32, 16, 4096, 1024, 14336
LINEAR = {
    "q_proj": (HIDDEN, HIDDEN),
    "k_proj": (HIDDEN, KEYS),
    "v_proj": (HIDDEN, KEYS),
    "o_proj": (HIDDEN, HIDDEN),
    "gate_proj": (HIDDEN, INNER),
    "up_proj": (HIDDEN, INNER),
    "down_proj": (INNER, HIDDEN),
}
"""Inputs and outputs of the linear layers of a 7B Mistral."""


def measure() -> dict[str, float]:
    values = _adapter()
    shapes = {name: tensor.shape for name, tensor in values.items()}
    count = sum(tensor.size for tensor in values.values())
    room = {name: numpy.zeros_like(tensor) for name, tensor in values.items()}
    payloads: dict[Encoding, bytes] = {}

    def copy() -> None:
        for name, tensor in values.items():
            numpy.copyto(room[name], tensor)

    def encode(encoding: Encoding) -> None:
        payloads[encoding] = pack_tensors(values, encoding)

    def decode(encoding: Encoding) -> None:
        unpack_tensors(payloads[encoding], shapes, encoding)

    works: dict[str, Callable[[], None]] = {"copy": copy}
    for each in Encoding:
        works[f"{each}_encode"] = partial(encode, each)
        works[f"{each}_decode"] = partial(decode, each)
    best = _best(works)
    figures: dict[str, float] = {"values": count, "tensors": len(values)}
    for name, seconds in best.items():
        figures[f"{name}_gb_per_s"] = 4 * count / 1e9 / seconds
    for each in Encoding:
        figures[f"{each}_bits_per_value"] = 8 * payload_size(shapes, each) / count
        for way in ("encode", "decode"):
            figures[f"ratio_{each}_{way}_to_copy"] = best["copy"] / best[f"{each}_{way}"]
    return figures


def _adapter() -> dict[str, Floats]:
    """LoRA factors of every linear layer, as differences of an adapter some steps old."""
    rng = numpy.random.default_rng(0)
    values = {}
    for layer in range(LAYERS):
        for name, (inputs, outputs) in LINEAR.items():
            for factor, shape in (("A", (RANK, inputs)), ("B", (outputs, RANK))):
                key = f"base_model.model.model.layers.{layer}.{name}.lora_{factor}.weight"
                values[key] = rng.standard_normal(shape, numpy.float32) * numpy.float32(1e-3)
    return values


def _best(works: dict[str, Callable[[], None]]) -> dict[str, float]:
    """CPU seconds of each."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            begun = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - begun)
    return best


if __name__ == "__main__":
    say({"bench": "encoding", **measure()})
