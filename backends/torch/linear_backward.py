"""Torch versions of ``spec.ops.linear_backward``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .packing import unpack_ternary

# A float64 sum of products below 2**22 is exact for 2**31 of them, whatever its order.
EXACT = torch.float64


@implements(ops.ternary_linear_backward)
def ternary_linear_backward(dy, w, *, K, num, shift):
    digits = unpack_ternary.kernel(w, K=K)
    accumulator = (dy.to(EXACT) @ digits.to(EXACT)).long()
    return integers.saturate(integers.shift_round(accumulator * num, shift), 16).to(torch.int16)


@implements(ops.ternary_linear_backward_weight)
def ternary_linear_backward_weight(dy, q, *, bits):
    errors, rows = (a.reshape(dy.shape[:-1].numel(), a.shape[-1]).to(EXACT) for a in (dy, q))
    return (errors.T @ rows).long()


__all__ = ["ternary_linear_backward", "ternary_linear_backward_weight"]
