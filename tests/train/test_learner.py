"""LoraLearner on a real, very small model: equal starts, exact resume, mixes, refusals."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from p2pfed.config_file import dump_network
from p2pfed.errors import ExitCode, LearnerError, RemoteError
from p2pfed.train.learner import LoraLearner
from p2pfed.train.loop import collate, token_losses
from p2pfed.wire.tensors import layout_of, pack_tensors, unpack_tensors

pytestmark = pytest.mark.model
Make = Callable[..., LoraLearner]

GOLDEN_FACTORS = [0.07706067711114883, 0.062451597303152084, 0.03302367776632309]
"""The first three of one A factor, computed from the rule in `adapter` with struct and hashlib alone."""


def values(payload: bytes) -> dict[str, np.ndarray]:
    return dict(unpack_tensors(payload, layout_of(payload)))


def test_training_lowers_the_loss(make_learner: Make) -> None:
    learner = make_learner()
    first = [learner.step().loss for _ in range(3)]
    for _ in range(30):
        learner.step()
    last = [learner.step().loss for _ in range(3)]
    assert sum(last) < 0.6 * sum(first)
    assert learner.progress().steps == 36


def test_initial_factors_are_equal_in_another_process(make_learner: Make) -> None:
    mine = make_learner().fingerprint()["initial"]
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
    shapes = [(name, shape) for name, (_, shape) in sorted(make_learner().adapter.expected.items())]
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(shapes), dump_network(make_learner()._network)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == mine
    assert make_learner(name="another network").fingerprint()["initial"] != mine


def test_initial_factors_are_those_written_down(make_learner: Make) -> None:
    """A change of these values parts a new version from every old network."""
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    found = values(make_learner().export())
    assert found[name][0, :3].tolist() == pytest.approx(GOLDEN_FACTORS, abs=0)
    assert abs(found[name]).max() <= 1 / np.sqrt(128)
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
    assert fresh.export() == learner.export()


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
    before = learner.export()
    with pytest.raises(LearnerError, match=message) as caught:
        learner.load(spoil(learner.save()))
    assert caught.value.exit_code == ExitCode.CHECKPOINT
    assert learner.export() == before


def test_checkpoint_of_another_network(make_learner: Make) -> None:
    with pytest.raises(LearnerError, match="checkpoint of network"):
        make_learner().load(make_learner(name="other").save())


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_mix_moves_by_weight(make_learner: Make, weight: float) -> None:
    one, two = make_learner(), make_learner(sentences=("A lift that stops between floors is not a fall.",))
    for _ in range(3):
        one.step()
        two.step()
    mine, theirs = values(one.export()), values(two.export())
    report = one.mix(two.export(), weight)
    after = values(one.export())
    for name, array in after.items():
        np.testing.assert_allclose(array, mine[name] + weight * (theirs[name] - mine[name]), atol=1e-7)
    assert report.distance == pytest.approx(
        np.sqrt(sum(((theirs[name] - mine[name]) ** 2).sum() for name in mine)), rel=1e-5
    )
    start = values(make_learner().export())
    assert report.norm == pytest.approx(np.sqrt(sum(((after[n] - start[n]) ** 2).sum() for n in start)), rel=1e-5)


def test_mix_keeps_the_moments(make_learner: Make) -> None:
    learner = make_learner()
    learner.step()
    moments = [state["exp_avg"].clone() for state in learner._optimizer.state.values()]
    learner.mix(make_learner().export(), 0.5)
    assert all(torch.equal(a, s["exp_avg"]) for a, s in zip(moments, learner._optimizer.state.values(), strict=True))


def test_two_that_mix_half_and_half_are_equal(make_learner: Make) -> None:
    one, two = make_learner(), make_learner(sentences=("The brake holds the car.",))
    one.step()
    two.step()
    mine, theirs = one.export(), two.export()
    one.mix(theirs, 0.5)
    two.mix(mine, 0.5)
    for name, array in values(one.export()).items():
        np.testing.assert_allclose(array, values(two.export())[name], atol=1e-7)


@pytest.mark.parametrize("encoding", ["float32", "float16"])
def test_export_has_the_promised_size(make_learner: Make, encoding: str) -> None:
    learner = make_learner(encoding=encoding)
    learner.step()
    payload = learner.export()
    assert len(payload) == learner.adapter_bytes()
    assert {dtype for dtype, _ in layout_of(payload).values()} == {"F32" if encoding == "float32" else "F16"}
    learner.admit(payload)
    assert learner.mix(payload, 1.0).distance < (1e-9 if encoding == "float32" else 1e-2)


def _defects() -> dict[str, Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]]:
    def first(named: dict[str, np.ndarray]) -> str:
        return min(named)

    return {
        "a name less": lambda named: {k: v for k, v in named.items() if k != first(named)},
        "a name more": lambda named: named | {"extra": np.zeros((1, 1), np.float32)},
        "another shape": lambda named: named | {first(named): np.zeros((1, 3), np.float32)},
        "another dtype": lambda named: named | {first(named): named[first(named)].astype(np.float16)},
    }


@pytest.mark.parametrize("defect", sorted(_defects()))
def test_admit_refuses(make_learner: Make, defect: str) -> None:
    learner = make_learner()
    before = learner.export()
    with pytest.raises(RemoteError):
        learner.admit(pack_tensors(_defects()[defect](values(before))))
    assert learner.export() == before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_admit_refuses_what_is_not_finite(make_learner: Make, value: float) -> None:
    learner = make_learner()
    payload = learner.export()[:-4] + np.float32(value).tobytes()
    with pytest.raises(RemoteError, match="finite"):
        learner.admit(payload)


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
    before, steps = learner.export(), learner.progress().steps
    norm = learner.adapter.model.get_base_model().model.norm.weight
    kept = norm.detach().clone()
    norm.data.fill_(float("nan"))
    with pytest.raises(LearnerError, match="data lines") as caught:
        learner.step()
    assert caught.value.exit_code == ExitCode.TRAINING
    norm.data.copy_(kept)
    assert learner.export() == before
    assert learner.progress().steps == steps
    learner.step()


def test_peft_loads_the_folder_unchanged(make_learner: Make, tmp_path: Path) -> None:
    import peft

    from p2pfed.snapshot.collect import Collection
    from p2pfed.snapshot.peft_folder import write_peft_folder

    learner = make_learner()
    for _ in range(5):
        learner.step()
    write_peft_folder(learner._network, Collection(learner.export(), (), {}, 0.0), tmp_path / "adapter")
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
