"""Prompt templates of judges, by versioned id. The id is part of the network file: equal everywhere.

`p2pfed-*` is wording of this project with the sections and the output form of Prometheus. A text behind an
id never changes: a new wording is a new number. `prometheus-eval/*` is read from that installed
distribution, by file, so that none of its dependencies is needed; its wording is not in this repository.
The system text is joined as in the training of Prometheus 2: system, blank line, prompt, in the user turn.
"""

import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from p2pfed.errors import ConfigError
from p2pfed.train.rows import AbsoluteRow, RelativeRow, Rubric
from p2pfed.train.verdict import write_verdict

TEMPLATE_IDS = (
    "p2pfed-absolute/1",
    "p2pfed-relative/1",
    "p2pfed-compact/1",
    "prometheus-eval/absolute",
    "prometheus-eval/relative",
)
PROMETHEUS_EVAL_COMMAND = "pip install --no-deps prometheus-eval==0.1.20"

COMPACT_INSTRUCTION_TOKENS = 60
COMPACT_RESPONSE_TOKENS = 90
"""Guesses that a 135 M model on a CPU taught: a row of about 220 tokens, a fifth of the long form."""
COMPACT_REFERENCE_TOKENS = 0
"""The compact form leaves the reference out: it would double the row."""
COMPACT_CRITERIA_TOKENS = 40
COMPACT_FEEDBACK_TOKENS = 20
"""The first clause or two of a feedback: all that so small a model learns. 9 in 10 end where a clause does."""
CLAUSE_TOKENS_MIN = 4
"""A shorter clause ("Yes, ...") says nothing by itself."""

TokenSpans = Callable[[str], Sequence[tuple[int, int]]]
"""Where each token of a text begins and ends, in characters: what cutting to a number of tokens needs."""


@dataclass(frozen=True, slots=True)
class Template:
    """`with_reference` and `without_reference` are format strings; which is used depends on the row."""

    id: str
    mode: str
    """"absolute" or "relative"."""
    system: str
    with_reference: str
    without_reference: str
    rubric: str
    """Format string with {criteria} and {score1_description} to {score5_description}; "": criteria only."""
    compact: bool = False


@dataclass(frozen=True, slots=True)
class Rendered:
    """`completion` is None where the row carries no verdict to learn."""

    prompt: str
    completion: str | None


_ABSOLUTE_TASK = """###Task Description:
Below are an instruction, a response to it,{reference_clause} and a rubric for one quality of that response.
- Look at the response through this rubric alone and explain in a few sentences how well it does.
- After the explanation give one whole number from 1 to 5, chosen by what the rubric says of each score.
- Answer on one line in this form: (explanation) [RESULT] (whole number from 1 to 5)
- Begin with the explanation and stop after the number.

###The instruction to evaluate:
{{instruction}}

###Response to evaluate:
{{response}}
{reference_section}
###Score Rubrics:
{{rubric}}

###Feedback:"""

_RELATIVE_TASK = """###Task Description:
Below are an instruction, two responses to it,{reference_clause} and the quality they are compared by.
- Compare both responses with each other by this quality alone and explain the difference in a few sentences.
- After the explanation name the better one, A or B. A tie is not possible.
- Answer on one line in this form: (explanation) [RESULT] (A or B)
- Begin with the explanation and stop after the letter.

###Instruction:
{{instruction}}

###Response A:
{{response_a}}

###Response B:
{{response_b}}
{reference_section}
###Score Rubric:
{{rubric}}

###Feedback:"""

_COMPACT_TASK = """###Task: explain how well the response meets the criteria, then [RESULT] and a score from 1 to 5.
###Instruction: {instruction}
###Response: {response}
###Criteria: {rubric}
###Feedback:"""

_RUBRIC = """[{criteria}]
Score 1: {score1_description}
Score 2: {score2_description}
Score 3: {score3_description}
Score 4: {score4_description}
Score 5: {score5_description}"""

_ABSOLUTE_SYSTEM = "You are a careful examiner: you explain first, and you grade strictly by the rubric you are given."
_RELATIVE_SYSTEM = (
    "You are a careful examiner: you explain first, and you compare strictly by the quality you are given."
)


def load_template(template_id: str) -> Template:
    """The template of that id. Raises ConfigError for an unknown id or a distribution that is not installed."""
    match template_id:
        case "p2pfed-absolute/1":
            section = "\n###Reference Answer (Score 5):\n{{reference}}\n"
            clause = " a reference answer that deserves a 5"
            long = _ABSOLUTE_TASK
            system = _ABSOLUTE_SYSTEM
        case "p2pfed-relative/1":
            section = "\n###Reference Answer:\n{{reference}}\n"
            clause = " a reference answer"
            long = _RELATIVE_TASK
            system = _RELATIVE_SYSTEM
        case "p2pfed-compact/1":
            return Template(template_id, "absolute", "", _COMPACT_TASK, _COMPACT_TASK, "", compact=True)
        case "prometheus-eval/absolute" | "prometheus-eval/relative":
            return _official(template_id)
        case _:
            known = ", ".join(TEMPLATE_IDS)
            raise ConfigError(f"model.prompt {template_id!r} is not a template; known are {known}")
    with_reference = long.format(reference_clause=clause + ",", reference_section=section.format())
    return Template(
        template_id,
        template_id.removeprefix("p2pfed-").removesuffix("/1"),
        system,
        with_reference,
        long.format(reference_clause="", reference_section=""),
        _RUBRIC,
    )


def render(template: Template, row: AbsoluteRow | RelativeRow, spans: TokenSpans) -> Rendered:
    """The text before the verdict, and the verdict. ConfigError where the row is of the other mode."""
    if isinstance(row, RelativeRow) != (template.mode == "relative"):
        kind = "relative" if isinstance(row, RelativeRow) else "absolute"
        raise ConfigError(f"{kind} row, but this network grades by {template.id}")
    fields = _fields(template, row, spans)
    form = template.with_reference if row.reference else template.without_reference
    prompt = form.format(**fields)
    if template.system:
        prompt = f"{template.system}\n\n{prompt}"
    result = row.winner if isinstance(row, RelativeRow) else row.score
    if result is None or row.feedback is None:
        return Rendered(prompt, None)
    feedback = first_sentences(row.feedback, COMPACT_FEEDBACK_TOKENS, spans) if template.compact else row.feedback
    return Rendered(prompt, write_verdict(feedback, str(result)))


def cut_middle(text: str, tokens_max: int, spans: TokenSpans) -> str:
    """At most about `tokens_max` tokens of the text: two thirds from its head, the rest from its tail."""
    places = spans(text)
    if len(places) <= tokens_max:
        return text
    head = tokens_max * 2 // 3
    tail = tokens_max - head
    return f"{text[: places[head - 1][1]].rstrip()} ... {text[places[-tail][0] :].lstrip()}"


def first_sentences(text: str, tokens_max: int, spans: TokenSpans) -> str:
    """Whole sentences while they fit; of a first one that does not fit, whole clauses; of such a clause, its head."""
    for ends in (r"(?<=[.!?])\s+|$", r"(?<=[,;:])\s+"):
        kept = ""
        for end in (found.start() for found in re.finditer(ends, text)):
            if len(spans(text[:end])) > tokens_max:
                break
            kept = text[:end]
        if kept and (len(spans(kept)) >= CLAUSE_TOKENS_MIN or kept == text or kept[-1] in ".!?"):
            return kept.strip().rstrip(",;:")
    return text[: spans(text)[tokens_max - 1][1]].strip()


def _fields(template: Template, row: AbsoluteRow | RelativeRow, spans: TokenSpans) -> dict[str, str]:
    fields = {"instruction": row.instruction, "reference": row.reference, "reference_answer": row.reference}
    if isinstance(row, RelativeRow):
        fields |= {"response_a": row.response_a, "response_b": row.response_b}
        fields |= {"response_A": row.response_a, "response_B": row.response_b}
        # Relative grading was trained on the criteria alone; the score descriptions do not apply to a pair.
        return fields | {"rubric": row.rubric.criteria}
    if template.compact:
        line = " ".join(row.rubric.criteria.split())
        return fields | {
            "instruction": cut_middle(" ".join(row.instruction.split()), COMPACT_INSTRUCTION_TOKENS, spans),
            "response": cut_middle(" ".join(row.response.split()), COMPACT_RESPONSE_TOKENS, spans),
            "rubric": cut_middle(line, COMPACT_CRITERIA_TOKENS, spans),
        }
    return fields | {"response": row.response, "rubric": _rubric_text(template, row.rubric)}


def _rubric_text(template: Template, rubric: Rubric) -> str:
    if not rubric.descriptions or not template.rubric:
        return f"[{rubric.criteria}]"
    described = {f"score{score}_description": text for score, text in enumerate(rubric.descriptions, start=1)}
    return template.rubric.format(criteria=rubric.criteria, **described).strip()


def _official(template_id: str) -> Template:
    texts = _official_texts(template_id)
    mode = template_id.removeprefix("prometheus-eval/")
    long, short = ("ABSOLUTE", "ABS") if mode == "absolute" else ("RELATIVE", "REL")
    try:
        with_reference, without_reference = texts[f"{long}_PROMPT"], texts[f"{long}_PROMPT_WO_REF"]
        return Template(
            template_id,
            mode,
            texts[f"{short}_SYSTEM_PROMPT"].strip(),
            _trained_form(with_reference),
            _trained_form(without_reference),
            texts["SCORE_RUBRIC_TEMPLATE"],
        )
    except KeyError as missing:
        raise ConfigError(
            f"the installed prometheus-eval has no {missing} in prompts.py; {PROMETHEUS_EVAL_COMMAND}"
        ) from missing


def _trained_form(text: str) -> str:
    """The form the released models were trained on: the library's texts lost a leading "Feedback: " in rule 3."""
    if "Feedback: (write" not in text:
        text = text.replace('"(write', '"Feedback: (write', 1)
    return text.strip()


def _official_texts(template_id: str) -> Mapping[str, str]:
    """String constants of `prometheus_eval/prompts.py`, run as a file of its own: constants, no imports."""
    try:
        files = importlib.metadata.files("prometheus-eval") or []
        found = [file for file in files if file.as_posix() == "prometheus_eval/prompts.py"]
        path = found[0].locate()
        spec = importlib.util.spec_from_file_location("p2pfed_official_prompts", str(path))
    except (importlib.metadata.PackageNotFoundError, IndexError) as error:
        raise ConfigError(
            f"model.prompt {template_id!r} needs the texts of prometheus-eval: {PROMETHEUS_EVAL_COMMAND}"
        ) from error
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} can not be read as Python; {PROMETHEUS_EVAL_COMMAND}")
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: value for name, value in vars(module).items() if isinstance(value, str)}
