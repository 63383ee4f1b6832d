"""What the simulator needs beyond `ports.Mixer`: values as plain numbers, a second pen for liars, a source."""

from collections.abc import Sequence
from typing import Protocol

from p2pfed.ports import Encoding, Mixer
from p2pfed.sim.options import NodeOptions


class SimMixer(Mixer, Protocol):
    """All adapter values in one sequence, in an order of its own that is equal for all nodes of a network."""

    @property
    def values(self) -> Sequence[float]: ...

    @property
    def start(self) -> Sequence[float]:
        """What the integer encodings hold differences to."""

    def export_of(self, values: Sequence[float], encoding: Encoding) -> bytes:
        """What `export` would give if these were the values."""


class MixerSource(Protocol):
    """Where a network takes its nodes' mixers from: `population.Population`, or a bench with learners of its own."""

    def mixer(self, node: NodeOptions) -> SimMixer:
        """A new one, at the start values, for each run of a node; where there is a checkpoint, it is loaded then."""
