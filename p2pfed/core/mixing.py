"""What a swap does to the two adapters: mix, adopt, stay, or nothing. Both partners conclude it from the same words.

Mixing moves both by a share of one difference, that of the two versions *as they were sent*: what one
gains the other gives, so their weighted sum is kept exactly, whatever the encoding lost and whatever steps
were made meanwhile. A node has one swap at a time, so no difference is counted twice, which is what makes
late differences unstable. How far a neighbour may pull is the learner's side of the rule (`p2pfed.mixer`).
"""

from enum import Enum, auto

from p2pfed.core.messages import Terms, Version

AWAY_MIXES = 8
"""Mixes by which a neighbour must be ahead for a node that has not mixed in this run to take over its adapter.
Away for four rounds, copying first was measured to pay; a quick restart keeps what it learnt."""


class Outcome(Enum):
    """What a swap does at this side."""

    MIX = auto()
    ADOPT = auto()
    """This node was away: it takes the partner's adapter over."""
    STAY = auto()
    """The partner adopts; there is nothing to take from it."""
    SAME = auto()
    """Both hold the same bytes."""

    @property
    def fetches(self) -> bool:
        """True where the partner's version is needed here."""
        return self in (Outcome.MIX, Outcome.ADOPT)


def outcome_of(own: Version, terms: Terms, theirs: Version, their_terms: Terms) -> Outcome:
    """At the side of `own`; the partner comes to the mirror image."""
    if own.digest == theirs.digest:
        return Outcome.SAME
    if _was_away(own, terms, theirs, their_terms):
        return Outcome.ADOPT
    return Outcome.STAY if _was_away(theirs, their_terms, own, terms) else Outcome.MIX


def weight_of(terms: Terms, their_terms: Terms) -> float:
    """The share of the difference to take. n_j / (n_i + n_j) at both sides keeps n_i x_i + n_j x_j, step by step:
    the consensus is the weighted mean, with no weights to pass on (push-sum's purpose, for atomic pairs)."""
    return their_terms.weight / (terms.weight + their_terms.weight)


def _was_away(one: Version, terms: Terms, other: Version, other_terms: Terms) -> bool:
    return not terms.settled and other_terms.settled and other.mixes - one.mixes >= AWAY_MIXES
