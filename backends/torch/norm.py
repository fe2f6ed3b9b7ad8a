"""Torch versions of ``spec.ops.norm``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops.norm import LARGEST_EXPONENT, MEAN_SQUARE_BITS

from . import integers
from .linear import quantize_rows


def scale_exponent(square_sum, D):
    k = torch.zeros_like(square_sum)
    for j in range(LARGEST_EXPONENT):
        k += square_sum > D << (2 * j)
    return k


def scale_mantissa(square_sum, D, k, b):
    if b == 0:
        return torch.ones_like(k)
    cut = (k - MEAN_SQUARE_BITS // 2).clamp(min=0)
    mean_square = square_sum >> (2 * cut)
    target = D << (2 * (k - cut) + 2 * b + 2)
    root = torch.zeros_like(k)
    for bit in range(b + 1, -1, -1):
        trial = root + (1 << bit)
        root = torch.where(trial * trial * mean_square <= target, trial, root)
    return (root + 1) >> 1


def row_scale(x, b):
    D = x.shape[-1]
    wide = x.long()
    centred = wide - torch.div(wide.sum(dim=-1, keepdim=True), D, rounding_mode="floor")
    square_sum = (centred * centred).sum(dim=-1, keepdim=True)
    k = scale_exponent(square_sum, D)
    return centred, k, scale_mantissa(square_sum, D, k, b)


@implements(ops.bitshift_norm)
def bitshift_norm(x, gamma, *, b, s):
    centred, k, m = row_scale(x, b)
    y = integers.shift_round(centred * m * gamma, k + b + s)
    return integers.saturate(y, 16).to(torch.int16)


@implements(ops.norm_quantize)
def norm_quantize(x, gamma, *, b, s):
    return quantize_rows.kernel(bitshift_norm.kernel(x, gamma, b=b, s=s))


__all__ = ["bitshift_norm", "norm_quantize"]
