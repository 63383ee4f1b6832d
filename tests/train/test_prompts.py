"""Templates as golden texts (a text behind an id never changes), cutting, and the verdict's two readings."""

import importlib.metadata
from pathlib import Path

import pytest

from p2pfed.errors import ConfigError
from p2pfed.train.prompts import cut_middle, first_sentences, load_template, render
from p2pfed.train.rows import AbsoluteRow, RelativeRow, Rubric
from p2pfed.train.verdict import read_lenient, read_strict, write_verdict

RUBRIC = Rubric("Is the fault named?", ("no", "hardly", "in part", "nearly", "yes"))
ABSOLUTE = AbsoluteRow("Why does {it} stop?", "The {door} switch.", RUBRIC, "It names the switch. It is brief.", 5)
RELATIVE = RelativeRow("Why?", "The switch.", "No idea.", RUBRIC, "A names a cause, B does not.", "A")


def words(text: str) -> list[tuple[int, int]]:
    """Token spans by words: enough to test cutting, and no model is needed."""
    spans, at = [], 0
    for word in text.split():
        start = text.index(word, at)
        at = start + len(word)
        spans.append((start, at))
    return spans


def test_absolute() -> None:
    found = render(load_template("p2pfed-absolute/1"), ABSOLUTE, words)
    assert found.completion == "It names the switch. It is brief. [RESULT] 5"
    assert (
        found.prompt
        == """\
You are a careful examiner: you explain first, and you grade strictly by the rubric you are given.

###Task Description:
Below are an instruction, a response to it, and a rubric for one quality of that response.
- Look at the response through this rubric alone and explain in a few sentences how well it does.
- After the explanation give one whole number from 1 to 5, chosen by what the rubric says of each score.
- Answer on one line in this form: (explanation) [RESULT] (whole number from 1 to 5)
- Begin with the explanation and stop after the number.

###The instruction to evaluate:
Why does {it} stop?

###Response to evaluate:
The {door} switch.

###Score Rubrics:
[Is the fault named?]
Score 1: no
Score 2: hardly
Score 3: in part
Score 4: nearly
Score 5: yes

###Feedback:"""
    )


def test_absolute_with_reference() -> None:
    row = AbsoluteRow("Why?", "The switch.", Rubric("Clear?"), "Yes.", 4, reference="The door switch.")
    prompt = render(load_template("p2pfed-absolute/1"), row, words).prompt
    assert "a response to it, a reference answer that deserves a 5, and a rubric" in prompt
    assert "###Response to evaluate:\nThe switch.\n\n###Reference Answer (Score 5):\nThe door switch.\n\n" in prompt
    assert prompt.endswith("###Score Rubrics:\n[Clear?]\n\n###Feedback:")


def test_relative() -> None:
    found = render(load_template("p2pfed-relative/1"), RELATIVE, words)
    assert found.completion == "A names a cause, B does not. [RESULT] A"
    assert (
        found.prompt
        == """\
You are a careful examiner: you explain first, and you compare strictly by the quality you are given.

###Task Description:
Below are an instruction, two responses to it, and the quality they are compared by.
- Compare both responses with each other by this quality alone and explain the difference in a few sentences.
- After the explanation name the better one, A or B. A tie is not possible.
- Answer on one line in this form: (explanation) [RESULT] (A or B)
- Begin with the explanation and stop after the letter.

###Instruction:
Why?

###Response A:
The switch.

###Response B:
No idea.

###Score Rubric:
Is the fault named?

###Feedback:"""
    )


def test_compact() -> None:
    found = render(load_template("p2pfed-compact/1"), ABSOLUTE, words)
    assert found.completion == "It names the switch. It is brief. [RESULT] 5"
    assert (
        found.prompt
        == """\
###Task: explain how well the response meets the criteria, then [RESULT] and a score from 1 to 5.
###Instruction: Why does {it} stop?
###Response: The {door} switch.
###Criteria: Is the fault named?
###Feedback:"""
    )


def test_compact_cuts_long_texts() -> None:
    row = AbsoluteRow(
        " ".join(f"i{n}" for n in range(100)), " ".join(f"r{n}" for n in range(100)), RUBRIC, "word " * 60 + ".", 1
    )
    found = render(load_template("p2pfed-compact/1"), row, words)
    assert "i0 " in found.prompt and "i39 ... i80 " in found.prompt and "i99\n" in found.prompt
    assert "r59 ... r70" in found.prompt
    assert found.completion == " ".join(["word"] * 20) + " [RESULT] 1"


def test_a_row_without_verdict_has_no_completion() -> None:
    row = AbsoluteRow("Why?", "Because.", RUBRIC, None, None)
    assert render(load_template("p2pfed-absolute/1"), row, words).completion is None


def test_cut_middle_leaves_short_texts() -> None:
    assert cut_middle("a b c", 3, words) == "a b c"
    assert cut_middle("a b c d e f g", 3, words) == "a b ... g"


def test_first_sentences() -> None:
    assert first_sentences("One two. Three four! Five six?", 4, words) == "One two. Three four!"
    assert first_sentences("One two three four five.", 3, words) == "One two three"
    assert first_sentences("One two three four, five six; seven eight.", 7, words) == "One two three four, five six"
    assert first_sentences("One, two three four five six seven.", 6, words) == "One, two three four five six"


def test_the_wrong_mode_is_named() -> None:
    with pytest.raises(ConfigError, match="relative row, but this network grades by p2pfed-absolute/1"):
        render(load_template("p2pfed-absolute/1"), RELATIVE, words)


def test_unknown_template() -> None:
    with pytest.raises(ConfigError, match=r"'p2pfed-absolute/9'.*p2pfed-absolute/1"):
        load_template("p2pfed-absolute/9")


def test_official_texts_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(ConfigError, match=r"pip install --no-deps prometheus-eval==0\.1\.20"):
        load_template("prometheus-eval/absolute")


def test_official_texts_are_read_by_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A distribution of our own making with the real one's names: the package itself is never imported."""
    package = tmp_path / "prometheus_eval"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "prompts.py").write_text(
        "ABS_SYSTEM_PROMPT = 'sys '\n"
        "ABSOLUTE_PROMPT = 'x \"(write)\" {instruction} {response} {reference_answer} {rubric} end '\n"
        "ABSOLUTE_PROMPT_WO_REF = '{instruction}|{response}|{rubric}'\n"
        "SCORE_RUBRIC_TEMPLATE = '\\n[{criteria}] {score1_description}..{score5_description}\\n'\n"
    )
    info = tmp_path / "prometheus_eval-0.1.20.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: prometheus-eval\nVersion: 0.1.20\n")
    (info / "RECORD").write_text("prometheus_eval/__init__.py,,\nprometheus_eval/prompts.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    template = load_template("prometheus-eval/absolute")
    assert render(template, ABSOLUTE, words).prompt == (
        "sys\n\nWhy does {it} stop?|The {door} switch.|[Is the fault named?] no..yes"
    )
    assert '"Feedback: (write)"' in template.with_reference
    with pytest.raises(ConfigError, match="RELATIVE_PROMPT"):
        load_template("prometheus-eval/relative")


OFFICIAL = ("prometheus-eval", "0.1.20")


def official_missing() -> bool:
    try:
        return importlib.metadata.version(OFFICIAL[0]) != OFFICIAL[1]
    except importlib.metadata.PackageNotFoundError:
        return True


@pytest.mark.skipif(official_missing(), reason=f"{OFFICIAL[0]} {OFFICIAL[1]} is not installed")
@pytest.mark.parametrize("row", [ABSOLUTE, RELATIVE], ids=["absolute", "relative"])
def test_official_texts_of_the_real_package(row: AbsoluteRow | RelativeRow) -> None:
    mode = "absolute" if isinstance(row, AbsoluteRow) else "relative"
    found = render(load_template(f"prometheus-eval/{mode}"), row, words)
    assert found.prompt.index("Task Description") < found.prompt.index("Why") < found.prompt.rindex("###Feedback")
    assert found.prompt.rstrip().endswith("###Feedback:")
    assert "Is the fault named?" in found.prompt and "{" not in found.prompt.replace("{it}", "").replace("{door}", "")
    assert found.completion is not None and found.completion.endswith(("[RESULT] 5", "[RESULT] A"))


STRICT = [
    ("Good. [RESULT] 4", "4"),
    ("Good. [RESULT]3 ", "3"),
    ("[RESULT] 1", "1"),
    ("Good. [RESULT] 6", None),
    ("Good. [RESULT] 0", None),
    ("Good. [RESULT] 4.", None),
    ("Good. [RESULT] 45", None),
    ("Good. [RESULT] 4 [RESULT] 4", None),
    ("Good. [result] 4", None),
    ("Good. 4", None),
    ("Good. [RESULT] four", None),
    ("Good. [RESULT]", None),
    ("", None),
]
LENIENT = [
    ("Good. [RESULT] 4.", "4"),
    ("Good. [RESULT]: 4", "4"),
    ("Good. [Result] (5)", "5"),
    ("Good. [SCORE] 2", "2"),
    ("Good. Score: 3", "3"),
    ("Good. So the score is 3.", "3"),
    ("It earns a score of 2", "2"),
    ("Good. **Score: 5**", "5"),
    ("Good: 4/5", "4"),
    ("I give it 4 out of 5.", "4"),
    ("Score: 4/5", "4"),
    ("Score: 3 because it is short", None),
    ("There are 4", None),
    ("Score: 7", None),
    ("Score: 4/10", None),
    ("14/5", None),
    ("", None),
]
RELATIVE_TEXTS = [
    ("B is worse. [RESULT] A", "A", "A"),
    ("[RESULT] C", None, None),
    ("[RESULT] a", None, "A"),
    ("[RESULT] Response B", None, "B"),
    ("Result: B.", None, "B"),
    ("The winner is A", None, "A"),
    ("I like B", None, None),
    ("[RESULT] 3", None, None),
]


@pytest.mark.parametrize(("text", "wanted"), STRICT)
def test_strict(text: str, wanted: str | None) -> None:
    found = read_strict(text)
    assert (found.result if found else None) == wanted
    if wanted is not None:
        assert read_lenient(text) == found


@pytest.mark.parametrize(("text", "wanted"), LENIENT)
def test_lenient(text: str, wanted: str | None) -> None:
    found = read_lenient(text)
    assert (found.result if found else None) == wanted


@pytest.mark.parametrize(("text", "strict", "lenient"), RELATIVE_TEXTS)
def test_relative_verdicts(text: str, strict: str | None, lenient: str | None) -> None:
    found = read_strict(text, "relative"), read_lenient(text, "relative")
    assert tuple(verdict.result if verdict else None for verdict in found) == (strict, lenient)


def test_what_is_written_can_be_read() -> None:
    text = write_verdict("It ends in [RESULT] too early. ", "2")
    found = read_strict(text)
    assert found is not None and found.score == 2 and found.feedback == "It ends in  too early."
