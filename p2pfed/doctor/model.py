"""Checks of what trains: the torch device, a 4-bit multiplication, memory against what the network's model needs."""

import importlib.util
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from p2pfed.config import NetworkConfig
from p2pfed.doctor.finding import Finding, fail, ok, warn
from p2pfed.errors import P2pfedError

if TYPE_CHECKING:
    import torch


def check_model(network: NetworkConfig | None, device_wanted: str, gradient_checkpointing: bool) -> Iterator[Finding]:
    """Imports torch, where it is there. Downloads nothing."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        return  # told by check_packages
    from p2pfed.train.base_model import compute_dtype, pick_device

    try:
        device = pick_device(device_wanted)
    except P2pfedError as error:
        yield fail("torch", str(error), 'choose device = "auto" in node.toml', error.exit_code)
        return
    dtype = compute_dtype(device)
    yield ok("torch", f"trains on {_device_name(device)}, in {str(dtype).removeprefix('torch.')}")
    yield _check_nf4(network, device, dtype)
    yield from _check_memory(network, device, gradient_checkpointing)


def _device_name(device: "torch.device") -> str:
    import torch

    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    return f"{device.type} with {os.cpu_count()} cores"


def _check_nf4(network: NetworkConfig | None, device: "torch.device", dtype: "torch.dtype") -> Finding:
    from p2pfed.errors import ExitCode
    from p2pfed.train.quantisation import nf4_problem

    problem = nf4_problem(device, dtype)
    if problem is None:
        return ok("4-bit weights", "a small NF4 matrix multiplied right, forward and backward")
    remedy = 'pip install --upgrade bitsandbytes, or a network with model.quantisation = "none"'
    if network is not None and network.model.quantisation == "nf4":
        return fail("4-bit weights", problem, remedy, ExitCode.QUANTISATION)
    return warn("4-bit weights", f"{problem}; networks with nf4 need it", remedy)


def _check_memory(
    network: NetworkConfig | None, device: "torch.device", gradient_checkpointing: bool
) -> Iterator[Finding]:
    import torch

    from p2pfed.node import prepare_environment
    from p2pfed.train.base_model import base_folder, compute_dtype, load_config
    from p2pfed.train.packaged import cache_folder
    from p2pfed.train.preflight import available_bytes, check_memory, memory_need

    available = available_bytes(device)
    if network is None:
        yield ok("memory", f"{available / 2**30:.1f} GiB available; --network FILE compares it with what a model needs")
        return
    prepare_environment(network, 1)
    try:
        folder = base_folder(network.model, cache=cache_folder(os.environ), offline=True)
        config = load_config(folder)
        yield ok("base model", f"{network.model.base} is in {folder}")
    except P2pfedError as error:
        if "/" in network.model.base:
            missing = f"{network.model.base} is not here yet"
            yield warn("base model", missing, "the first start fetches it; memory is compared once it is here")
        else:
            yield fail("base model", str(error), "see its page", error.exit_code)
        return
    compute_bytes = torch.empty(0, dtype=compute_dtype(device)).element_size()
    need = memory_need(network, config, compute_bytes=compute_bytes, checkpointing=gradient_checkpointing)
    try:
        check_memory(need, available, network.model.base)
        yield ok("memory", f"{available / 2**30:.1f} GiB available, training needs about {need.total / 2**30:.1f} GiB")
    except P2pfedError as error:
        yield fail(
            "memory",
            str(error),
            "set gradient_checkpointing = true in node.toml, or take a smaller model or network",
            error.exit_code,
        )
