"""The judge's shortcuts (one cache, padding, batches) against the plain way; the summary's arithmetic."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from p2pfed.errors import LearnerError
from p2pfed.ports import Encoding
from p2pfed.train.examples import encode_example, grading_prompt, training_texts
from p2pfed.train.judge import Judge, Judgement
from p2pfed.train.learner import LoraLearner
from p2pfed.train.loop import collate, token_losses
from p2pfed.train.rows import AbsoluteRow, Rubric
from p2pfed.train.summary import expected_score, summarise
from p2pfed.train.verdict import Verdict
from p2pfed.wire.tensors import pack_tensors

pytestmark = pytest.mark.model
Make = Callable[..., LoraLearner]
ROWS = [
    AbsoluteRow("Why?", "It is cold.", Rubric("Clear?"), "Short.", 2),
    AbsoluteRow("Why does it stop here?", "The door is not shut.", Rubric("Clear?"), "It names a cause.", 5),
    AbsoluteRow("When?", "Now.", Rubric("Is it kind?"), None, None),
]
ANSWER_TOKENS = 12


@pytest.fixture
def judge(make_learner: Make) -> Judge:
    learner = make_learner()
    for _ in range(4):
        learner.step()
    network = learner._network
    compact = replace(network, model=replace(network.model, prompt="p2pfed-compact/1"))
    return Judge(compact, learner._base, learner.adapter)


def test_known_verdicts_cost_what_training_says(judge: Judge) -> None:
    found = judge.judge(ROWS, answer_tokens_max=ANSWER_TOKENS)
    for row, judged in zip(ROWS[:2], found, strict=False):
        example = encode_example(*training_texts(row, judge._base.tokenizer, judge._template), judge._base.tokenizer)
        with torch.no_grad():
            plain = token_losses(judge.adapter.model, collate([example], torch.device("cpu")))
        assert judged.loss == pytest.approx(float(plain.mean()), rel=1e-4)
        assert judged.tokens == plain.numel()
        assert judge.losses([example]) == [pytest.approx(judged.loss, rel=1e-4)]
    assert found[2].loss is None


def test_answers_are_those_of_transformers(judge: Judge) -> None:
    tokenizer = judge._base.tokenizer
    found = judge.judge(ROWS, answer_tokens_max=ANSWER_TOKENS)
    for row, judged in zip(ROWS, found, strict=True):
        prompt = tokenizer(grading_prompt(row, tokenizer, judge._template), add_special_tokens=False)["input_ids"]
        made = judge.adapter.model.generate(
            input_ids=torch.tensor([prompt]), max_new_tokens=ANSWER_TOKENS, do_sample=False, eos_token_id=3
        )
        assert judged.answer == tokenizer.decode(made[0, len(prompt) :], skip_special_tokens=True).strip()


def test_direct_verdicts_are_one_softmax(judge: Judge) -> None:
    tokenizer = judge._base.tokenizer
    found = judge.judge(ROWS, answer_tokens_max=ANSWER_TOKENS)
    for row, judged in zip(ROWS, found, strict=True):
        before = grading_prompt(row, tokenizer, judge._template) + " [RESULT] "
        ids = [tokenizer(before + digit, add_special_tokens=False)["input_ids"] for digit in "12345"]
        with torch.no_grad():
            logits = judge.adapter.model(input_ids=torch.tensor([ids[0][:-1]])).logits[0, -1]
        wanted = logits[[each[-1] for each in ids]].softmax(-1).tolist()
        assert judged.direct == pytest.approx(wanted, rel=1e-3)
        assert sum(judged.direct) == pytest.approx(1)


def test_none_is_the_untouched_base(judge: Judge) -> None:
    trained = pack_tensors(judge.adapter.values(), Encoding.FLOAT32)
    with judge.adapter.model.disable_adapter():
        wanted = judge.judge(ROWS, answer_tokens_max=ANSWER_TOKENS)
    judge.use(None)
    assert judge.judge(ROWS, answer_tokens_max=ANSWER_TOKENS) == wanted
    judge.use(trained)
    assert pack_tensors(judge.adapter.values(), Encoding.FLOAT32) == trained
    assert judge.judge(ROWS, answer_tokens_max=ANSWER_TOKENS) != wanted


def test_a_row_too_long_is_refused(judge: Judge) -> None:
    with pytest.raises(LearnerError, match="more than the limit 128"):
        judge.judge(ROWS, answer_tokens_max=100)


def judged(loss: float, tokens: int, score: int | None) -> Judgement:
    verdict = None if score is None else Verdict("f", str(score))
    return Judgement(loss, tokens, "", True, verdict, verdict, None, (0.0, 0.0, 0.0, 0.5, 0.5))


def test_summary() -> None:
    rows = [AbsoluteRow("i", "r", Rubric("c"), "f", score) for score in (1, 4, 5, 4)]
    found = summarise(rows, [judged(1.0, 10, 4), judged(2.0, 30, 4), judged(1.0, 10, 5), judged(1.0, 10, None)])
    assert found.loss == pytest.approx(1.5)
    assert found.parse_rate == 0.75
    assert found.histogram == (0, 0, 0, 2, 1)
    assert found.mae == pytest.approx(1.0)
    assert found.exact == pytest.approx(2 / 3)
    assert found.commonest_share == pytest.approx(2 / 3)
    assert found.direct_mae == pytest.approx((3.5 + 0.5 + 0.5 + 0.5) / 4)
    assert expected_score((0.2,) * 5) == pytest.approx(3.0)


def test_summary_without_a_readable_verdict() -> None:
    found = summarise([AbsoluteRow("i", "r", Rubric("c"), "f", 1)], [judged(1.0, 10, None)])
    assert (found.mae, found.exact, found.parse_rate, found.commonest_share) == (None, None, 0.0, 0.0)
    with pytest.raises(LearnerError, match="no feedback and score"):
        summarise([ROWS[2]], [Judgement(None, 0, "", True, None, None, None, (0.2,) * 5)])
