"""Swaps of this run, summed over the event log's entries."""

from dataclasses import dataclass, field

from p2pfed.core.events import Report


@dataclass(slots=True)
class SwapTotals:
    """What `core.statistics` does not tell apart, summed over the event log's entries of this run."""

    declined: dict[str, int] = field(default_factory=dict)
    """By reason."""
    mixed: int = 0
    kept_sum: float = 0.0

    def add(self, report: Report) -> None:
        match report.kind:
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
