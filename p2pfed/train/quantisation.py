"""4-bit base weights (NF4 through bitsandbytes), and a probe that really multiplies.

An import proves nothing: wheels exist that import and fail at the first kernel. So a small matrix is
quantised, multiplied forward and backward, and compared with its own dequantised values.
"""

from typing import Any

import torch

PROBE_WIDTH = 128
"""Two blocks of 64 weights a row: the smallest matrix with more than one scale in both directions."""
PROBE_ERROR_MAX = 1e-2
"""Relative to the largest value; bfloat16 rounds at 4e-3, a wrong kernel is wrong by more than half."""


def nf4_config(dtype: torch.dtype) -> Any:
    """NF4 with double quantisation, computing in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def nf4_problem(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why 4-bit weights can not be used on this device, in one clause; None when the probe multiplied well."""
    try:
        import bitsandbytes as bnb
    except (ImportError, OSError, RuntimeError) as error:
        return f"bitsandbytes does not import ({' '.join(str(error).split())[:120]}): pip install bitsandbytes"
    try:
        return _probe(bnb, device, dtype)
    except (RuntimeError, NotImplementedError, OSError, AttributeError, ValueError) as error:
        # A missing kernel shows as any of these, depending on the platform.
        return f"the first multiplication failed ({' '.join(str(error).split())[:120]})"


def _probe(bnb: Any, device: torch.device, dtype: torch.dtype) -> str | None:
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(PROBE_WIDTH, PROBE_WIDTH, generator=generator)
    layer = bnb.nn.Linear4bit(
        PROBE_WIDTH, PROBE_WIDTH, bias=False, compute_dtype=dtype, quant_type="nf4", compress_statistics=True
    )
    layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True)
    layer = layer.to(device)
    given = torch.randn(8, PROBE_WIDTH, generator=generator).to(device, dtype).requires_grad_()
    result = layer(given)
    result.float().sum().backward()
    plain = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(device, dtype)
    wanted = given.detach() @ plain.T
    wanted_gradient = torch.ones(8, PROBE_WIDTH, device=device, dtype=dtype) @ plain
    if given.grad is None:
        return "no gradient came back through the 4-bit matrix"
    for name, found, right in (("product", result.detach(), wanted), ("gradient", given.grad, wanted_gradient)):
        error = (found.float() - right.float()).abs().max() / right.float().abs().max()
        if not error <= PROBE_ERROR_MAX:
            return f"the 4-bit {name} is wrong by {float(error):.1%}"
    spread = (plain.float().cpu() - weight).pow(2).mean().sqrt()
    # NF4 keeps normal weights to about 9 % of their spread; a broken dequantisation does not come near.
    return None if spread < 0.2 else f"4-bit weights are off by {float(spread):.0%} of their spread"
