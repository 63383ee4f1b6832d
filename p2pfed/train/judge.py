"""A base with an adapter as a judge: loss of known verdicts, written verdicts, and their probabilities.

Per batch the prompts run through the model once; the loss, the direct verdict and the written answer all
continue from that cache. Decoding is greedy. One judge at a time on a base; not thread-safe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from p2pfed.config import NetworkConfig
from p2pfed.errors import LearnerError
from p2pfed.ports import Encoding
from p2pfed.train.adapter import Adapter
from p2pfed.train.base_model import BaseModel
from p2pfed.train.examples import Example, encode_example, grading_prompt, training_texts
from p2pfed.train.loop import collate, token_losses
from p2pfed.train.prompts import load_template
from p2pfed.train.rows import AbsoluteRow, RelativeRow
from p2pfed.train.verdict import RESULT_MARK, Verdict, read_lenient, read_strict
from p2pfed.wire.tensors import unpack_tensors

ANSWER_TOKENS_MAX = 32
"""Of a compact verdict: at most 20 of feedback and 8 of mark, score and end, with room."""
BATCH_ROWS = 24
"""Rows judged together: reading the weights is shared by all, and 24 caches of a small model are 300 MB."""

JudgeRow = AbsoluteRow | RelativeRow


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the model made of one row."""

    loss: float | None
    """Mean over the tokens of the known verdict; None where the row carries none."""
    tokens: int
    """Of the known verdict."""
    answer: str
    finished: bool
    """The answer ended by itself, not at the token limit."""
    verdict: Verdict | None
    """Read strictly: exactly the trained form."""
    verdict_lenient: Verdict | None
    probabilities: tuple[float, ...] | None
    """Of each result ("1" to "5", or "A" and "B") where the answer wrote one; None if not read strictly."""
    direct: tuple[float, ...]
    """The same, asked for at once, without feedback."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One row in token ids: `known` is empty where there is no verdict to compare with."""

    prompt: list[int]
    known: list[int]
    direct: list[int]


class Judge:
    """`base` is changed in place: it carries the factors from now on."""

    def __init__(self, network: NetworkConfig, base: BaseModel, adapter: Adapter | None = None) -> None:
        """`adapter`: one that is on this base already; by default a new one, at its initial values."""
        self._base = base
        self._template = load_template(network.model.prompt)
        self._results = "12345" if self._template.mode == "absolute" else "AB"
        self.adapter = adapter or Adapter(network, base.model)
        self._tokens_max = min(network.model.sequence_tokens_max, base.model.config.max_position_embeddings)

    def use(self, payload: bytes | None) -> None:
        """Judge with this float32 payload; None: the untouched base, equal to the initial factors (B = 0)."""
        if payload is None:
            self.adapter.reset()
        else:
            self.adapter.assign(unpack_tensors(payload, self.adapter.shapes, Encoding.FLOAT32))

    def losses(self, examples: Sequence[Example]) -> list[float]:
        """Mean completion loss of each example, of any kind of row."""
        found = [0.0] * len(examples)
        order = sorted(range(len(examples)), key=lambda at: len(examples[at].ids))
        with torch.inference_mode():
            for begin in range(0, len(order), BATCH_ROWS):
                chosen = order[begin : begin + BATCH_ROWS]
                batch = collate([examples[at] for at in chosen], self._base.device)
                losses = token_losses(self.adapter.model, batch)
                for row, at in enumerate(chosen):
                    found[at] = float(losses[batch.owner == row].mean())
        return found

    def judge(self, rows: Sequence[JudgeRow], *, answer_tokens_max: int = ANSWER_TOKENS_MAX) -> list[Judgement]:
        """One judgement a row, in order. Raises LearnerError for a row that does not fit the sequence limit."""
        prepared = [self._prepare(row, answer_tokens_max) for row in rows]
        found: list[Judgement | None] = [None] * len(rows)
        order = sorted(range(len(rows)), key=lambda at: len(prepared[at].prompt))
        with torch.inference_mode():
            for begin in range(0, len(order), BATCH_ROWS):
                chosen = order[begin : begin + BATCH_ROWS]
                for at, judgement in zip(
                    chosen, self._judge_batch([prepared[at] for at in chosen], answer_tokens_max), strict=True
                ):
                    found[at] = judgement
        return [judgement for judgement in found if judgement is not None]

    def _prepare(self, row: JudgeRow, answer_tokens_max: int) -> _Prepared:
        tokenizer = self._base.tokenizer
        before = grading_prompt(row, tokenizer, self._template)
        gap = "" if before[-1:].isspace() else " "
        direct = encode_example(before, f"{gap}{RESULT_MARK} {self._results[0]}", tokenizer)
        prompt = direct.ids[: direct.start].tolist()
        known: list[int] = []
        if row.feedback is not None and (row.winner if isinstance(row, RelativeRow) else row.score) is not None:
            example = encode_example(*training_texts(row, tokenizer, self._template), tokenizer)
            known = example.ids[example.start :].tolist()
        longest = len(prompt) + max(len(known), answer_tokens_max)
        if longest > self._tokens_max:
            raise LearnerError(f"a row of {longest} tokens with its answer, more than the limit {self._tokens_max}")
        return _Prepared(prompt, known, direct.ids[direct.start : -1].tolist())

    def _judge_batch(self, rows: Sequence[_Prepared], answer_tokens_max: int) -> list[Judgement]:
        run = _Run(self.adapter.model.get_base_model(), self._base.device, [row.prompt for row in rows])
        known = run.continued([row.known for row in rows])
        losses: list[float | None] = []
        for at, row in enumerate(rows):
            if not row.known:
                losses.append(None)
                continue
            # The first token is predicted by the prompt's last position, each other by the one before it.
            logits = torch.cat([run.last[at : at + 1], run.head(known[at, : len(row.known) - 1])])
            targets = torch.tensor(row.known, device=logits.device)
            losses.append(float(torch.nn.functional.cross_entropy(logits, targets)))
        digits = self._result_ids()
        ends = [len(row.direct) - 1 for row in rows]
        asked = run.head(run.continued([row.direct for row in rows])[range(len(rows)), ends])[:, digits].softmax(-1)
        ids, chances = run.greedy(answer_tokens_max, self._base.tokenizer.eos_token_id, digits)
        judgements = []
        for at, row in enumerate(rows):
            answer = self._base.tokenizer.decode(ids[at], skip_special_tokens=True).strip()
            strict = read_strict(answer, self._template.mode)
            finished = len(ids[at]) > 0 and ids[at][-1] == self._base.tokenizer.eos_token_id
            place = len(ids[at]) - (2 if finished else 1)
            written = strict is not None and place >= 0 and ids[at][place] in digits
            judgements.append(
                Judgement(
                    losses[at],
                    len(row.known),
                    answer,
                    finished,
                    strict,
                    read_lenient(answer, self._template.mode),
                    tuple(chances[at][place]) if written else None,
                    tuple(asked[at].tolist()),
                )
            )
        return judgements

    def _result_ids(self) -> list[int]:
        """The token of each result as it stands after the mark. Raises LearnerError where it is not one token."""
        encoded = [
            self._base.tokenizer(f"x {RESULT_MARK} {result}", add_special_tokens=False)["input_ids"]
            for result in self._results
        ]
        if any(ids[:-1] != encoded[0][:-1] for ids in encoded) or len({ids[-1] for ids in encoded}) != len(encoded):
            raise LearnerError(f"the tokenizer of {self._base.name} has no token of its own for each result")
        return [int(ids[-1]) for ids in encoded]


class _Run:
    """Prompts padded on the left, their cache, and continuations of them."""

    def __init__(self, causal: Any, device: torch.device, prompts: Sequence[list[int]]) -> None:
        self._causal = causal
        self._device = device
        self._width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), self._width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, self._width - len(prompt) :] = torch.tensor(prompt)
            mask[row, self._width - len(prompt) :] = 1
        self._mask = mask.to(device)
        self._lengths = self._mask.sum(1, keepdim=True)
        places = (self._mask.cumsum(1) - 1).clamp_min(0)
        output = causal.get_decoder()(
            input_ids=ids.to(device), attention_mask=self._mask, position_ids=places, use_cache=True
        )
        self._cache = output.past_key_values
        self.last: torch.Tensor = self.head(output.last_hidden_state[:, -1])
        """Logits of the token after each prompt."""

    def continued(self, tails: Sequence[list[int]]) -> torch.Tensor:
        """Hidden states of the tails (right-padded); the cache is as before afterwards."""
        ids = torch.zeros(len(tails), max(1, *map(len, tails)), dtype=torch.long)
        for row, tail in enumerate(tails):
            ids[row, : len(tail)] = torch.tensor(tail, dtype=torch.long)
        hidden = self._forward(ids.to(self._device), done=0)
        self._cache.crop(-ids.shape[1])
        return hidden

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits in float32."""
        logits: torch.Tensor = self._causal.get_output_embeddings()(hidden)
        return logits.float()

    def greedy(
        self, tokens_max: int, end: int, watched: Sequence[int]
    ) -> tuple[list[list[int]], list[list[list[float]]]]:
        """Token ids of each answer with its end token, and at each step the softmax over the watched tokens."""
        answers: list[list[int]] = [[] for _ in range(len(self._mask))]
        chances: list[list[list[float]]] = [[] for _ in answers]
        logits = self.last
        for done in range(tokens_max):
            chosen = logits.argmax(-1)
            watching = logits[:, list(watched)].softmax(-1).tolist()
            for row, token in enumerate(chosen.tolist()):
                if not answers[row] or answers[row][-1] != end:
                    answers[row].append(token)
                    chances[row].append(watching[row])
            if done + 1 == tokens_max or all(answer[-1] == end for answer in answers):
                break
            logits = self.head(self._forward(chosen[:, None], done))[:, -1]
        if done:
            self._cache.crop(-done)
        return answers, chances

    def _forward(self, ids: torch.Tensor, done: int) -> torch.Tensor:
        """Hidden states of tokens that follow the prompt and `done` tokens already in the cache."""
        fresh = torch.ones(len(ids), done + ids.shape[1], dtype=torch.long, device=self._device)
        places = self._lengths + done + torch.arange(ids.shape[1], device=self._device)
        hidden: torch.Tensor = (
            self._causal.get_decoder()(
                input_ids=ids,
                attention_mask=torch.cat([self._mask, fresh], dim=1),
                position_ids=places,
                past_key_values=self._cache,
                use_cache=True,
            )
        ).last_hidden_state
        return hidden
