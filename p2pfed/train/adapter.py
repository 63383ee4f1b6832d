"""LoRA factors on a frozen base: where they sit, what they are called, what they begin as.

Names on the wire are PEFT's own, so a payload is a PEFT file but for its folder. Factors are float32
whatever the base computes in. The initial A factors come out of SHAKE-256 over network id (adapter.seed is
part of it) and tensor name: equal bytes on every platform and library version, which torch's generators do not
promise. B starts at 0.
"""

import hashlib
import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from p2pfed.config import NetworkConfig
from p2pfed.errors import ConfigError, LearnerError

if TYPE_CHECKING:
    from p2pfed.ports import Values

ADAPTER_NAME = "default"


class Adapter:
    """The factors of one PEFT model. `values`, `assign` and `move` are its only ways in and out."""

    def __init__(self, network: NetworkConfig, base: Any) -> None:
        """Puts factors into `base` (in place: one adapter a base) and gives them their initial values."""
        import peft

        try:
            with warnings.catch_warnings():
                # PEFT asks transformers in a way that is being renamed there; users can do nothing about it.
                warnings.simplefilter("ignore", FutureWarning)
                self.model: Any = peft.get_peft_model(base, lora_config(network), adapter_name=ADAPTER_NAME)
        except ValueError as error:
            raise ConfigError(f"adapter.targets {list(network.adapter.targets)}: {str(error)[:200]}") from error
        self.factors: dict[str, torch.nn.Parameter] = dict(sorted(_named_factors(self.model).items()))
        self.shapes = {name: tuple(factor.shape) for name, factor in self.factors.items()}
        self.start = {name: initial_factor(network, name, shape) for name, shape in self.shapes.items()}
        for array in self.start.values():
            array.flags.writeable = False
        self.reset()

    def reset(self) -> None:
        """Back to the initial values all nodes share."""
        self.assign(self.start)

    def assign(self, values: "Values") -> None:
        with torch.no_grad():
            for name, factor in self.factors.items():
                factor.copy_(torch.tensor(values[name]))

    def move(self, by: "Values") -> None:
        """self += by."""
        with torch.no_grad():
            for name, factor in self.factors.items():
                factor.add_(on_device(by[name], factor))

    def values(self) -> dict[str, npt.NDArray[np.float32]]:
        """A copy, on the CPU."""
        return {name: factor.detach().to("cpu", copy=True).numpy() for name, factor in self.factors.items()}


def on_device(array: npt.NDArray[np.float32], beside: torch.Tensor) -> torch.Tensor:
    """A copy where that tensor is."""
    return torch.tensor(array, device=beside.device)


def lora_config(network: NetworkConfig) -> Any:
    """PEFT's config of this network's adapter; no dropout, so a step is a function of the batch alone."""
    import peft

    return peft.LoraConfig(
        r=network.adapter.rank,
        lora_alpha=network.adapter.alpha,  # type: ignore[arg-type]  # any number works; only the annotation says int
        target_modules=list(network.adapter.targets),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def initial_factor(network: NetworkConfig, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """A: uniform within 1/sqrt(inputs), PEFT's own distribution, in steps of 2^-23; B: zero."""
    if ".lora_A." not in name:
        return np.zeros(shape, dtype=np.float32)
    key = f"p2pfed initial factors 1|{network.network_id}|{name}"
    count = math.prod(shape)
    words = np.frombuffer(hashlib.shake_256(key.encode()).digest(4 * count), dtype="<u4")
    # 24 bits and a power of two: every step is exact in float32, only the last product rounds.
    unit = (words >> 8).astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    return (unit * np.float32(1.0 / math.sqrt(shape[1]))).reshape(shape)


def _named_factors(model: Any) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters by the name PEFT gives them in a file."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            found[name.replace(f".{ADAPTER_NAME}.", ".")] = parameter
    if not found:
        raise LearnerError("the adapter has no factor: no module has one of the target names")
    return found
