"""How long to wait for somebody, learned from how long they took before.

A smoothed mean and mean deviation, as TCP's retransmission timer has them (RFC 6298, section 2; V. Jacobson,
Congestion Avoidance and Control, 1988). What is waited for, and between which bounds, is the caller's.
"""

MEAN_GAIN = 1.0 / 8.0
"""Weight of a new time in the mean: about eight times make it (RFC 6298)."""
DEVIATION_GAIN = 1.0 / 4.0
"""The same for the deviation, which must follow a change at once (RFC 6298)."""
DEVIATIONS = 4.0
"""Waited for beyond the mean: of times with a bell curve, one in some hundreds takes longer (RFC 6298)."""
DOUBLINGS_MAX = 16
"""Beyond it a limit grows no more: every caller's longest is reached by then."""


class Pace:
    """The times one peer takes for one kind of thing."""

    __slots__ = ("_deviation_s", "_late", "_mean_s")

    def __init__(self) -> None:
        self._mean_s: float | None = None
        self._deviation_s = 0.0
        self._late = 0

    def observe(self, took_s: float) -> None:
        """It came, after so long; however late, it is alive."""
        self._late = 0
        if self._mean_s is None:
            self._mean_s, self._deviation_s = took_s, took_s / 2.0
            return
        off_s = took_s - self._mean_s
        self._deviation_s += DEVIATION_GAIN * (abs(off_s) - self._deviation_s)
        self._mean_s += MEAN_GAIN * off_s

    def late(self) -> None:
        """It did not come within the limit: the next one is twice as long, until something comes."""
        self._late = min(self._late + 1, DOUBLINGS_MAX)

    def limit_s(self, first_s: float, min_s: float, max_s: float) -> float:
        """How long to wait for the next, between `min_s` and `max_s`. `first_s`: before anything was observed."""
        usual_s = first_s if self._mean_s is None else self._mean_s + DEVIATIONS * self._deviation_s
        return min(max_s, max(min_s, usual_s * 2.0**self._late))
