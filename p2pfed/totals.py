"""Swaps of this run, summed over the event log's entries."""

from dataclasses import dataclass, field

from p2pfed.core.events import Report
from p2pfed.ports import PeerId

SWAPPED_KEPT = 128
"""As many as a view holds."""


@dataclass(slots=True)
class SwapTotals:
    """What `core.statistics` does not tell apart, summed over the event log's entries of this run."""

    declined: dict[str, int] = field(default_factory=dict)
    """By reason."""
    mixed: int = 0
    kept_sum: float = 0.0
    swapped_at: dict[PeerId, float] = field(default_factory=dict)
    """When the last swap with each peer was finished; of the last SWAPPED_KEPT peers."""

    def add(self, report: Report, now: float) -> None:
        match report.kind:
            case "swap-finished":
                peer = PeerId(str(report.fields["peer"]))
                self.swapped_at.pop(peer, None)
                self.swapped_at[peer] = now
                if len(self.swapped_at) > SWAPPED_KEPT:
                    del self.swapped_at[next(iter(self.swapped_at))]
            case "swap-declined":
                reason = str(report.fields["reason"])
                self.declined[reason] = self.declined.get(reason, 0) + 1
            case "mixed":
                self.mixed += 1
                self.kept_sum += float(report.fields["kept"] or 0.0)

    @property
    def kept(self) -> float | None:
        """Mean share of neighbours' differences that clipping left; None before the first mix."""
        return self.kept_sum / self.mixed if self.mixed else None
