"""Torch versions of ``spec.ops.linear``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .packing import unpack_ternary

# A sum of products of at most 127 is exact in float32 while below 2**24, whatever its order; in float64, below 2**53.
EXACT_IN_FLOAT32 = (1 << 24) // 127


@implements(ops.quantize_rows)
def quantize_rows(x):
    wide = x.int()
    e = (integers.bit_length(wide.abs().amax(-1).long()) - 7).clamp(min=0)
    shift = e.int()[..., None]
    rounded = (wide + ((1 << shift) >> 1)) >> shift
    return integers.saturate(rounded, 8).to(torch.int8), e.int()


@implements(ops.requantize)
def requantize(x, *, shift):
    return integers.saturate(integers.shift_round(x.long(), shift), 8).to(torch.int8)


@implements(ops.ternary_linear)
def ternary_linear(q, e, w, *, num, shift):
    # CUDA has no integer matrix product, and its float32 one may round to tf32; float64 is exact below 2**53.
    exact = torch.float32 if q.device.type == "cpu" and q.shape[-1] <= EXACT_IN_FLOAT32 else torch.float64
    digits = unpack_ternary.kernel(w, K=q.shape[-1])
    accumulator = (q.to(exact) @ digits.to(exact).T).long()
    aligned = (accumulator * num) << e.long()[..., None]
    return integers.saturate(integers.shift_round(aligned, shift), 16).to(torch.int16)


@implements(ops.ternary_linear_requant)
def ternary_linear_requant(q, e, w, *, num, shift):
    return quantize_rows.kernel(ternary_linear.kernel(q, e, w, num=num, shift=shift))


__all__ = ["quantize_rows", "requantize", "ternary_linear", "ternary_linear_requant"]
