"""What the simulator needs of a mixer beyond `ports.Mixer`: its values as plain numbers, and a second pen for liars."""

from collections.abc import Sequence
from typing import Protocol

from p2pfed.ports import Encoding, Mixer


class SimMixer(Mixer, Protocol):
    """All adapter values in one sequence, in an order of its own that is equal for all nodes of a network."""

    @property
    def values(self) -> Sequence[float]: ...

    @property
    def start(self) -> Sequence[float]:
        """What the integer encodings hold differences to."""

    def export_of(self, values: Sequence[float], encoding: Encoding) -> bytes:
        """What `export` would give if these were the values."""
