"""Torch versions of ``spec.ops.activation_backward``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers


@implements(ops.squareplus_backward)
def squareplus_backward(dy, x, *, f, offset):
    wide = x.long()
    # The float64 root of an integer below 2**52 has the exact floor.
    root = (wide * wide + (4 << (2 * f))).double().sqrt().long()
    total = wide + root
    slope = integers.round_div(total << 14, root).masked_fill_((total >> 1) - offset > 32767, 0)
    return integers.shift_round(slope.mul_(dy), 15).int()


def inverse_and_gate(z, f):
    denominator = (1 << f) + z.int().abs()
    inverse = torch.div((1 << (f + 15)) + (denominator >> 1), denominator, rounding_mode="floor")
    return inverse, torch.where(z < 0, inverse, (1 << 16) - inverse)


@implements(ops.sigmoid_gate_backward)
def sigmoid_gate_backward(dy, x, z, *, f):
    inverse, gate = inverse_and_gate(z, f)
    slope = integers.shift_round(inverse * inverse, 14)
    gradient = dy.long()
    dx = integers.shift_round(gradient * gate, 16)
    dz = integers.shift_round(gradient * x * slope, 17 + f)
    return dx.int(), integers.saturate(dz, 32).int()


@implements(ops.silu_gate_backward)
def silu_gate_backward(dy, x, z, *, f):
    inverse, gate = inverse_and_gate(z, f)
    half_square = integers.shift_round(inverse * inverse, 15)
    slope = torch.where(z < 0, half_square, (1 << 16) - half_square)
    gradient = dy.long()
    dx = integers.shift_round(gradient * z * gate, 16 + f)
    dz = integers.shift_round(gradient * x * slope, 16 + f)
    return integers.saturate(dx, 32).int(), integers.saturate(dz, 32).int()


__all__ = ["sigmoid_gate_backward", "silu_gate_backward", "squareplus_backward"]
