"""Values as another node receives them, and what sending them costs: the product's own wire form."""

from collections.abc import Sequence

from p2pfed.ports import Encoding
from p2pfed.wire.tensors import pack_tensors, unpack_tensors
from tests.bench.learning.fleet import Values, mean_of


def received(values: Values, encoding: Encoding) -> tuple[Values, int]:
    """What arrives, and how many bytes it took. Integers want a difference, which is small."""
    payload = pack_tensors(values, encoding)
    return unpack_tensors(payload, {name: array.shape for name, array in values.items()}, encoding), len(payload)


def snapshot(many: Sequence[Values], start: Values, encoding: Encoding) -> Values:
    """The consensus as whoever asks all nodes for their versions in `encoding` finds it."""
    apart = [received({name: each[name] - start[name] for name in start}, encoding)[0] for each in many]
    mean = mean_of(apart)
    return {name: start[name] + mean[name] for name in start}
