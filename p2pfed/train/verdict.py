"""Reading a judge's answer: `feedback [RESULT] 4`, or `feedback [RESULT] A`.

Two readings. Strict: the answer is exactly what training shows. Lenient: as people read it, for models
that were not trained by us. Neither ever invents a score: what can not be read is None.
"""

import re
from dataclasses import dataclass

RESULT_MARK = "[RESULT]"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`result` is "1" to "5" in absolute grading, "A" or "B" in relative grading."""

    feedback: str
    result: str

    @property
    def score(self) -> int | None:
        return int(self.result) if self.result.isdigit() else None


_ALLOWED = {"absolute": "12345", "relative": "AB"}

_ABSOLUTE = re.compile(
    r"(?:\[\s*(?:result|score)\s*:?\s*\]|\b(?:result|score)\b\s*(?::|is\b|of\b|=)?)\s*:?\s*[\[(*]*\s*"
    r"([1-5])(?:\s*(?:/|out\s+of)\s*5)?\s*[\])*]*\s*[.!]?\s*$",
    re.IGNORECASE,
)
_FRACTION = re.compile(r"(?:^|[\s(\[])([1-5])\s*(?:/|out\s+of)\s*5\s*[\])]?\s*[.!]?\s*$", re.IGNORECASE)
_RELATIVE = re.compile(
    r"\[?\s*\b(?:result|winner)\b\s*\]?\s*:?\s*(?:is\s+)?[\[(*]*\s*(?:response\s+)?([AB])\s*[\])*]*\s*[.!]?\s*$",
    re.IGNORECASE,
)


def read_strict(text: str, mode: str = "absolute") -> Verdict | None:
    """Exactly one mark, and after it nothing but the result."""
    parts = text.split(RESULT_MARK)
    if len(parts) != 2:
        return None
    result = parts[1].strip()
    if len(result) != 1 or result not in _ALLOWED[mode]:
        return None
    return Verdict(parts[0].strip(), result)


def read_lenient(text: str, mode: str = "absolute") -> Verdict | None:
    """Also "Score: 4", "4/5", "score of 4", "[RESULT] 4." and other cases, but only at the end of the text."""
    strict = read_strict(text, mode)
    if strict is not None:
        return strict
    for pattern in (_RELATIVE,) if mode == "relative" else (_ABSOLUTE, _FRACTION):
        found = pattern.search(text.rstrip())
        if found is not None:
            return Verdict(text[: found.start()].strip(), found.group(1).upper())
    return None


def write_verdict(feedback: str, result: str) -> str:
    """The form `read_strict` reads. A mark inside the feedback would make it unreadable, so it is left out."""
    return f"{feedback.replace(RESULT_MARK, '').strip()} {RESULT_MARK} {result}"
