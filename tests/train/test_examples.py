"""Tokens, completion boundaries, the order of batches; the tokenizer is the small model's."""

from pathlib import Path
from typing import Any

import pytest

from p2pfed.config import ModelConfig
from p2pfed.errors import LearnerError
from p2pfed.train.base_model import base_folder, load_tokenizer
from p2pfed.train.examples import encode_example, epoch_batches, grading_prompt, tokenise, training_texts
from p2pfed.train.prompts import load_template
from p2pfed.train.rows import AbsoluteRow, ChatRow, PairRow, RelativeRow, Row, Rubric, TextRow

pytestmark = pytest.mark.model
CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def tokenizer(cache: Path) -> Any:
    return load_tokenizer(base_folder(ModelConfig("package:glassllm-en"), cache=cache, offline=True))


JUDGED = AbsoluteRow("Why?", "Because.", Rubric("Clear?"), "It is brief.", 4)
TEXTS: list[tuple[Row, str, str, str]] = [
    (TextRow("A cat."), "", "<bos>", "A cat.<eos>"),
    (PairRow("Why?", "Because."), "", "<bos>Why?", " Because.<eos>"),
    (PairRow("Why?", "Because."), CHAT_TEMPLATE, "<user>Why?<assistant>", "Because.<eos>"),
    (ChatRow((("user", "Why?"), ("assistant", "So."))), "", "<bos>Why?", " So.<eos>"),
]


@pytest.mark.parametrize(("row", "chat", "prompt", "completion"), TEXTS)
def test_texts(tokenizer: Any, row: Row, chat: str, prompt: str, completion: str) -> None:
    tokenizer.chat_template = chat or None
    assert training_texts(row, tokenizer, load_template("p2pfed-absolute/1")) == (prompt, completion)


@pytest.mark.parametrize("template_id", ["p2pfed-absolute/1", "p2pfed-compact/1"])
@pytest.mark.parametrize("chat", ["", CHAT_TEMPLATE])
def test_grading_continues_the_trained_prompt(tokenizer: Any, template_id: str, chat: str) -> None:
    tokenizer.chat_template = chat or None
    template = load_template(template_id)
    prompt, completion = training_texts(JUDGED, tokenizer, template)
    assert grading_prompt(JUDGED, tokenizer, template) == prompt
    assert completion.strip() == "It is brief. [RESULT] 4<eos>"
    if template_id == "p2pfed-compact/1":
        assert prompt.startswith("<bos>###Task")


def test_boundary(tokenizer: Any) -> None:
    example = encode_example("<bos>The cat sat", " on the mat.<eos>", tokenizer)
    assert tokenizer.decode(example.ids[example.start :]).strip() == "on the mat.<eos>"
    assert tokenizer.decode(example.ids[: example.start]) == "<bos>The cat sat"


def test_a_row_too_long_is_named(tokenizer: Any) -> None:
    rows = [TextRow("A cat."), TextRow("word " * 200), RelativeRow("I", "a", "b", Rubric("c"), "F", "A")]
    done = tokenise(rows, (4, 5, 9), tokenizer, load_template("p2pfed-absolute/1"), 64)
    assert [example.line for example in done.examples] == [4]
    reasons = dict(done.rejected)
    assert reasons[5].endswith("tokens, more than the sequence limit 64")
    assert reasons[9].startswith("relative row, but this network grades by p2pfed-absolute/1")
    with pytest.raises(LearnerError, match="no row can be trained on; line 5"):
        tokenise(rows[1:], (5, 9), tokenizer, load_template("p2pfed-absolute/1"), 64)


@pytest.mark.parametrize("count", [1, 5, 16, 53])
def test_an_epoch_is_every_row_once(count: int) -> None:
    lengths = [(7 * at) % 30 + 1 for at in range(count)]
    batches = epoch_batches(lengths, 3, 4, seed=1)
    assert sorted(at for batch in batches for at in batch) == list(range(count))
    assert max(map(len, batches)) <= 4
    assert batches == epoch_batches(lengths, 3, 4, seed=1)
    if count > 4:
        assert batches != epoch_batches(lengths, 4, 4, seed=1)
        assert batches != epoch_batches(lengths, 3, 4, seed=2)


def test_batches_are_of_like_lengths() -> None:
    lengths = [(37 * at) % 101 + 1 for at in range(64)]
    spread = sum(max(lengths[at] for at in b) - min(lengths[at] for at in b) for b in epoch_batches(lengths, 0, 4, 1))
    assert spread < 16 * 25
