"""Torch versions of ``spec.ops.gradient``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .philox import rounding_words


@implements(ops.saturating_add)
def saturating_add(a, b):
    return integers.saturate(a.int() + b, 16).to(torch.int16)


@implements(ops.gradient_add)
def gradient_add(a, b):
    return a + b


@implements(ops.largest_magnitude)
def largest_magnitude(x):
    if x.numel() == 0:
        return torch.zeros(1, dtype=torch.int64, device=x.device)
    low, high = x.aminmax()
    return torch.maximum(high.long(), -low.long()).reshape(1)


@implements(ops.round_to_int16)
def round_to_int16(x, *, shift):
    return integers.saturate(integers.shift_even(x.long(), shift), 16).to(torch.int16)


@implements(ops.saturate_backward)
def saturate_backward(dy, y, *, shift):
    limit = torch.iinfo(y.dtype).max
    e = integers.saturate(integers.shift_even(dy.long(), shift), 16)
    outward = (y == limit) & (e < 0) | (y == -limit) & (e > 0)
    return torch.where(outward, 0, e).to(torch.int16)


@implements(ops.stochastic_round_rows)
def stochastic_round_rows(x, e, *, shift, bits, seed, step, stream, first):
    words = rounding_words(e.numel(), x.shape[-1], seed, step, stream, first, x.device)
    noise = (words & ((1 << shift) - 1)).reshape(x.shape)
    y = integers.saturate(((x.int() << e[..., None]) + noise) >> shift, bits)
    return y.to(torch.int8 if bits <= 8 else torch.int16)


__all__ = [
    "gradient_add",
    "largest_magnitude",
    "round_to_int16",
    "saturate_backward",
    "saturating_add",
    "stochastic_round_rows",
]
