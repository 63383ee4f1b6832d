"""One measuring process: `python -m p2pfed.demo.measure JOB.json`.

Judges the held-out rows with the untouched base, with an adapter trained here alone, or with a PEFT folder. The last
is also loaded the way anybody would, by `PeftModel.from_pretrained`, and must give the same logits.
Progress goes to a journal beside the job; the result is there whole or not at all.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2pfed.config import NetworkConfig
from p2pfed.config_file import load_network
from p2pfed.demo.isolated import train_alone
from p2pfed.demo.measurement import Figures, Kind, Measurement, Sample, dump_measurement
from p2pfed.errors import ExitCode, LearnerError, P2pfedError
from p2pfed.journal import Journal
from p2pfed.snapshot.peft_folder import ADAPTER_FILE

if TYPE_CHECKING:
    from p2pfed.train.base_model import BaseModel
    from p2pfed.train.examples import Example
    from p2pfed.train.judge import Judge

LOGIT_DIFFERENCE_MAX = 1e-3
"""Between our adapter and PEFT's own loading of the folder, float32: measured 0 to 1e-5."""
SAMPLES_PER_TRADE = 1
LOADED, STEPPED, JUDGED = "loaded", "stepped", "judged"
"""Kinds of journal entries; `judged` has the number of rows so far."""


@dataclass(frozen=True, slots=True)
class Job:
    """`data`: what an isolated node trains on; `adapter`: the PEFT folder of the consensus. Paths as text."""

    name: str
    kind: Kind
    network: str
    steps: int
    held_out: dict[str, str]
    rows: int
    """Held out, all trades together."""
    answer_tokens_max: int
    data: str = ""
    adapter: str = ""

    def result_path(self, folder: Path) -> Path:
        return folder / f"{self.name}.result.json"

    def progress_path(self, folder: Path) -> Path:
        return folder / f"{self.name}.progress.jsonl"


def write_job(job: Job, folder: Path) -> Path:
    path = folder / f"{job.name}.job.json"
    path.write_text(json.dumps(asdict(job)), encoding="utf-8")
    return path


def read_job(path: Path) -> Job:
    values = json.loads(path.read_text(encoding="utf-8"))
    return Job(**{**values, "kind": Kind(values["kind"])})


def carry_out(job: Job, folder: Path) -> None:
    """Raises P2pfedError."""
    network = load_network(job.network)
    with Journal(job.progress_path(folder)) as journal:

        def note(kind: str, **fields: int | float) -> None:
            journal.write(kind, fields, time.time())

        judge, losses = _prepare(job, network, note)
        figures, samples = _judge_rows(job, judge, note)
        if job.kind is Kind.CONSENSUS:
            _check_peft_folder(job, network, judge)
    measured = Measurement(job.name, job.kind, job.steps, figures.pop(""), figures, tuple(losses), tuple(samples))
    result = job.result_path(folder)
    part = result.with_suffix(".part")
    dump_measurement(measured, part)
    part.replace(result)


def _prepare(job: Job, network: NetworkConfig, note: Callable[..., None]) -> "tuple[Judge, list[tuple[int, float]]]":
    from p2pfed.train.base_model import use_threads
    from p2pfed.train.judge import Judge
    from p2pfed.train.learner import LoraLearner

    use_threads(1)
    base = _load(network)
    note(LOADED)
    if job.kind is Kind.ISOLATED:
        learner = LoraLearner(network, base, _examples(job, network, base))
        losses = train_alone(learner, job.steps, lambda step, loss: note(STEPPED, steps=step, loss=loss))
        return Judge(network, base, learner.adapter), losses
    judge = Judge(network, base)
    judge.use((Path(job.adapter) / ADAPTER_FILE).read_bytes() if job.adapter else None)
    return judge, []


def _examples(job: Job, network: NetworkConfig, base: "BaseModel") -> "Sequence[Example]":
    """As a node makes them of its file."""
    from p2pfed.train.data import read_rows
    from p2pfed.train.examples import tokenise
    from p2pfed.train.prompts import load_template

    data = read_rows(job.data)
    tokens_max = min(network.model.sequence_tokens_max, base.model.config.max_position_embeddings)
    template = load_template(network.model.prompt)
    return tokenise(data.rows, data.lines, base.tokenizer, template, tokens_max).examples


def _load(network: NetworkConfig) -> "BaseModel":
    from p2pfed.train.base_model import base_folder, load_base, pick_device
    from p2pfed.train.packaged import cache_folder

    cache = cache_folder(os.environ)
    folder = base_folder(network.model, cache=cache, offline=True)
    return load_base(network.model, folder, cache=cache, device=pick_device("cpu"))


def _judge_rows(job: Job, judge: "Judge", note: Callable[..., None]) -> tuple[dict[str, Figures], list[Sample]]:
    """Figures by trade, and of all under "". Rows of several trades share a batch: decoding costs by the batch."""
    from p2pfed.train.data import read_rows
    from p2pfed.train.judge import BATCH_ROWS
    from p2pfed.train.rows import AbsoluteRow
    from p2pfed.train.summary import summarise

    rows = [
        (trade, row)
        for trade, file in job.held_out.items()
        for row in read_rows(file).rows
        if isinstance(row, AbsoluteRow)
    ]
    judged: list[Any] = []
    for begin in range(0, len(rows), BATCH_ROWS):
        chosen = [row for _, row in rows[begin : begin + BATCH_ROWS]]
        judged += judge.judge(chosen, answer_tokens_max=job.answer_tokens_max)
        note(JUDGED, rows=len(judged))
    figures: dict[str, Figures] = {}
    samples: list[Sample] = []
    for trade in job.held_out:
        mine = [(row, found) for (of, row), found in zip(rows, judged, strict=True) if of == trade]
        figures[trade] = Figures(**asdict(summarise([row for row, _ in mine], [found for _, found in mine])))
        for row, found in mine[:SAMPLES_PER_TRADE]:
            known = (row.score or 0, row.feedback or "")
            samples.append(Sample(trade, row.instruction, row.response, *known, found.answer))
    figures[""] = Figures(**asdict(summarise([row for _, row in rows], judged)))
    return figures, samples


def _check_peft_folder(job: Job, network: NetworkConfig, judge: "Judge") -> None:
    """Raises LearnerError where PEFT reads another model out of the folder than we do."""
    import peft
    import torch

    base = _load(network)
    theirs = peft.PeftModel.from_pretrained(base.model, job.adapter)
    ids = base.tokenizer("The sensor reads 21 C, so the answer is", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        difference = float((theirs(ids).logits - judge.adapter.model(ids).logits).abs().max())
    if not difference <= LOGIT_DIFFERENCE_MAX:
        raise LearnerError(
            f"{job.adapter} loaded by PEFT differs from the consensus by {difference}, more than {LOGIT_DIFFERENCE_MAX}"
        )


def main(path: Path) -> int:
    try:
        carry_out(read_job(path), path.parent)
    except P2pfedError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
