"""Judgements of a held-out set in a few numbers, next to what answering without reading would get.

A loss is weighed by token. Errors count only verdicts that were read; how many were not stands beside them.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from p2pfed.errors import ExitCode, LearnerError
from p2pfed.train.judge import Judgement
from p2pfed.train.rows import SCORE_MAX, SCORE_MIN, AbsoluteRow


@dataclass(frozen=True, slots=True)
class Summary:
    """Of absolute grading. `mae` and `exact` are None where no verdict could be read."""

    rows: int
    tokens: int
    loss: float
    perplexity: float
    parse_rate: float
    histogram: tuple[int, ...]
    """How often each score was written, 1 first."""
    mae: float | None
    exact: float | None
    commonest_share: float
    """Of the read verdicts, the share of the commonest score; over 0.9 the model does not discriminate."""
    direct_mae: float
    """Of the expected score, read off the probabilities asked for at once; defined for every row."""


def summarise(rows: Sequence[AbsoluteRow], judgements: Sequence[Judgement]) -> Summary:
    """Every row must carry its verdict. Raises LearnerError (ExitCode.DATA) otherwise."""
    known = [(row.score, judged) for row, judged in zip(rows, judgements, strict=True)]
    tokens = sum(judged.tokens for judged in judgements)
    losses = [judged.loss * judged.tokens for judged in judgements if judged.loss is not None]
    if len(losses) != len(known) or not known:
        raise LearnerError("a held-out row has no feedback and score to compare with", ExitCode.DATA)
    loss = sum(losses) / tokens
    read = [(score or 0, judged.verdict.score or 0) for score, judged in known if judged.verdict is not None]
    counts = Counter(found for _, found in read)
    direct = [abs(expected_score(judged.direct) - (score or 0)) for score, judged in known]
    return Summary(
        rows=len(known),
        tokens=tokens,
        loss=loss,
        perplexity=math.exp(loss),
        parse_rate=len(read) / len(known),
        histogram=tuple(counts[score] for score in range(SCORE_MIN, SCORE_MAX + 1)),
        mae=sum(abs(a - b) for a, b in read) / len(read) if read else None,
        exact=sum(a == b for a, b in read) / len(read) if read else None,
        commonest_share=max(counts.values(), default=0) / max(len(read), 1),
        direct_mae=sum(direct) / len(direct),
    )


def expected_score(probabilities: Sequence[float]) -> float:
    """The mean of the scores 1 to 5 under these probabilities."""
    return sum(score * chance for score, chance in enumerate(probabilities, start=SCORE_MIN))
