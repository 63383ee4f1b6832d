"""Four real nodes with a real 0.85 M-parameter Mistral: what they learn together beats what each learns alone."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

import p2pfed.demo
from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.mixer import AdapterMixer
from p2pfed.ports import Encoding
from p2pfed.presets import PRESETS
from p2pfed.snapshot.collect import collect
from tests.processes.fleet import Fleet

TRADES = ("building", "coldchain", "greenhouse", "lift")
STEPS = 120
UNKNOWN = re.compile(r"[^A-Za-z0-9 .,;:!?\'-]")
"""That model's alphabet lacks the rest."""
ROW_CHARS = 250
"""Its 128 positions hold about so many."""


def texts(trade: str, part: str) -> list[str]:
    source = Path(p2pfed.demo.__file__).parent / "data" / f"{trade}.{part}.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    return [UNKNOWN.sub(" ", row["feedback"])[:ROW_CHARS] for row in rows]


def write(path: Path, rows: Iterable[str]) -> Path:
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return path


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(280)
def test_four_processes_learn_more_together_than_each_alone(tmp_path: Path) -> None:
    network = replace(PRESETS["glassllm-en"], name="four")
    data = {trade: write(tmp_path / f"{trade}.jsonl", texts(trade, "train")) for trade in TRADES}
    held_out = write(tmp_path / "held_out.jsonl", [row for trade in TRADES for row in texts(trade, "held_out")])

    with Fleet(tmp_path, network) as fleet:
        bootstrap = fleet.bootstrap()
        for trade in TRADES:
            fleet.node(trade, data[trade], "--bootstrap", bootstrap, "--steps-max", str(STEPS))
        for trade in TRADES:
            fleet.wait(trade, lambda status: status["neighbours"] == 3 and status["training_over"])
        settled = {trade: fleet.ask(trade)["swaps"]["finished"] + 4 for trade in TRADES}
        for trade in TRADES:
            status = fleet.wait(trade, lambda status, trade=trade: status["swaps"]["finished"] >= settled[trade])
            assert status["swaps"]["half_done"] == status["swaps"]["faults"] == 0
        collection = trio.run(collect, network, (bootstrap,))

    assert sorted(each.name for each in collection.contributions) == list(TRADES)
    assert all(each.version.steps == STEPS for each in collection.contributions)
    consensus = loss(network, held_out, collection.payload)
    base = loss(network, held_out, None)
    alone = {trade: loss(network, held_out, trained_alone(network, data[trade])) for trade in TRADES}
    print({"base": base, "consensus": consensus, **alone})
    assert consensus < min(alone.values())
    assert consensus < base


def trained_alone(network: NetworkConfig, data: Path) -> bytes:
    learner = learner_on(network, data)
    for _ in range(STEPS):
        learner.step()
    return AdapterMixer(learner, network.gossip).export(Encoding.FLOAT32)


def loss(network: NetworkConfig, data: Path, payload: bytes | None) -> float:
    """Mean loss a token on all rows of `data`, with that adapter or the untouched base."""
    import torch

    from p2pfed.train.loop import collate, token_losses

    learner = learner_on(network, data)
    if payload is not None:
        AdapterMixer(learner, network.gossip).adopt(payload, Encoding.FLOAT32, 0)
    with torch.no_grad():
        losses = [
            token_losses(learner.adapter.model, collate([example], torch.device("cpu"))) for example in learner.examples
        ]
    return float(torch.cat(losses).mean())


def learner_on(network: NetworkConfig, data: Path):  # type: ignore[no-untyped-def]  # torch stays out of collection
    import platformdirs

    from p2pfed.train.data import read_rows
    from p2pfed.train.learner import open_learner

    cache = platformdirs.user_cache_path("p2pfed")
    return open_learner(network, NodeConfig(), read_rows(str(data)), cache=cache)[0]
