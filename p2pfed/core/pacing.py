"""How often a node begins a swap: about one swap a round, no matter which side began it.

A round (of local steps, or an idle tick) earns one, a finished swap spends one. Who is asked a lot begins less; the
bounds keep a node from saving up while alone, and from being silent for more than one round after a rush.
"""

CREDIT_MAX = 1
CREDIT_MIN = -1


class Pacing:
    """One node's credit."""

    def __init__(self) -> None:
        self.credit = 0

    @property
    def due(self) -> bool:
        """Begin a swap as soon as a partner is free."""
        return self.credit >= CREDIT_MAX

    def earn(self) -> None:
        self.credit = min(self.credit + 1, CREDIT_MAX)

    def spend(self) -> None:
        self.credit = max(self.credit - 1, CREDIT_MIN)
