"""Torch versions of ``spec.ops.activation``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers


@implements(ops.squareplus)
def squareplus(x, *, f, offset):
    wide = x.long()
    total = wide + integers.isqrt(wide * wide + (4 << (2 * f)))
    return integers.saturate((total >> 1) - offset, 16).to(torch.int16)


@implements(ops.algebraic_sigmoid)
def algebraic_sigmoid(z, *, f):
    wide = z.int()
    quotient = torch.div(wide << 14, (1 << f) + wide.abs(), rounding_mode="floor")
    return ((1 << 14) + quotient).to(torch.int16)


@implements(ops.sigmoid_gate)
def sigmoid_gate(x, z, *, f):
    product = x.int() * algebraic_sigmoid.kernel(z, f=f).int()
    return integers.shift_round(product, 15).to(torch.int16)


@implements(ops.silu_gate)
def silu_gate(x, z, *, f):
    weight = z.int() * algebraic_sigmoid.kernel(z, f=f)
    return integers.saturate(integers.shift_round(x.long() * weight, 15 + f), 16).to(torch.int16)


__all__ = ["algebraic_sigmoid", "sigmoid_gate", "silu_gate", "squareplus"]
