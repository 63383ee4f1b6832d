"""Rows to token ids, and the order in which a node goes through them.

An example is prompt and completion in one sequence; only the completion is learnt. The order is a pure
function of seed, epoch and the number of examples, so a cursor of two numbers resumes it exactly.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from p2pfed.errors import ConfigError, ExitCode, LearnerError
from p2pfed.train.prompts import Template, render
from p2pfed.train.rows import AbsoluteRow, ChatRow, PairRow, RelativeRow, Row, TextRow

LENGTH_WINDOW_BATCHES = 8
"""Batches whose rows are sorted by length among themselves: little padding, and still a random order."""

TokenIds = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Example:
    """`ids[start:]` is the completion with its end token; `start` is at least 1."""

    ids: TokenIds
    start: int
    line: int


@dataclass(frozen=True, slots=True)
class Tokenised:
    examples: tuple[Example, ...]
    rejected: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Cursor:
    """The next batch: `position` counts batches within `epoch` (`epoch_batches`)."""

    epoch: int = 0
    position: int = 0


def tokenise(
    rows: Sequence[Row], lines: Sequence[int], tokenizer: Any, template: Template, tokens_max: int
) -> Tokenised:
    """Rows as examples. A row that does not fit is rejected with its line and the limit.

    Raises LearnerError (ExitCode.DATA) where none fits.
    """
    examples: list[Example] = []
    rejected: list[tuple[int, str]] = []
    for row, line in zip(rows, lines, strict=True):
        try:
            prompt, completion = training_texts(row, tokenizer, template)
        except ConfigError as reason:
            rejected.append((line, str(reason)))
            continue
        example = encode_example(prompt, completion, tokenizer, line)
        if len(example.ids) > tokens_max:
            rejected.append((line, f"{len(example.ids)} tokens, more than the sequence limit {tokens_max}"))
        elif example.start >= len(example.ids):
            rejected.append((line, "no token to learn from"))
        else:
            examples.append(example)
    if not examples:
        first = f"line {rejected[0][0]}: {rejected[0][1]}" if rejected else "no rows"
        raise LearnerError(f"no row can be trained on; {first}", ExitCode.DATA)
    return Tokenised(tuple(examples), tuple(rejected))


def training_texts(row: Row, tokenizer: Any, template: Template) -> tuple[str, str]:
    """(everything before the completion, the completion with its end mark), as they stand before the model.

    Raises ConfigError for a row the template can not be trained with.
    """
    match row:
        case AbsoluteRow() | RelativeRow():
            rendered = render(template, row, token_spans(tokenizer))
            if rendered.completion is None:
                raise ConfigError("no feedback and score (or winner) to learn")
            if template.compact:
                return _bos(tokenizer) + rendered.prompt, f" {rendered.completion}{_eos(tokenizer)}"
            return _conversation((("user", rendered.prompt), ("assistant", rendered.completion)), tokenizer)
        case ChatRow(messages):
            return _conversation(messages, tokenizer)
        case PairRow(prompt, completion):
            return _conversation((("user", prompt), ("assistant", completion)), tokenizer)
        case TextRow(text):
            return _bos(tokenizer), text + _eos(tokenizer)


def grading_prompt(row: AbsoluteRow | RelativeRow, tokenizer: Any, template: Template) -> str:
    """Everything before the verdict, as it stands before the model."""
    rendered = render(template, row, token_spans(tokenizer))
    if template.compact:
        return _bos(tokenizer) + rendered.prompt
    return _conversation((("user", rendered.prompt), ("assistant", "")), tokenizer)[0]


def encode_example(prompt: str, completion: str, tokenizer: Any, line: int = 0) -> Example:
    """One sequence, tokenised as a whole: a word's first token must see the character before it."""
    encoded = tokenizer(prompt + completion, add_special_tokens=False, return_offsets_mapping=True)
    boundary = len(prompt)
    ends = [end for _, end in encoded["offset_mapping"]]
    start = next((index for index, end in enumerate(ends) if end > boundary), len(ends))
    return Example(np.asarray(encoded["input_ids"], dtype=np.int32), max(start, 1), line)


def token_spans(tokenizer: Any) -> Any:
    """`prompts.TokenSpans` of a fast tokenizer."""

    def spans(text: str) -> Sequence[tuple[int, int]]:
        found: Sequence[tuple[int, int]] = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        return found

    return spans


def epoch_batches(lengths: Sequence[int], epoch: int, batch_rows: int, seed: int) -> list[list[int]]:
    """All batches of an epoch. Rows are shuffled; within a window they are sorted by length; batches are shuffled."""
    order = sorted(range(len(lengths)), key=lambda index: _draw(seed, epoch, "row", index))
    window = batch_rows * LENGTH_WINDOW_BATCHES
    batches = []
    for begin in range(0, len(order), window):
        near = sorted(order[begin : begin + window], key=lambda index: (lengths[index], index))
        batches += [near[at : at + batch_rows] for at in range(0, len(near), batch_rows)]
    return [batches[at] for at in sorted(range(len(batches)), key=lambda at: _draw(seed, epoch, "batch", at))]


def _draw(seed: int, epoch: int, what: str, index: int) -> bytes:
    """A hash and not a generator: equal on every platform and version, and needs no state to resume."""
    return hashlib.blake2b(f"{seed}/{epoch}/{what}/{index}".encode(), digest_size=8).digest()


def _conversation(messages: Sequence[tuple[str, str]], tokenizer: Any) -> tuple[str, str]:
    """The tokenizer's own chat template; without one, contents joined by blank lines."""
    if not tokenizer.chat_template:
        before = "\n\n".join(content for _, content in messages[:-1])
        last = messages[-1][1]
        gap = "" if not before or before[-1].isspace() or last[:1].isspace() else " "
        return _bos(tokenizer) + before, f"{gap}{last}{_eos(tokenizer)}"
    turns = [{"role": role, "content": content} for role, content in messages]
    before = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    if not whole.startswith(before):
        raise ConfigError("the chat template does not continue its own prompt; such a tokenizer can not be used")
    completion = whole[len(before) :]
    end = completion.rfind(_eos(tokenizer))
    return before, completion[: end + len(_eos(tokenizer))] if end >= 0 else completion.rstrip() + _eos(tokenizer)


def _bos(tokenizer: Any) -> str:
    return str(tokenizer.bos_token or "")


def _eos(tokenizer: Any) -> str:
    return str(tokenizer.eos_token or "")
