"""Values as another node receives them, and what sending them costs: the product's own wire form."""

from p2pfed.ports import Encoding
from p2pfed.wire.tensors import pack_tensors, unpack_tensors
from tests.bench.learning.fleet import Values


def received(values: Values, encoding: Encoding) -> tuple[Values, int]:
    """What arrives, and how many bytes it took. Integers want a difference, which is small."""
    payload = pack_tensors(values, encoding)
    return unpack_tensors(payload, {name: array.shape for name, array in values.items()}, encoding), len(payload)
