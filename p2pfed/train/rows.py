"""One training example as the user wrote it, and what each form must have.

Forms: absolute grading, relative grading, {"messages"}, {"prompt", "completion"}, {"text"}. The keys of
Feedback-Collection and Preference-Collection ("orig_instruction", ...) are understood as well.
A row that is not one of these raises RowError with a reason for people; no row is repaired by guessing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

SCORE_MIN = 1
SCORE_MAX = 5


class RowError(ValueError):
    """Why a row is not usable. The reader turns it into a rejected line, never into a traceback."""


@dataclass(frozen=True, slots=True)
class Rubric:
    """`descriptions` holds five texts, score 1 first, or none where only the criteria were given."""

    criteria: str
    descriptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AbsoluteRow:
    """Grade one response from 1 to 5. `feedback` and `score` are None where only grading is asked for."""

    instruction: str
    response: str
    rubric: Rubric
    feedback: str | None
    score: int | None
    reference: str = ""
    group: str = ""
    """Trade or domain, for statistics only; never in a prompt."""


@dataclass(frozen=True, slots=True)
class RelativeRow:
    """Say which of two responses is better; `winner` is "A" or "B"."""

    instruction: str
    response_a: str
    response_b: str
    rubric: Rubric
    feedback: str | None
    winner: str | None
    reference: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class ChatRow:
    """(role, content) pairs; the last is the assistant's and is what is learnt."""

    messages: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PairRow:
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class TextRow:
    text: str


Row = AbsoluteRow | RelativeRow | ChatRow | PairRow | TextRow

_ALIASES = {
    "instruction": ("orig_instruction", "instruction"),
    "response": ("orig_response", "response"),
    "response_a": ("orig_response_A", "response_A", "response_a"),
    "response_b": ("orig_response_B", "response_B", "response_b"),
    "reference": ("orig_reference_answer", "reference_answer"),
    "criteria": ("orig_criteria", "criteria"),
    "feedback": ("orig_feedback", "feedback"),
    "score": ("orig_score", "score"),
    "winner": ("orig_preference", "winner", "preference"),
    "group": ("trade", "domain", "category"),
}
"""Longer names first: in Feedback-Collection "instruction" is the rendered prompt, "orig_instruction" the task."""


def parse_row(values: Mapping[str, object]) -> Row:
    """The row these values are. Raises RowError."""
    if _present(values, "messages"):
        return _chat(values["messages"])
    if _find(values, "response_a") is not None:
        return _relative(values)
    if _find(values, "response") is not None:
        return _absolute(values)
    if _present(values, "prompt") and _present(values, "completion"):
        return PairRow(_plain(values, "prompt"), _plain(values, "completion"))
    if _present(values, "text"):
        return TextRow(_plain(values, "text"))
    keys = ", ".join(sorted(map(str, values))[:8]) or "none"
    raise RowError(
        f"keys {keys}: expected instruction+response+rubric, instruction+response_A+response_B+rubric, "
        "messages, prompt+completion or text"
    )


def row_kind(row: Row) -> str:
    """The word reports use: absolute, relative, messages, completion, text."""
    names: dict[type, str] = {
        AbsoluteRow: "absolute",
        RelativeRow: "relative",
        ChatRow: "messages",
        PairRow: "completion",
        TextRow: "text",
    }
    return names[type(row)]


def row_characters(row: Row) -> int:
    """Length of everything in the row that can reach the model."""
    match row:
        case ChatRow(messages):
            return sum(len(content) for _, content in messages)
        case PairRow(prompt, completion):
            return len(prompt) + len(completion)
        case TextRow(text):
            return len(text)
        case AbsoluteRow():
            answers: tuple[str, ...] = (row.response,)
        case RelativeRow():
            answers = (row.response_a, row.response_b)
    texts = (row.instruction, *answers, row.reference, row.rubric.criteria, *row.rubric.descriptions)
    return sum(map(len, texts)) + len(row.feedback or "")


def _absolute(values: Mapping[str, object]) -> AbsoluteRow:
    score = _score(_find(values, "score"))
    feedback = _find(values, "feedback")
    return AbsoluteRow(
        instruction=_text(values, "instruction"),
        response=_text(values, "response"),
        rubric=_rubric(values),
        feedback=None if feedback is None else _text(values, "feedback"),
        score=score,
        reference=_optional(values, "reference"),
        group=_optional(values, "group"),
    )


def _relative(values: Mapping[str, object]) -> RelativeRow:
    winner = _find(values, "winner")
    if winner is not None and winner not in ("A", "B"):
        raise RowError(f"winner {winner!r}, expected 'A' or 'B'")
    feedback = _find(values, "feedback")
    return RelativeRow(
        instruction=_text(values, "instruction"),
        response_a=_text(values, "response_a"),
        response_b=_text(values, "response_b"),
        rubric=_rubric(values),
        feedback=None if feedback is None else _text(values, "feedback"),
        winner=None if winner is None else str(winner),
        reference=_optional(values, "reference"),
        group=_optional(values, "group"),
    )


def _chat(messages: object) -> ChatRow:
    if not isinstance(messages, list) or len(messages) < 2:
        raise RowError("messages: expected a list of at least two messages")
    pairs = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise RowError("messages: each must be an object with role and content")
        role, content = message.get("role"), message.get("content")
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise RowError(f"messages: role {role!r}, expected system, user or assistant with a text as content")
        pairs.append((role, content))
    if pairs[-1][0] != "assistant" or not pairs[-1][1].strip():
        raise RowError("messages: the last one must be the assistant's and not empty")
    return ChatRow(tuple(pairs))


def _rubric(values: Mapping[str, object]) -> Rubric:
    given = values.get("rubric")
    if isinstance(given, str) and given.strip():
        return _rubric_text(given)
    if given is not None and not isinstance(given, (Mapping, str)):
        raise RowError(f"rubric is a {type(given).__name__}, expected an object or a text")
    source = given if isinstance(given, Mapping) else values
    criteria = _find(source, "criteria")
    if criteria is None:
        raise RowError("no criteria: expected rubric.criteria or criteria")
    descriptions = []
    for score in range(SCORE_MIN, SCORE_MAX + 1):
        for key in (f"orig_score{score}_description", f"score{score}_description"):
            if _present(source, key):
                descriptions.append(_plain(source, key))
                break
    if len(descriptions) not in (0, SCORE_MAX):
        raise RowError(f"rubric has {len(descriptions)} score descriptions, expected 5 or none")
    return Rubric(_text(source, "criteria"), tuple(descriptions))


def _rubric_text(text: str) -> Rubric:
    """A rubric written as one text: the criteria on the first line, then "Score n: ..." lines if any."""
    first, _, rest = text.strip().partition("\n")
    found = re.findall(r"^Score ([1-5]):[ \t]*(\S.*)$", rest, flags=re.MULTILINE)
    criteria = first.strip().removeprefix("[").removesuffix("]")
    if [number for number, _ in found] == ["1", "2", "3", "4", "5"]:
        return Rubric(criteria, tuple(description.strip() for _, description in found))
    return Rubric(text.strip() if rest.strip() else criteria)


def _score(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and value.strip() in {"1", "2", "3", "4", "5"}:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not SCORE_MIN <= value <= SCORE_MAX:
        raise RowError(f"score {value!r}, expected a whole number from 1 to 5")
    return value


def _find(values: Mapping[str, object], name: str) -> object | None:
    for key in _ALIASES[name]:
        if _present(values, key):
            return values[key]
    return None


def _present(values: Mapping[str, object], key: str) -> bool:
    """Present and not empty: a CSV cell without a value is an empty text, in Parquet it is None."""
    value = values.get(key)
    return value is not None and value != ""


def _text(values: Mapping[str, object], name: str) -> str:
    value = _find(values, name)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"no {name}: expected a text that is not empty")
    return value.strip()


def _optional(values: Mapping[str, object], name: str) -> str:
    value = _find(values, name)
    return value.strip() if isinstance(value, str) else ""


def _plain(values: Mapping[str, object], key: str) -> str:
    value = values[key]
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{key} is not a text or is empty")
    return value
