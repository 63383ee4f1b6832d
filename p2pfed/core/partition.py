"""Suspicion that the network was cut: most neighbours fell silent together, or the network-wide counters shrank.

A suspicion changes nothing but how often lost peers are dialled, and what a person is told: it may be wrong, as
nobody can tell a cut from many devices that were switched off together.
"""

from dataclasses import dataclass

from p2pfed.core.estimate import Figures
from p2pfed.ports import PeerId

LOSS_WINDOW_S = 60.0
"""Losses so far apart belong together: pings find the links of one cut within about this time."""
LOST_MIN = 2
"""Losing one neighbour is everyday life."""
LOST_SHARE = 0.4
"""Of the neighbours there were. A cut in halves takes half of a node's random neighbours, give or take chance."""
SHRUNK_SHARE = 0.75
"""The network's size below this share of what it was, both within their error, is a split of its counters."""
GROWN_SHARE = 0.9
"""Of the former size, at which the network counts as whole again."""
URGENT_S = 600.0
"""So long lost peers are dialled at the higher rate; then as any others, for ever."""
REMEMBERED_S = 3600.0
"""A suspicion that nothing has ended is dropped after an hour: the network is what it is now."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    since: float
    lost: int
    """Neighbours that fell silent together."""
    linked: int
    """Neighbours that stayed."""
    size_before: float | None = None
    size: float | None = None
    """Nodes of the whole network before and now, where its counters told."""

    @property
    def sentence(self) -> str:
        if self.size is not None and self.size_before is not None:
            return (
                f"the network shrank from about {self.size_before:.0f} nodes to {self.size:.0f}: it may be cut in two; "
                "peers of the other side are dialled on and on"
            )
        if self.linked == 0:
            return f"all {self.lost} neighbours fell silent together: this device may be cut off; they are dialled on"
        return (
            f"{self.lost} of {self.lost + self.linked} neighbours fell silent together: the network may be cut in two; "
            "they are dialled on and on"
        )


class PartitionWatch:
    """Keeps recent losses and the size of the network; says when to suspect a cut, and when that is over."""

    def __init__(self) -> None:
        self.suspicion: Suspicion | None = None
        self._lost: dict[PeerId, float] = {}
        self._missing: dict[PeerId, float] = {}
        """Lost in the cut that is suspected."""
        self._size: tuple[float, float] | None = None
        """Nodes of the network as it last was, and the error of that."""

    def missing(self, peer: PeerId) -> bool:
        """Whether this peer is thought to be on the other side."""
        return peer in self._missing

    def urgent(self, now: float) -> bool:
        return self.suspicion is not None and now - self.suspicion.since < URGENT_S

    def lost(self, peer: PeerId, linked: int, now: float) -> Suspicion | None:
        """A neighbour was lost, and not by its own word; `linked` are left. Gives a suspicion that is new."""
        self._lost = {each: at for each, at in self._lost.items() if now - at <= LOSS_WINDOW_S}
        self._lost[peer] = now
        if self.urgent(now):
            self._missing[peer] = now
        lost = len(self._lost)
        if lost < LOST_MIN or lost < LOST_SHARE * (lost + linked):
            return None
        self._missing |= self._lost
        return self._suspect(Suspicion(now, lost, linked))

    def found(self, peer: PeerId) -> bool:
        """A neighbour is back, or new. True where that ends a suspicion: somebody of the other side is here."""
        self._lost.pop(peer, None)
        if self._missing.pop(peer, None) is None or self.suspicion is None or self.suspicion.size is not None:
            return False
        self.suspicion = None
        return True

    def sized(self, figures: Figures | None, now: float) -> tuple[Suspicion | None, bool]:
        """The network-wide counters now. Gives a suspicion that is new, and whether one is over."""
        if self.suspicion is not None and now - self.suspicion.since > REMEMBERED_S:
            self._size = None
            return None, self._over()
        if figures is None or figures.error >= 1.0 - SHRUNK_SHARE:
            return None, False
        size, error = figures.size, figures.error
        if self._size is None:
            self._size = size, error
            return None, False
        before, error_before = self._size
        if size * (1.0 + error) < SHRUNK_SHARE * before * (1.0 - error_before) and before - size >= LOST_MIN:
            return self._suspect(Suspicion(now, len(self._missing), 0, before, size)), False
        if self.suspicion is None or self.suspicion.size is None:
            self._size = size, error
            return None, False
        whole = size >= GROWN_SHARE * before
        return None, whole and self._over()

    def _suspect(self, suspicion: Suspicion) -> Suspicion | None:
        """A suspicion by counters takes the place of one by losses, never the other way."""
        before = self.suspicion
        if before is not None and (before.size is not None or suspicion.size is None):
            return None
        self.suspicion = suspicion
        return suspicion

    def _over(self) -> bool:
        self.suspicion = None
        self._missing.clear()
        return True
