"""What each device holds and what all are measured on: rows of the product's reader as examples of one model.

The judge data of `../shared/data` where it is (eight devices, one domain each), else the four trades of the demo.
SmolLM2 learns verdicts, in the compact template. No verdict fits into the 128 positions of the tiny model (the
shortest compact row takes 219 tokens), so it learns to write its domain's answers: the responses that are graded,
as passages of whole sentences.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import p2pfed.demo
from p2pfed.train.data import read_rows
from p2pfed.train.examples import Example, token_spans, tokenise
from p2pfed.train.prompts import load_template
from p2pfed.train.rows import AbsoluteRow, Row, TextRow

SHARED = Path(__file__).parents[4] / "shared" / "data" / "absolute"
DEMO = Path(p2pfed.demo.__file__).parent / "data"

PASSAGE_TOKENS_MAX = 64
"""With its two end marks. Half the model's positions: a step costs little, and there are 600 to 1,100 a device."""
PASSAGE_TOKENS_MIN = 8
"""A shorter rest ("1." of a list) says nothing of its domain."""
HELD_OUT_EACH = {"dev": 8, "test": 4}
"""Examples a domain, spread over its rows: as many of the common file as its rarest domain has rows."""
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+|\n+")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """`domain` and `split` index `Shards.domains` and ("dev", "test")."""

    example: Example
    domain: int
    split: int


@dataclass(frozen=True, slots=True)
class Shards:
    source: str
    domains: tuple[str, ...]
    train: tuple[tuple[Example, ...], ...]
    held_out: tuple[HeldOut, ...]


def load_shards(tokenizer: Any, template_id: str, tokens_max: int, nodes: int, *, passages: bool) -> Shards:
    """The first `nodes` domains that lie far from each other; the held-out rows of these domains alone."""
    template = load_template(template_id)

    def examples(rows: Sequence[Row]) -> tuple[Example, ...]:
        if passages:
            rows = [TextRow(text) for row in rows for text in _passages(row, tokenizer)]
        return tokenise(rows, range(1, len(rows) + 1), tokenizer, template, tokens_max).examples

    source, files = _files(nodes)
    train = tuple(examples(read_rows(str(path)).rows) for _, path, _ in files)
    held_out = []
    for index, (domain, _, own) in enumerate(files):
        for split, (name, path) in enumerate((("dev", own), ("test", SHARED / "test.jsonl"))):
            if not path.is_file():
                continue
            rows = [row for row in read_rows(str(path)).rows if name == "dev" or _domain(row) == domain]
            found = examples(rows) if rows else ()
            held_out += [HeldOut(example, index, split) for example in _spread(found, HELD_OUT_EACH[name])]
    return Shards(source, tuple(domain for domain, _, _ in files), train, tuple(held_out))


def _files(nodes: int) -> tuple[str, list[tuple[str, Path, Path]]]:
    """(domain, training file, validation file) of each device."""
    shared = sorted(SHARED.glob("device-*.train.jsonl"))
    if shared:
        names = [path.name.removesuffix(".train.jsonl") for path in shared]
        # Every second one where half are asked for: writing, reasoning, coding and stem.
        chosen = names[:: len(names) // nodes][:nodes]
        return "judge data, 8 domains", [
            (name.split("-", 2)[2], SHARED / f"{name}.train.jsonl", SHARED / f"{name}.dev.jsonl") for name in chosen
        ]
    names = [path.name.removesuffix(".train.jsonl") for path in sorted(DEMO.glob("*.train.jsonl"))]
    return "demo data, 4 trades", [
        (name, DEMO / f"{name}.train.jsonl", DEMO / f"{name}.held_out.jsonl") for name in names[:nodes]
    ]


def _domain(row: Row) -> str:
    return row.group if isinstance(row, AbsoluteRow) else ""


def _spread(examples: Sequence[Example], count: int) -> list[Example]:
    """Every k-th, so that all rows of the file take part."""
    return [examples[at * len(examples) // count] for at in range(count)] if len(examples) > count else list(examples)


def _passages(row: Row, tokenizer: Any) -> Iterator[str]:
    """The graded response in pieces of at most PASSAGE_TOKENS_MAX tokens; a sentence that is longer is cut."""
    assert isinstance(row, AbsoluteRow)
    spans, room = token_spans(tokenizer), PASSAGE_TOKENS_MAX - 2
    held = ""
    for sentence in filter(None, map(str.strip, _SENTENCE_END.split(row.response))):
        joined = f"{held} {sentence}".strip()
        if held and len(spans(joined)) > room:
            yield held
            joined = sentence
        while len(places := spans(joined)) > room:
            end = places[room - 1][1]
            yield joined[:end]
            joined = joined[end:].strip()
        held = joined
    if len(spans(held)) >= PASSAGE_TOKENS_MIN:
        yield held
