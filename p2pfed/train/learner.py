"""ports.Learner and ports.Momentum with a real model: AdamW on LoRA factors.

AdamW's moments are kept over mixes: they describe the local gradient, which a mix moves little. What is exchanged of
the first one is free of its bias towards 0, so that nodes of many steps and of few can average it.
A step whose loss or gradient is not finite changes nothing: factors and moments stay those of the last good
step, the batch is passed over, and LearnerError (ExitCode.TRAINING) names its rows.
A checkpoint is one safetensors file; after `load(save())` the next steps are bit-equal. No random state is in
it, for a step draws nothing: no dropout, and the order of rows is a function of seed and epoch.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.errors import ExitCode, LearnerError
from p2pfed.ports import Progress, StepReport
from p2pfed.train.adapter import Adapter, on_device
from p2pfed.train.base_model import BaseModel, base_folder, load_base, load_config, load_tokenizer, pick_device
from p2pfed.train.base_model import compute_dtype as device_dtype
from p2pfed.train.data import DataReport
from p2pfed.train.examples import Cursor, Example, Tokenised, epoch_batches, tokenise
from p2pfed.train.loop import ADAM_BETAS, collate, make_optimizer, optimizer_step
from p2pfed.train.preflight import available_bytes, check_memory, memory_need
from p2pfed.train.prompts import load_template

if TYPE_CHECKING:
    from p2pfed.ports import Values

CHECKPOINT_FORMAT = 2
STEER_SHARE = 0.5
"""Of the really moved in the first moment after `steer`: 0.3 and 1.0 were measured and were not better."""
HEADER_BYTES_MAX = 64 * 2**20
"""Of a checkpoint's JSON header: more than any adapter's names need, less than a damaged length asks for."""


class LoraLearner:
    """Call from one thread at a time. `base` is changed in place: it carries the factors from now on."""

    def __init__(
        self,
        network: NetworkConfig,
        base: BaseModel,
        examples: Sequence[Example],
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        self._network = network
        self._base = base
        self.examples = tuple(examples)
        self._lengths = [len(example.ids) for example in self.examples]
        self.adapter = Adapter(network, base.model)
        if gradient_checkpointing:
            _checkpoint_activations(self.adapter.model)
        self._optimizer = make_optimizer(list(self.adapter.factors.values()), network.training)
        self._steps = 0
        self._examples_seen = 0
        self._rates_sum = 0.0
        """Learning rates of the steps since the last `steer`."""
        self._cursor = Cursor()
        self._batches: tuple[int, list[list[int]]] | None = None

    def progress(self) -> Progress:
        return Progress(self._steps, self._examples_seen)

    def fingerprint(self) -> Mapping[str, str]:
        return {
            "base": self._base.digest,
            "tokenizer": self._base.tokenizer_digest,
        }

    def step(self) -> StepReport:
        chosen = [self.examples[index] for index in self.next_batch()]
        batch = collate(chosen, self._base.device)
        try:
            loss = optimizer_step(self.adapter.model, self._optimizer, batch, self._network.training, self._steps)
        except torch.OutOfMemoryError as error:
            raise LearnerError(
                f"a step of {batch.tokens} tokens does not fit into the memory of {self._base.device}; "
                "use gradient_checkpointing or a smaller training.batch_rows",
                ExitCode.MEMORY,
            ) from error
        if not math.isfinite(loss):
            lines = ", ".join(str(example.line) for example in chosen)
            raise LearnerError(
                f"step {self._steps + 1}: loss {loss} on data lines {lines}; the adapter is left as it was",
                ExitCode.TRAINING,
            )
        self._steps += 1
        self._examples_seen += len(chosen)
        self._rates_sum += float(self._optimizer.param_groups[0]["lr"])
        return StepReport(loss, len(chosen), sum(len(example.ids) for example in chosen))

    def start(self) -> "Values":
        return self.adapter.start

    def values(self) -> "Values":
        return self.adapter.values()

    def move(self, by: "Values") -> None:
        self.adapter.move(by)

    def first_moment(self) -> "Values":
        found = {}
        for name, factor in self.adapter.factors.items():
            state = self._optimizer.state.get(factor)
            moment = state["exp_avg"] / _filled(state, 0) if state else torch.zeros_like(factor)
            found[name] = moment.detach().to("cpu", copy=True).numpy()
        return found

    def move_first_moment(self, by: "Values") -> None:
        """Before the first step there is nothing to move: it keeps `filled` 0 of it."""
        with torch.no_grad():
            for name, factor in self.adapter.factors.items():
                state = self._optimizer.state.get(factor)
                if state:
                    state["exp_avg"].add_(on_device(by[name], factor), alpha=_filled(state, 0))

    def steer(self, moved: "Values") -> None:
        """A step moves a factor by -rate * m' / sqrt(v'): so m' is what would have moved it as far in as many steps."""
        if self._rates_sum == 0.0:
            return
        with torch.no_grad():
            for name, factor in self.adapter.factors.items():
                state = self._optimizer.state.get(factor)
                if not state:
                    continue
                scale = (state["exp_avg_sq"] / _filled(state, 1)).sqrt_()
                share = -STEER_SHARE * _filled(state, 0) / self._rates_sum
                moment = on_device(moved[name], factor).mul_(scale)
                state["exp_avg"].mul_(1.0 - STEER_SHARE).add_(moment, alpha=share)
        self._rates_sum = 0.0

    def save(self) -> bytes:
        tensors: dict[str, torch.Tensor] = {}
        for name, factor in self.adapter.factors.items():
            tensors[f"factor.{name}"] = factor.detach()
            state = self._optimizer.state.get(factor)
            if state:
                tensors[f"first.{name}"] = state["exp_avg"]
                tensors[f"second.{name}"] = state["exp_avg_sq"]
                tensors[f"updates.{name}"] = state["step"]
        values = {
            "format": CHECKPOINT_FORMAT,
            "steps": self._steps,
            "examples": self._examples_seen,
            "epoch": self._cursor.epoch,
            "position": self._cursor.position,
            "rates_sum": self._rates_sum,
            "network": self._network.network_id,
        }
        contiguous = {name: tensor.to("cpu").contiguous() for name, tensor in tensors.items()}
        return save_tensors(contiguous, {"p2pfed": json.dumps(values, sort_keys=True)})

    def load(self, checkpoint: bytes) -> None:
        values, tensors = _read_checkpoint(checkpoint)
        if values["network"] != self._network.network_id:
            raise LearnerError(
                f"checkpoint of network {values['network']}, this is {self._network.network_id}", ExitCode.CHECKPOINT
            )
        for name, factor in self.adapter.factors.items():
            for kind in ("factor", "first", "second"):
                tensor = tensors.get(f"{kind}.{name}")
                if tensor is None and kind != "factor" and f"updates.{name}" not in tensors:
                    continue
                if tensor is None or tensor.shape != factor.shape or tensor.dtype != torch.float32:
                    raise LearnerError(f"checkpoint does not fit this model at {kind}.{name}", ExitCode.CHECKPOINT)
        self.adapter.assign({name: tensors[f"factor.{name}"].numpy() for name in self.adapter.factors})
        self._optimizer.state.clear()
        for name, factor in self.adapter.factors.items():
            if f"updates.{name}" in tensors:
                self._optimizer.state[factor] = {
                    "step": tensors[f"updates.{name}"].clone(),
                    "exp_avg": tensors[f"first.{name}"].to(factor.device, copy=True),
                    "exp_avg_sq": tensors[f"second.{name}"].to(factor.device, copy=True),
                }
        self._steps, self._examples_seen = int(values["steps"]), int(values["examples"])
        self._rates_sum = float(values["rates_sum"])
        self._cursor = Cursor(int(values["epoch"]), int(values["position"]))

    def next_batch(self) -> list[int]:
        """Indexes of `examples` for the next step, which are then behind it. Raises LearnerError without data."""
        if not self.examples:
            raise LearnerError("this learner has no data to train on", ExitCode.DATA)
        epoch = self._cursor.epoch
        if self._batches is None or self._batches[0] != epoch:
            seed, rows = self._network.adapter.seed, self._network.training.batch_rows
            self._batches = epoch, epoch_batches(self._lengths, epoch, rows, seed)
        batches = self._batches[1]
        # The data may have shrunk since the checkpoint: then the epoch is over.
        position = self._cursor.position if self._cursor.position < len(batches) else 0
        following = position + 1
        self._cursor = Cursor(epoch, following) if following < len(batches) else Cursor(epoch + 1, 0)
        return batches[position]


def open_learner(
    network: NetworkConfig, node: NodeConfig, data: DataReport, *, cache: Path
) -> tuple[LoraLearner, Tokenised]:
    """A learner on this device's data, and which rows it could not use. Checks memory before it loads weights."""
    device = pick_device(node.device)
    folder = base_folder(network.model, cache=cache, offline=node.offline)
    config = load_config(folder)
    compute_bytes = torch.empty(0, dtype=device_dtype(device)).element_size()
    need = memory_need(network, config, compute_bytes=compute_bytes, checkpointing=node.gradient_checkpointing)
    check_memory(need, available_bytes(device), network.model.base)
    tokens_max = min(network.model.sequence_tokens_max, config.max_position_embeddings)
    template = load_template(network.model.prompt)
    tokenizer = load_tokenizer(folder)
    tokenised = tokenise(data.rows, data.lines, tokenizer, template, tokens_max)
    base = load_base(network.model, folder, cache=cache, device=device, tokenizer=tokenizer)
    learner = LoraLearner(network, base, tokenised.examples, gradient_checkpointing=node.gradient_checkpointing)
    return learner, tokenised


def _read_checkpoint(checkpoint: bytes) -> tuple[dict[str, str | int | float], dict[str, torch.Tensor]]:
    try:
        length = int.from_bytes(checkpoint[:8], "little")
        if length > min(HEADER_BYTES_MAX, len(checkpoint)):
            raise ValueError(f"header of {length} bytes")
        values = json.loads(json.loads(checkpoint[8 : 8 + length])["__metadata__"]["p2pfed"])
        if values["format"] != CHECKPOINT_FORMAT:
            raise ValueError(f"format {values['format']}, this version reads {CHECKPOINT_FORMAT}")
        for name in ("steps", "examples", "epoch", "position"):
            if type(values[name]) is not int or values[name] < 0:
                raise ValueError(f"{name} {values[name]!r}")
        if type(values["rates_sum"]) is not float or not 0.0 <= values["rates_sum"] < math.inf:
            raise ValueError(f"rates_sum {values['rates_sum']!r}")
        return values, load_tensors(checkpoint)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise LearnerError(
            f"checkpoint is damaged: {' '.join(str(error).split())[:120]}", ExitCode.CHECKPOINT
        ) from error


def _filled(state: Mapping[str, torch.Tensor], moment: int) -> float:
    """Share of the weight in a moment that gradients have taken from the zeros it began with."""
    return float(1.0 - ADAM_BETAS[moment] ** float(state["step"]))


def _checkpoint_activations(model: object) -> None:
    """Recompute instead of remember. transformers does so only in training mode, where dropout would act too."""
    base = model.get_base_model()  # type: ignore[attr-defined]
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    base.train()
    for module in base.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
