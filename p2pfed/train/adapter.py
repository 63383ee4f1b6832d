"""LoRA factors on a frozen base: where they sit, what they are called, what they begin as.

Names on the wire are PEFT's own, so a payload is a PEFT file but for its folder. Factors are float32
whatever the base computes in. The initial A factors come out of SHAKE-256 over network id (adapter.seed is
part of it) and tensor name: equal bytes on every platform and library version, which torch's generators do not
promise. B starts at 0.
"""

import hashlib
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from p2pfed.config import NetworkConfig
from p2pfed.errors import ConfigError, LearnerError
from p2pfed.wire.tensors import DTYPES, Expected, expected_size, pack_tensors, unpack_tensors

ADAPTER_NAME = "default"
_ENCODINGS = {"float32": "F32", "float16": "F16"}


class Adapter:
    """The factors of one PEFT model. `values()` and `assign` are its only way in and out."""

    def __init__(self, network: NetworkConfig, base: Any) -> None:
        """Puts factors into `base` (in place: one adapter a base) and gives them their initial values."""
        import peft

        if network.gossip.encoding not in _ENCODINGS:
            raise ConfigError(f"gossip.encoding {network.gossip.encoding!r}, expected float32 or float16")
        self._encoding = _ENCODINGS[network.gossip.encoding]
        try:
            with warnings.catch_warnings():
                # PEFT asks transformers in a way that is being renamed there; users can do nothing about it.
                warnings.simplefilter("ignore", FutureWarning)
                self.model: Any = peft.get_peft_model(base, lora_config(network), adapter_name=ADAPTER_NAME)
        except ValueError as error:
            raise ConfigError(f"adapter.targets {list(network.adapter.targets)}: {str(error)[:200]}") from error
        self.factors: dict[str, torch.nn.Parameter] = dict(sorted(_named_factors(self.model).items()))
        shapes = {name: tuple(factor.shape) for name, factor in self.factors.items()}
        self.expected: Expected = {name: (self._encoding, shape) for name, shape in shapes.items()}
        self._seed = {name: torch.from_numpy(initial_factor(network, name, shapes[name])) for name in shapes}
        self.reset()

    def size(self) -> int:
        """Of `encode()`, exactly."""
        return expected_size(self.expected)

    def reset(self) -> None:
        """Back to the initial values all nodes share."""
        self.assign(self._seed)

    def assign(self, values: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, factor in self.factors.items():
                factor.copy_(values[name])

    def values(self) -> dict[str, torch.Tensor]:
        """A copy, float32, on the CPU."""
        return {name: factor.detach().to("cpu", copy=True) for name, factor in self.factors.items()}

    def encode(self) -> bytes:
        """In wire form. Raises LearnerError (ExitCode.TRAINING) where a value is not finite in it."""
        with np.errstate(over="ignore"):
            dtype = DTYPES[self._encoding]
            return pack_tensors({k: v.numpy().astype(dtype, copy=False) for k, v in self.values().items()})

    def decode(self, payload: bytes) -> dict[str, torch.Tensor]:
        """A peer's values as float32. Raises RemoteError with the defect."""
        named = unpack_tensors(payload, self.expected)
        return {name: torch.from_numpy(array.astype(np.float32)) for name, array in named.items()}

    def move_towards(self, other: Mapping[str, torch.Tensor], weight: float) -> float:
        """self += weight * (other - self) in float32; returns the distance before."""
        squares = 0.0
        with torch.no_grad():
            for name, factor in self.factors.items():
                difference = other[name].to(factor.device) - factor
                squares += _square(difference)
                factor.add_(difference, alpha=weight)
        return math.sqrt(squares)

    def norm(self) -> float:
        """L2 norm of the difference to the initial values."""
        pairs = ((factor.detach(), self._seed[name].to(factor.device)) for name, factor in self.factors.items())
        return math.sqrt(sum(_square(now - before) for now, before in pairs))

    def shapes_digest(self) -> str:
        """Of names, dtypes and shapes: what must be equal for two adapters to be averaged."""
        return hashlib.sha256(repr(sorted(self.expected.items())).encode()).hexdigest()

    def seed_digest(self) -> str:
        """Of the initial values' bytes."""
        digest = hashlib.sha256()
        for name in self._seed:
            digest.update(self._seed[name].numpy().astype("<f4", copy=False).tobytes())
        return digest.hexdigest()


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


def _square(tensor: torch.Tensor) -> float:
    return float(tensor.double().pow(2).sum())
