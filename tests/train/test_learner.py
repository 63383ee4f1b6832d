"""LoraLearner on a real, very small model: equal starts, exact resume, moves of values and moments."""

import hashlib
import json
import math
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from p2pfed.config_file import dump_network
from p2pfed.errors import ExitCode, LearnerError
from p2pfed.mixer import norm_of, values_digest
from p2pfed.ports import Encoding
from p2pfed.train.learner import LoraLearner
from p2pfed.train.loop import ADAM_BETAS, collate, token_losses
from p2pfed.wire.tensors import pack_tensors

pytestmark = pytest.mark.model
Make = Callable[..., LoraLearner]


def equal(one: Mapping[str, np.ndarray], two: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(array, two[name]) for name, array in one.items())


def test_training_lowers_the_loss(make_learner: Make) -> None:
    learner = make_learner()
    first = [learner.step().loss for _ in range(3)]
    for _ in range(30):
        learner.step()
    last = [learner.step().loss for _ in range(3)]
    assert sum(last) < 0.6 * sum(first)
    assert learner.progress().steps == 36


def test_initial_factors_are_equal_in_another_process(make_learner: Make) -> None:
    mine = values_digest(make_learner().start())
    program = """
import json, sys
from p2pfed.config_file import parse_network
from p2pfed.train.adapter import initial_factor
import hashlib
network = parse_network(sys.argv[2], "argument")
digest = hashlib.sha256()
for name, shape in json.loads(sys.argv[1]):
    digest.update(initial_factor(network, name, tuple(shape)).tobytes())
print(digest.hexdigest())
"""
    shapes = sorted(make_learner().adapter.shapes.items())
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(shapes), dump_network(make_learner()._network)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == mine
    assert values_digest(make_learner(name="another network").start()) != mine


def test_initial_factors_are_those_written_down(make_learner: Make) -> None:
    """The rule of `adapter` with struct and hashlib alone: a change parts a new version from every old network."""
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    learner = make_learner()
    found = learner.start()
    assert equal(learner.values(), found)
    key = f"p2pfed initial factors 1|{learner._network.network_id}|{name}"
    words = struct.unpack("<3I", hashlib.shake_256(key.encode()).digest(12))
    (bound,) = struct.unpack("<f", struct.pack("<f", 1 / math.sqrt(128)))
    by_hand = [struct.unpack("<f", struct.pack("<f", ((word >> 8) / 2**23 - 1) * bound))[0] for word in words]
    assert found[name][0, :3].tolist() == by_hand
    assert abs(found[name]).max() <= bound
    assert not found[name.replace("lora_A", "lora_B")].any()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_resume_is_bit_exact(make_learner: Make, checkpointing: bool) -> None:
    learner = make_learner(checkpointing=checkpointing)
    for _ in range(4):
        learner.step()
    saved = learner.save()
    wanted = [learner.step() for _ in range(4)]
    fresh = make_learner(checkpointing=checkpointing)
    fresh.load(saved)
    assert fresh.save() == saved
    assert [fresh.step() for _ in range(4)] == wanted
    assert equal(fresh.values(), learner.values())


def test_checkpointing_changes_nothing(make_learner: Make) -> None:
    plain, frugal = make_learner(), make_learner(checkpointing=True)
    for _ in range(3):
        assert plain.step().loss == pytest.approx(frugal.step().loss, rel=1e-5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[: len(data) // 2], "damaged"),
        (lambda data: b"\xff" * 8 + data[8:], "damaged"),
        (lambda data: b"", "damaged"),
        (lambda data: data.replace(b"lora_A", b"lora_C"), "does not fit"),
    ],
)
def test_damaged_checkpoint(make_learner: Make, spoil: Callable[[bytes], bytes], message: str) -> None:
    learner = make_learner()
    learner.step()
    before = learner.values()
    with pytest.raises(LearnerError, match=message) as caught:
        learner.load(spoil(learner.save()))
    assert caught.value.exit_code == ExitCode.CHECKPOINT
    assert equal(learner.values(), before)


def test_checkpoint_of_another_network(make_learner: Make) -> None:
    with pytest.raises(LearnerError, match="checkpoint of network"):
        make_learner().load(make_learner(name="other").save())


def moments(learner: LoraLearner) -> list[torch.Tensor]:
    return [state["exp_avg"].clone() for state in learner._optimizer.state.values()]


def test_move_adds_and_keeps_the_moments(make_learner: Make) -> None:
    learner = make_learner()
    learner.step()
    before, kept = learner.values(), moments(learner)
    by = {name: np.full_like(array, 0.25) for name, array in before.items()}
    learner.move(by)
    assert equal(learner.values(), {name: array + by[name] for name, array in before.items()})
    assert all(torch.equal(a, b) for a, b in zip(kept, moments(learner), strict=True))


def test_values_are_a_copy_and_the_start_stays(make_learner: Make) -> None:
    learner = make_learner()
    start, before = {name: array.copy() for name, array in learner.start().items()}, learner.values()
    learner.step()
    assert equal(before, start) and equal(learner.start(), start)
    assert not equal(learner.values(), start)


def test_the_first_moment_is_the_mean_gradient(make_learner: Make) -> None:
    """After one step it is that step's gradient, not a tenth of it; and it moves by what it is told."""
    learner = make_learner()
    zeros = learner.first_moment()
    assert norm_of(zeros.values()) == 0.0
    learner.move_first_moment({name: np.ones_like(array) for name, array in zeros.items()})
    assert equal(learner.first_moment(), zeros)
    learner.step()
    gradients = {
        name: factor.grad.numpy() for name, factor in learner.adapter.factors.items() if factor.grad is not None
    }
    found = learner.first_moment()
    for name, array in found.items():
        np.testing.assert_allclose(array, gradients[name], rtol=1e-5, atol=1e-12)
    learner.move_first_moment({name: np.full_like(array, 0.5) for name, array in found.items()})
    for name, array in learner.first_moment().items():
        np.testing.assert_allclose(array, found[name] + 0.5, rtol=1e-5)


def test_steer_blends_in_the_move(make_learner: Make) -> None:
    """The rule written out once more, in float64, with a warm-up that makes the rates differ."""
    learner = make_learner(warmup_steps=10)
    for _ in range(4):
        learner.step()
    rates = sum(5e-3 * done / 10 for done in range(1, 5))
    state = {name: dict(learner._optimizer.state[factor]) for name, factor in learner.adapter.factors.items()}
    first = {name: each["exp_avg"].double().numpy().copy() for name, each in state.items()}
    moved = {name: now - learner.start()[name] for name, now in learner.values().items()}
    learner.steer(moved)
    filled, second_filled = 1 - ADAM_BETAS[0] ** 4, 1 - ADAM_BETAS[1] ** 4
    for name, each in state.items():
        second = np.sqrt(each["exp_avg_sq"].double().numpy() / second_filled)
        wanted = 0.5 * first[name] - 0.5 * filled * second * moved[name] / rates
        np.testing.assert_allclose(each["exp_avg"].numpy(), wanted, rtol=1e-4, atol=1e-9)
    steered = learner.first_moment()
    learner.steer(moved)
    assert equal(learner.first_moment(), steered), "no step since: nothing to blend in"


def test_completion_loss_is_the_masked_loss_of_transformers(make_learner: Make) -> None:
    from p2pfed.train.examples import encode_example

    learner = make_learner()
    for _ in range(3):
        learner.step()
    tokenizer = learner._base.tokenizer
    pairs = [("The question is long and winding.", " A short answer.<eos>"), ("Why.", " Because it was cold.<eos>")]
    examples = [encode_example(prompt, completion, tokenizer) for prompt, completion in pairs]
    ours = token_losses(learner.adapter.model, collate(examples, torch.device("cpu")))
    theirs, counts = [], []
    for example in examples:
        ids = torch.from_numpy(example.ids).long()[None]
        labels = ids.clone()
        labels[:, : example.start] = -100
        theirs.append(float(learner.adapter.model(input_ids=ids, labels=labels).loss))
        counts.append(len(example.ids) - example.start)
    assert ours.numel() == sum(counts)
    assert float(ours.mean()) == pytest.approx(np.average(theirs, weights=counts), rel=1e-5)


def test_a_loss_that_is_not_finite_leaves_the_adapter(make_learner: Make) -> None:
    learner = make_learner()
    learner.step()
    before, steps = learner.values(), learner.progress().steps
    norm = learner.adapter.model.get_base_model().model.norm.weight
    kept = norm.detach().clone()
    norm.data.fill_(float("nan"))
    with pytest.raises(LearnerError, match="data lines") as caught:
        learner.step()
    assert caught.value.exit_code == ExitCode.TRAINING
    norm.data.copy_(kept)
    assert equal(learner.values(), before)
    assert learner.progress().steps == steps
    learner.step()


def test_peft_loads_the_folder_unchanged(make_learner: Make, tmp_path: Path) -> None:
    import peft

    from p2pfed.snapshot.collect import Collection
    from p2pfed.snapshot.peft_folder import write_peft_folder

    learner = make_learner()
    for _ in range(5):
        learner.step()
    write_peft_folder(
        learner._network,
        Collection(pack_tensors(learner.values(), Encoding.FLOAT32), (), {}, 0.0),
        tmp_path / "adapter",
    )
    fresh = _plain_base(make_learner)
    loaded = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter")
    ids = torch.from_numpy(learner.examples[0].ids).long()[None]
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, learner.adapter.model(input_ids=ids).logits)
        with loaded.disable_adapter():
            assert not torch.equal(loaded(input_ids=ids).logits, learner.adapter.model(input_ids=ids).logits)


def _plain_base(make_learner: Make) -> torch.nn.Module:
    """The base alone: the learner's own carries factors."""
    learner = make_learner()
    plain: torch.nn.Module = learner.adapter.model.unload()
    return plain


def test_open_learner_from_a_file(cache: Path, tmp_path: Path) -> None:
    from p2pfed.config import ModelConfig, NetworkConfig, NodeConfig
    from p2pfed.train.data import read_rows
    from p2pfed.train.learner import open_learner

    network = NetworkConfig("x", ModelConfig("package:glassllm-en", sequence_tokens_max=4096))
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "The brake holds the car."}\n' + json.dumps({"text": "word " * 200}) + "\n")
    learner, tokenised = open_learner(
        network, NodeConfig(device="cpu", offline=True), read_rows(str(data)), cache=cache
    )
    assert len(learner.examples) == 1
    # The model's 128 positions are the limit where the network file allows more.
    assert [(line, reason.rsplit(" ", 1)[1]) for line, reason in tokenised.rejected] == [(2, "128")]
    assert learner.step().examples == 1
