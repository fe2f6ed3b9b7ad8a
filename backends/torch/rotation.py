"""Torch versions of ``spec.ops.rotation``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

FORWARD, INVERSE = 1, -1


def quarter_turns(x, y, quadrant):
    """Return (x, y) turned by quadrant right angles: odd quadrants swap, two of four change each sign."""
    odd = (quadrant & 1) == 1
    x, y = torch.where(odd, y, x), torch.where(odd, x, y)
    return torch.where((quadrant == 1) | (quadrant == 2), -x, x), torch.where(quadrant >= 2, -y, y)


def shears(x, y, lam, gam, s, direction):
    x = x + direction * ((y * lam) >> s)
    y = y + direction * ((x * gam) >> s)
    x = x + direction * ((y * lam) >> s)
    return x, y


def turn(pairs, lam, gam, quadrant, s, direction):
    """Rotate int64 pairs along the last axis."""
    x, y = pairs.unbind(-1)
    if direction == FORWARD:
        x, y = quarter_turns(x, y, quadrant)
    x, y = shears(x, y, lam, gam, s, direction)
    if direction == INVERSE:
        x, y = quarter_turns(x, y, (4 - quadrant) & 3)
    return torch.stack([x, y], dim=-1)


@implements(ops.dyadic_rotate)
def dyadic_rotate(x, lam, gam, quadrant, *, s):
    return turn(x.long(), lam.long(), gam.long(), quadrant, s, FORWARD).int()


@implements(ops.dyadic_rotate_inverse)
def dyadic_rotate_inverse(x, lam, gam, quadrant, *, s):
    return turn(x.long(), lam.long(), gam.long(), quadrant, s, INVERSE).int()


def turn_channels(x, lam, gam, quadrant, s, direction):
    pairs = x.long().reshape(*x.shape[:2], lam.shape[1], 2)
    return turn(pairs, lam.long(), gam.long(), quadrant, s, direction).int().reshape(x.shape)


@implements(ops.rope)
def rope(x, lam, gam, quadrant, *, s):
    return turn_channels(x, lam, gam, quadrant, s, FORWARD)


@implements(ops.rope_inverse)
def rope_inverse(x, lam, gam, quadrant, *, s):
    return turn_channels(x, lam, gam, quadrant, s, INVERSE)


__all__ = ["dyadic_rotate", "dyadic_rotate_inverse", "rope", "rope_inverse"]
