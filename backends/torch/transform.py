"""Torch versions of ``spec.ops.transform``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.tables import eighth_turn

from .rotation import FORWARD, INVERSE, shears, turn


def bit_reversed(z):
    """Return rows of 2**m points in bit-reversed order: point i where the m bits of i say, read backwards."""
    n = z.shape[-2]
    order = torch.zeros(1, dtype=torch.int64, device=z.device)
    while len(order) < n:
        order = torch.cat([2 * order, 2 * order + 1])
    return z[..., order, :]


def stage(z, half, lam, gam, quadrant, s, direction):
    """Combine blocks of ``half`` points two by two: (a, b) becomes (a + w b, a - w b) / sqrt(2), or back."""
    step = z.shape[-2] // (2 * half)
    a, b = z.reshape(*z.shape[:-2], step, 2, half, 2).unbind(-3)
    w = (lam[::step], gam[::step], quadrant[::step])
    if direction == FORWARD:
        b = turn(b, *w, s, FORWARD)
        a, b = shears(a, b, *eighth_turn(s), s, FORWARD)
        b = -b
    else:
        a, b = shears(a, -b, *eighth_turn(s), s, INVERSE)
        b = turn(b, *w, s, INVERSE)
    return torch.stack([a, b], dim=-3).reshape(z.shape)


@implements(ops.dyadic_transform)
def dyadic_transform(x, lam, gam, quadrant, *, s):
    z = bit_reversed(x.long())
    for log_half in range(x.shape[-2].bit_length() - 1):
        z = stage(z, 1 << log_half, lam.long(), gam.long(), quadrant, s, FORWARD)
    return z.int()


@implements(ops.dyadic_transform_inverse)
def dyadic_transform_inverse(x, lam, gam, quadrant, *, s):
    z = x.long()
    for log_half in reversed(range(x.shape[-2].bit_length() - 1)):
        z = stage(z, 1 << log_half, lam.long(), gam.long(), quadrant, s, INVERSE)
    return bit_reversed(z).int()


__all__ = ["dyadic_transform", "dyadic_transform_inverse"]
