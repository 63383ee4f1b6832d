"""The gossip rule around any learner: what is sent, how two adapters move together, how far at most.

- A version's integers hold the difference to the start values, which all nodes share. A mix takes both versions as
  they were sent, so both sides add and subtract the same numbers: an unclipped pair's sum stays, to float32 rounding,
  whatever either learnt since. That holds because a node has one swap at a time: no difference counts twice.
- A neighbour's difference is clipped at `gossip.clip` * sqrt(step^2 + error^2): `step` is the distance the node's own
  steps went since the mix before, over `gossip.steps_between_swaps` steps at least, mixes left out; `error` what
  rounding did to its last version. On slow links several rounds lie between two mixes, so a radius of one round would
  cut most honest neighbours (measured: docs/lab-notes.md). Nothing is clipped before so many steps, nor where they
  moved nothing. Clipped and never refused: a node that refuses what is far loses touch.
- Who adopts another's adapter has not moved by that: neither `step` nor momentum sees it. Moments stay.
- `gossip.momentum`: "local" leaves the optimizer alone; "quasi-global" tells it, at the first mix after each round,
  what the adapter really moved; "gossip" mixes its first moment too, which travels as tensors named `first.NAME`.
  Where the adapter's difference is clipped, that of the moment is shortened by the same share.

Norms are over all values, summed in float64. Besides the learner's own there is one copy of the adapter for `step` and
one for quasi-global momentum; an export or a mix takes two more while it lasts.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias, cast

import numpy
import numpy.typing

from p2pfed.config import GossipConfig
from p2pfed.errors import ConfigError, ExitCode, LearnerError, RemoteError
from p2pfed.ports import Encoding, Learner, MixReport, Momentum, Progress, StepReport
from p2pfed.wire.tensors import pack_tensors, payload_size, unpack_tensors

Array: TypeAlias = numpy.typing.NDArray[numpy.float32]

FIRST = "first."
"""Before the name of a tensor: its first moment."""
MOMENTA: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"local": (), "quasi-global": ("steer",), "gossip": ("first_moment", "move_first_moment")}
)
"""What each `gossip.momentum` asks of a learner."""
RELATIVE = (Encoding.INT4, Encoding.INT8)
"""These hold differences to the start values, the others the values themselves."""
ADOPT_MOVES_MAX = 4
"""A float32 sum may miss its goal by its rounding; each further move misses by 2^-24 of the one before."""
CHECKPOINT_MAGIC = b"p2pfedM1"
_LENGTH_BYTES = 4
HEADER_BYTES_MAX = 4096
"""Of a checkpoint: a handful of numbers."""


@dataclass(slots=True)
class _Mark:
    """The adapter at one moment, after so many local steps."""

    steps: int
    values: dict[str, Array]

    def shift(self, by: Mapping[str, Array]) -> None:
        for name, array in self.values.items():
            numpy.add(array, by[name], out=array)


class AdapterMixer:
    """Implements `ports.Mixer`. Raises ConfigError where the learner cannot do what `gossip.momentum` asks."""

    def __init__(self, learner: Learner, gossip: GossipConfig) -> None:
        check_momentum(learner, gossip.momentum)
        self.learner = learner
        self._momentum = cast(Momentum, learner)
        self._gossip = gossip
        start = learner.start()
        self._start: dict[str, Array] = {name: numpy.asarray(start[name]) for name in sorted(start)}
        values = self._values()
        _check(values, self._start)
        shapes = {name: array.shape for name, array in self._start.items()}
        moments = {FIRST + name: shape for name, shape in shapes.items()} if gossip.momentum == "gossip" else {}
        if shapes.keys() & moments.keys():
            raise ConfigError(f"tensor {min(shapes.keys() & moments.keys())!r} has the name of a first moment")
        self._shapes: Mapping[str, tuple[int, ...]] = shapes | moments
        self._mixes = 0
        self._step: float | None = None
        self._errors: dict[Encoding, float] = {}
        steps = learner.progress().steps
        self._round = _Mark(steps, values) if gossip.clip > 0.0 else None
        self._steered = _Mark(steps, self._values()) if gossip.momentum == "quasi-global" else None

    def progress(self) -> Progress:
        return replace(self.learner.progress(), mixes=self._mixes)

    def fingerprint(self) -> Mapping[str, str]:
        return {
            **self.learner.fingerprint(),
            "adapter": shapes_digest({name: array.shape for name, array in self._start.items()}),
            "initial": values_digest(self._start),
        }

    def payload_bytes(self, encoding: Encoding) -> int:
        return payload_size(self._shapes, encoding)

    def step(self) -> StepReport:
        return self.learner.step()

    def export(self, encoding: Encoding) -> bytes:
        values = self._values()
        sent = {name: self._sent(name, array, encoding) for name, array in values.items()}
        payload = pack_tensors(sent | self._moments(), encoding)
        del sent  # before the version's values come out of it again: a copy of the adapter less at a time
        if encoding is not Encoding.FLOAT32:
            read = unpack_tensors(payload, self._shapes, encoding)
            self._errors[encoding] = norm_of(
                read.pop(name) - self._sent(name, array, encoding) for name, array in values.items()
            )
        return payload

    def admit(self, payload: bytes, encoding: Encoding) -> None:
        unpack_tensors(payload, self._shapes, encoding)

    def mix(self, own: bytes, theirs: bytes, encoding: Encoding, weight: float) -> MixReport:
        mine = unpack_tensors(own, self._shapes, encoding)
        others = unpack_tensors(theirs, self._shapes, encoding)
        by = {name: numpy.asarray(others.pop(name) - mine.pop(name)) for name in self._shapes}
        distance = norm_of(by[name] for name in self._start)
        self._end_round()
        kept = self._kept(distance, encoding)
        for difference in by.values():
            numpy.multiply(difference, weight * kept, out=difference)
        moments = {name: by.pop(FIRST + name) for name in self._start if FIRST + name in self._shapes}
        self._move(by)
        if moments:
            self._momentum.move_first_moment(moments)
        self._mixes += 1
        values = self._values()
        self._steer(values)
        return MixReport(distance, self._norm(values), kept)

    def adopt(self, theirs: bytes, encoding: Encoding, mixes: int) -> MixReport:
        read = unpack_tensors(theirs, self._shapes, encoding)
        wanted = {name: read[name] for name in self._start}
        if encoding in RELATIVE:
            wanted = {name: array + self._start[name] for name, array in wanted.items()}
        distance: float | None = None
        for _ in range(ADOPT_MOVES_MAX):
            values = self._values()
            by = {name: numpy.asarray(wanted[name] - values.pop(name)) for name in wanted}
            left = norm_of(by.values())
            distance = left if distance is None else distance
            if left == 0.0:
                break
            self._move(by)
            if self._steered is not None:
                self._steered.shift(by)
        self._mixes = mixes
        return MixReport(distance or 0.0, self._norm(self._values()))

    def save(self) -> bytes:
        """The round under way is left out: it starts anew at `load`, the radius stays."""
        learner = self.learner.save()
        steered = pack_tensors(self._steered.values, Encoding.FLOAT32) if self._steered is not None else b""
        header = {
            "mixes": self._mixes,
            "step": self._step,
            "errors": {encoding.value: error for encoding, error in self._errors.items()},
            "steered_steps": self._steered.steps if self._steered is not None else 0,
            "learner_bytes": len(learner),
            "steered_bytes": len(steered),
        }
        text = json.dumps(header).encode()
        return CHECKPOINT_MAGIC + len(text).to_bytes(_LENGTH_BYTES, "big") + text + learner + steered

    def load(self, checkpoint: bytes) -> None:
        header, learner, steered = _read_checkpoint(checkpoint)
        mark = self._read_mark(header["steered_steps"], steered)
        self.learner.load(learner)
        self._mixes, self._step, self._errors = header["mixes"], header["step"], header["errors"]
        steps = self.learner.progress().steps
        if self._round is not None:
            self._round = _Mark(steps, self._values())
        if self._steered is not None:
            self._steered = mark if mark is not None else _Mark(steps, self._values())

    def _values(self) -> dict[str, Array]:
        return {name: numpy.asarray(array) for name, array in self.learner.values().items()}

    def _sent(self, name: str, array: Array, encoding: Encoding) -> Array:
        """What of a tensor is put into that encoding."""
        return numpy.asarray(array - self._start[name]) if encoding in RELATIVE else array

    def _moments(self) -> dict[str, Array]:
        if self._gossip.momentum != "gossip":
            return {}
        return {FIRST + name: moment for name, moment in self._momentum.first_moment().items()}

    def _move(self, by: Mapping[str, Array]) -> None:
        """What the network moves is no step of one's own: the round's start moves along."""
        self.learner.move(by)
        if self._round is not None:
            self._round.shift(by)

    def _end_round(self) -> None:
        """Measure the own steps since the mix before, where they are enough for a round."""
        steps = self.learner.progress().steps
        if self._round is not None and self._over(self._round, steps):
            values = self._values()
            self._step = norm_of(array - self._round.values[name] for name, array in values.items())
            self._round = _Mark(steps, values)

    def _over(self, mark: _Mark, steps: int) -> bool:
        return steps - mark.steps >= max(1, self._gossip.steps_between_swaps)

    def _kept(self, distance: float, encoding: Encoding) -> float:
        """The share of a difference of that length which the clipping leaves."""
        if self._round is None or not self._step:
            return 1.0
        radius = self._gossip.clip * math.hypot(self._step, self._errors.get(encoding, 0.0))
        return min(1.0, radius / distance) if distance > 0.0 else 1.0

    def _steer(self, values: dict[str, Array]) -> None:
        steps = self.learner.progress().steps
        if self._steered is None or not self._over(self._steered, steps):
            return
        before = self._steered.values
        self._steered = _Mark(steps, values)
        self._momentum.steer({name: numpy.asarray(array - before.pop(name)) for name, array in values.items()})

    def _norm(self, values: Mapping[str, Array]) -> float:
        return norm_of(array - self._start[name] for name, array in values.items())

    def _read_mark(self, steps: int, payload: bytes) -> _Mark | None:
        if not payload:
            return None
        shapes = {name: array.shape for name, array in self._start.items()}
        try:
            read = unpack_tensors(payload, shapes, Encoding.FLOAT32)
        except RemoteError as error:
            raise LearnerError(f"checkpoint does not fit: {error}", ExitCode.CHECKPOINT) from error
        return _Mark(steps, {name: numpy.array(array) for name, array in read.items()})


def check_momentum(learner: object, momentum: str) -> None:
    """Raises ConfigError where `momentum` is none of those there are, or asks for what the learner has not."""
    if momentum not in MOMENTA:
        raise ConfigError(f"gossip.momentum {momentum!r}, expected {', '.join(MOMENTA)}")
    for method in MOMENTA[momentum]:
        if not callable(getattr(learner, method, None)):
            raise ConfigError(
                f"gossip.momentum {momentum!r} needs a learner with the method {method}, "
                f'{type(learner).__name__} has none; use "local"'
            )


def norm_of(arrays: Iterable[numpy.typing.NDArray[Any]]) -> float:
    """L2 norm over all values, summed in float64."""
    return math.sqrt(sum(float(numpy.square(array, dtype=numpy.float64).sum()) for array in arrays))


def shapes_digest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Of names and shapes: what must be equal for two adapters to be averaged."""
    return hashlib.sha256(
        json.dumps(sorted((name, list(shape)) for name, shape in shapes.items())).encode()
    ).hexdigest()


def values_digest(values: Mapping[str, Array]) -> str:
    """Of the values' bytes, little endian, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(values):
        digest.update(values[name].astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _check(values: Mapping[str, Array], start: Mapping[str, Array]) -> None:
    """Raises LearnerError where values are not float32 of the same names and shapes as at the start."""
    if not start or values.keys() != start.keys():
        raise LearnerError(f"a learner with values {sorted(values)} and start values {sorted(start)}")
    for name, array in values.items():
        for each in (array, start[name]):
            if each.dtype != numpy.float32 or each.shape != start[name].shape:
                raise LearnerError(
                    f"tensor {name} has {each.dtype} of shape {each.shape}, not float32 of {start[name].shape}"
                )


def _read_checkpoint(checkpoint: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """Header, the learner's part, the steered mark's part."""
    try:
        begin = len(CHECKPOINT_MAGIC) + _LENGTH_BYTES
        length = int.from_bytes(checkpoint[len(CHECKPOINT_MAGIC) : begin], "big")
        if not checkpoint.startswith(CHECKPOINT_MAGIC) or length > HEADER_BYTES_MAX:
            raise ValueError("it does not begin as one")
        header: dict[str, Any] = json.loads(checkpoint[begin : begin + length])
        for name in ("mixes", "steered_steps", "learner_bytes", "steered_bytes"):
            if type(header[name]) is not int or header[name] < 0:
                raise ValueError(f"{name} {header[name]!r}")
        header["errors"] = {Encoding(name): _finite(error) for name, error in header["errors"].items()}
        header["step"] = _finite(header["step"]) if header["step"] is not None else None
        parts = header["learner_bytes"] + header["steered_bytes"]
        if len(checkpoint) != begin + length + parts:
            raise ValueError(f"{len(checkpoint)} bytes, not {begin + length + parts}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LearnerError(f"checkpoint is damaged: {str(error)[:120]}", ExitCode.CHECKPOINT) from error
    middle = begin + length + header["learner_bytes"]
    return header, checkpoint[begin + length : middle], checkpoint[middle:]


def _finite(value: object) -> float:
    if type(value) is not float or not math.isfinite(value) or value < 0.0:
        raise ValueError(f"norm {value!r}")
    return value
