"""Will it fit? Bytes a training step needs, from the model's shapes alone, before anything is loaded.

An estimate, calibrated against measured peaks; it is there to refuse in one sentence what would end in an
out-of-memory kill after minutes of loading. It knows nothing of other programs that start later.
"""

from dataclasses import dataclass
from typing import Any

import psutil
import torch

from p2pfed.config import NetworkConfig
from p2pfed.errors import ExitCode, LearnerError

NF4_BYTES_PER_WEIGHT = 0.516
"""4 bits, and scales with double quantisation: 3.35 GiB for the 6.98 G linear weights of a 7B."""
LIBRARIES_BYTES = 400 * 2**20
"""torch, transformers, peft and an allocator's slack, resident in one process; measured 250 to 400 MiB."""
SAVED_PER_TOKEN_LAYER_HIDDEN = 16
SAVED_PER_TOKEN_LAYER_MLP = 5
"""Values kept for the backward pass, in units of the hidden and of the MLP width, per token and layer."""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes by purpose."""

    weights: int
    adapter: int
    """Factors, gradients, two AdamW moments and the shared initial values: five times float32."""
    activations: int
    logits: int
    libraries: int = LIBRARIES_BYTES

    @property
    def total(self) -> int:
        return self.weights + self.adapter + self.activations + self.logits + self.libraries


def memory_need(network: NetworkConfig, config: Any, *, compute_bytes: int, checkpointing: bool = False) -> MemoryNeed:
    """What training in this network takes with a base of this transformers config."""
    linear, others = _weight_counts(config)
    nf4 = network.model.quantisation == "nf4"
    weights = int(linear * (NF4_BYTES_PER_WEIGHT if nf4 else compute_bytes) + others * compute_bytes)
    hidden = config.hidden_size
    layers = config.num_hidden_layers
    mlp = getattr(config, "intermediate_size", 4 * hidden)
    tokens = network.training.batch_rows * network.model.sequence_tokens_max
    live = SAVED_PER_TOKEN_LAYER_HIDDEN * hidden + SAVED_PER_TOKEN_LAYER_MLP * mlp
    per_token = layers * hidden + live if checkpointing else layers * live
    # A factor pair has rank x (in + out) values; in + out of a target is at most hidden + mlp.
    targets = len(network.adapter.targets)
    wide = any(target in ("gate_proj", "up_proj", "down_proj") for target in network.adapter.targets)
    adapter = targets * layers * network.adapter.rank * (hidden + (mlp if wide else hidden)) * 4 * 5
    # A completion is rarely over a third of its row; logits and their gradient are float32.
    logits = tokens // 3 * config.vocab_size * 4 * 2
    return MemoryNeed(weights, adapter, tokens * per_token * compute_bytes, logits)


def available_bytes(device: torch.device) -> int:
    """Memory a new process may take on that device without swapping."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return int(psutil.virtual_memory().available)


def check_memory(need: MemoryNeed, available: int, base: str) -> None:
    """Raises LearnerError (ExitCode.MEMORY) with the figures where it will not fit."""
    if need.total > available:
        raise LearnerError(
            f"training {base} needs about {_gib(need.total)} (weights {_gib(need.weights)}, adapter "
            f"{_gib(need.adapter)}, activations {_gib(need.activations + need.logits)}), but {_gib(available)} is "
            "available; gradient_checkpointing, or a smaller batch_rows or sequence_tokens_max, needs less",
            ExitCode.MEMORY,
        )


def _weight_counts(config: Any) -> tuple[int, int]:
    """(weights of linear layers inside the blocks, all others), from a model without storage."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    total = sum(parameter.numel() for parameter in model.parameters())
    head = model.get_output_embeddings()
    linear = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    return linear, total - linear


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
