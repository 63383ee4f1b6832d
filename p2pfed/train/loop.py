"""One optimizer step: batch to loss to factors. Only completions are learnt.

The body of the model runs over prompt and completion, the head only at the positions that predict a
completion token: with 49,152 words the head is a quarter of a small model's work, and its logits most of the memory.
Rows are padded on the right; a causal model's real positions never see padding, so no mask is needed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from p2pfed.config import TrainingConfig
from p2pfed.train.examples import Example

ADAM_BETAS = (0.9, 0.99)
"""0.99 and not 0.999: tens of local steps between mixes have to be enough for the second moment to follow."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`positions` index the flattened hidden states that predict `targets`; `owner` is the row of each."""

    ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor

    @property
    def tokens(self) -> int:
        return self.ids.numel()


def collate(examples: Sequence[Example], device: torch.device) -> Batch:
    """Right-padded with token 0, which no position that counts ever sees."""
    width = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    positions, targets, owner = [], [], []
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, :length] = torch.from_numpy(example.ids)
        positions.append(torch.arange(example.start - 1, length - 1) + row * width)
        targets.append(ids[row, example.start : length])
        owner.append(torch.full((length - example.start,), row))
    return Batch(ids.to(device), *(torch.cat(parts).to(device) for parts in (positions, targets, owner)))


def token_losses(model: Any, batch: Batch) -> torch.Tensor:
    """Cross entropy of each completion token, float32, in the order of `batch.targets`."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.get_decoder()(input_ids=batch.ids, use_cache=False).last_hidden_state
    chosen = hidden.reshape(-1, hidden.shape[-1])[batch.positions]
    logits = causal.get_output_embeddings()(chosen).float()
    return torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")


def make_optimizer(factors: Sequence[torch.nn.Parameter], training: TrainingConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(factors, lr=training.learning_rate, betas=ADAM_BETAS, weight_decay=training.weight_decay)


def optimizer_step(
    model: Any, optimizer: torch.optim.AdamW, batch: Batch, training: TrainingConfig, steps_done: int
) -> float:
    """The mean loss of the batch's completion tokens. Not finite: nothing was changed, the caller decides."""
    factors = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for group in optimizer.param_groups:
        group["lr"] = training.learning_rate * warmup(steps_done, training.warmup_steps)
    optimizer.zero_grad(set_to_none=True)
    loss = token_losses(model, batch).mean()
    value = float(loss.detach())
    if not math.isfinite(value):
        return value
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(factors, training.gradient_norm_max)
    if not math.isfinite(float(norm)):
        return math.nan
    optimizer.step()
    return value


def warmup(steps_done: int, warmup_steps: int) -> float:
    """Linear from 1/warmup_steps to 1, then constant: a network that trains on has no end to decay towards."""
    return min(1.0, (steps_done + 1) / warmup_steps) if warmup_steps > 0 else 1.0
