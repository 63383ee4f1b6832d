"""The frozen base all nodes of a network share: found, checked, loaded, never changed.

A base is a packaged model, a local folder or a hub id. Weights stay in the dtype they are computed with, so
that on a CPU a float32 file is used in place, mapped into memory. Digests are of contents: two nodes with
different weights or vocabularies differ in their fingerprint whatever the names say.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from p2pfed.config import ModelConfig
from p2pfed.errors import ConfigError, ExitCode, LearnerError, LocalError
from p2pfed.train.packaged import PACKAGE_PREFIX, packaged_folder
from p2pfed.train.quantisation import nf4_config, nf4_problem

HASH_CHUNK_BYTES = 8 * 2**20
"""Of weights hashed at a time: beyond the largest cache, far below a large tensor."""

_PROBES = ("The answer is 42.", "[RESULT] 5", "Größe: 3 µm\n\n  naïve", "日本語 🙂", "a  b\tc")
"""Texts whose token ids are part of the tokenizer's digest: words, the verdict, accents, bytes, spaces."""


@dataclass(frozen=True, slots=True)
class BaseModel:
    """`model` is a transformers causal language model without an adapter, `tokenizer` a fast tokenizer."""

    name: str
    model: Any
    tokenizer: Any
    device: torch.device
    digest: str
    tokenizer_digest: str


def use_threads(count: int) -> None:
    """torch threads of this process. More than one hurts as soon as processes share cores."""
    torch.set_num_threads(count)


def pick_device(wanted: str) -> torch.device:
    """ "auto" takes a CUDA device where there is one."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device {wanted!r}, expected auto, cpu or cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise LocalError("device 'cuda' is asked for, but torch sees no CUDA device", ExitCode.MODEL)
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has units for it, else float32: emulated bfloat16 is slower by a hundred."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    units = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    has_units = any(getattr(torch.cpu, name, lambda: False)() for name in units)
    return torch.bfloat16 if has_units else torch.float32


def base_folder(model: ModelConfig, *, cache: Path, offline: bool) -> Path:
    """The folder with config, tokenizer and weights; fetched from the hub where it must and may be."""
    if model.base.startswith(PACKAGE_PREFIX):
        return packaged_folder(model.base, cache)
    folder = Path(model.base).expanduser()
    if folder.is_dir():
        return folder
    if model.base.count("/") != 1 or model.base.startswith((".", "/", "~")):
        raise LearnerError(f"model.base {model.base!r} is neither a folder nor a hub id (owner/name)")
    return _hub_folder(model, offline)


def load_config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise LearnerError(f"{folder} has no config transformers knows: {_line(error)}") from error


def load_tokenizer(folder: Path) -> Any:
    """A fast tokenizer: cutting and completion boundaries need character offsets."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise LearnerError(f"{folder} has no tokenizer transformers can read: {_line(error)}") from error
    if not tokenizer.is_fast or not tokenizer.eos_token:
        raise LearnerError(f"the tokenizer in {folder} is not a fast one or has no end token")
    return tokenizer


def load_base(
    model: ModelConfig, folder: Path, *, cache: Path, device: torch.device, tokenizer: Any = None
) -> BaseModel:
    """Everything a learner or judge needs. Checks the digests the network file names.

    `tokenizer`: of the same folder, where it is loaded already (a large vocabulary takes a second).
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = load_tokenizer(folder) if tokenizer is None else tokenizer
    tokenizer_sum = tokenizer_digest(tokenizer)
    base_sum = base_digest(folder, cache)
    _expect("tokenizer_sha256", model.tokenizer_sha256, tokenizer_sum)
    _expect("base_sha256", model.base_sha256, base_sum)
    dtype = compute_dtype(device)
    options: dict[str, Any] = {"dtype": dtype}
    if model.quantisation == "nf4":
        problem = nf4_problem(device, dtype)
        if problem is not None:
            raise LearnerError(f"4-bit weights do not work here: {problem}", ExitCode.QUANTISATION)
        options["quantization_config"] = nf4_config(dtype)
    elif model.quantisation != "none":
        raise ConfigError(f"model.quantisation {model.quantisation!r}, expected none or nf4")
    if device.type == "cuda" or model.quantisation == "nf4":
        options["device_map"] = {"": device}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise LearnerError(f"{model.base} can not be loaded: {_line(error)}") from error
    except torch.OutOfMemoryError as error:
        raise LearnerError(f"{model.base} does not fit into the memory of {device}", ExitCode.MEMORY) from error
    _check_head(loaded, model.base)
    loaded.requires_grad_(False)
    loaded.eval()
    return BaseModel(model.base, loaded, tokenizer, device, base_sum, tokenizer_sum)


def base_digest(folder: Path, cache: Path) -> str:
    """SHA-256 over all weights in order of name (name, dtype, shape, bytes), whatever the sharding.

    Kept in the cache by path, size and time of the files: reading 14 GB at each start would take a minute.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise LearnerError(f"{folder} has no .safetensors file; other formats are not read, they can hold code")
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:32]
    known = cache / "digests" / key
    if known.is_file():
        return known.read_text(encoding="ascii")
    digest = _weights_digest(files)
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        fresh = known.with_suffix(f".{hashlib.sha256(str(id(known)).encode()).hexdigest()[:8]}")
        fresh.write_text(digest, encoding="ascii")
        fresh.replace(known)
    except OSError as error:
        raise LocalError(f"cache {cache} can not be written: {error.strerror or error}") from error
    return digest


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 over vocabulary, special tokens, chat template and the ids of probe texts.

    Not over files: the same tokenizer is written differently by different library versions.
    """
    parts = {
        "vocabulary": sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0])),
        "special": [tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token],
        "chat": tokenizer.chat_template or "",
        "probes": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in _PROBES],
    }
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True, sort_keys=True).encode()).hexdigest()


def _weights_digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    try:
        where: dict[str, Path] = {}
        for file in files:
            with safe_open(file, framework="pt") as archive:
                where |= dict.fromkeys(archive.keys(), file)
        for name in sorted(where):
            with safe_open(where[name], framework="pt") as archive:
                tensor = archive.get_tensor(name)
            digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            flat = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
            for begin in range(0, flat.size, HASH_CHUNK_BYTES):
                digest.update(flat[begin : begin + HASH_CHUNK_BYTES])
    except SafetensorError as error:
        raise LearnerError(f"weights in {files[0].parent} are damaged: {_line(error)}") from error
    return digest.hexdigest()


def _hub_folder(model: ModelConfig, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(
            snapshot_download(
                model.base, revision=model.revision or None, allow_patterns=wanted, local_files_only=offline
            )
        )
    except LocalEntryNotFoundError as error:
        why = "offline is set" if offline else "the hub can not be reached"
        raise LearnerError(f"{model.base} is not in the cache and {why}") from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise LearnerError(f"{model.base} can not be fetched: {_line(error)}") from error


def _check_head(model: Any, base: str) -> None:
    """The loss applies the head to chosen positions itself, so a base that scales its logits is refused."""
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(model.config, name, None) not in (None, 1, 1.0):
            raise LearnerError(f"{base} scales its logits ({name}), which is not supported")


def _expect(field: str, wanted: str, found: str) -> None:
    if wanted and wanted != found:
        raise LearnerError(f"model.{field} is {wanted[:16]}... in the network file, but {found[:16]}... here")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
