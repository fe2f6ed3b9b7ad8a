"""Triton versions of ``spec.ops.rotation``: one kernel, one pair per lane."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from .launch import ceil_div, launch, rows

BLOCK = 512
FORWARD, INVERSE = tl.constexpr(1), tl.constexpr(-1)


@triton.jit
def quarter_turns(x, y, quadrant):
    """Return (x, y) turned by quadrant right angles: odd quadrants swap, two of four change each sign."""
    odd = (quadrant & 1) == 1
    u = tl.where(odd, y, x)
    v = tl.where(odd, x, y)
    return tl.where((quadrant == 1) | (quadrant == 2), -u, u), tl.where(quadrant >= 2, -v, v)


@triton.jit
def shear(x, y, factor, s: tl.constexpr, direction: tl.constexpr):
    """Return x plus or minus the floor of y * factor / 2**s; the wide product is narrowed at once."""
    return x + direction * ((y.to(tl.int64) * factor) >> s).to(tl.int32)


@triton.jit
def shears(x, y, lam, gam, s: tl.constexpr, direction: tl.constexpr):
    x = shear(x, y, lam, s, direction)
    y = shear(y, x, gam, s, direction)
    return shear(x, y, lam, s, direction), y


@triton.jit
def turn(x, y, lam, gam, quadrant, s: tl.constexpr, direction: tl.constexpr):
    if direction == FORWARD:
        x, y = quarter_turns(x, y, quadrant)
    x, y = shears(x, y, lam, gam, s, direction)
    if direction == INVERSE:
        x, y = quarter_turns(x, y, (4 - quadrant) & 3)
    return x, y


@triton.jit
def turn_kernel(
    y_pointer,
    lam_pointer,
    gam_pointer,
    quadrant_pointer,
    x_pointer,
    pairs,
    period,
    pairs_a_row,
    distance,
    s: tl.constexpr,
    direction: tl.constexpr,
    BLOCK: tl.constexpr,
):
    pair = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = pair < pairs
    place, row = pair[:, None] * 2 + tl.arange(0, 2)[None, :], pair // pairs_a_row
    skipped = row * (distance - 2 * pairs_a_row)
    x, y = tl.split(tl.load(x_pointer + place + skipped[:, None], mask=mask[:, None], other=0).to(tl.int32))
    k = pair % period
    lam = tl.load(lam_pointer + k, mask=mask, other=0)
    gam = tl.load(gam_pointer + k, mask=mask, other=0)
    quadrant = tl.load(quadrant_pointer + k, mask=mask, other=0).to(tl.int32)
    x, y = turn(x, y, lam, gam, quadrant, s, direction)
    tl.store(y_pointer + place, tl.join(x, y), mask=mask[:, None])


def turn_pairs(x, lam, gam, quadrant, s, direction):
    """Turn the pairs of x; the coefficients repeat from the innermost pair outwards."""
    y = torch.empty(x.shape, dtype=torch.int32, device=x.device)
    pairs = x.numel() // 2
    x, distance = rows(x)
    sizes = pairs, lam.numel(), x.shape[-1] // 2, distance
    constants = {"s": s, "direction": direction, "BLOCK": BLOCK}
    launch(turn_kernel, ceil_div(pairs, BLOCK), (y,), (lam, gam, quadrant), *sizes, strided=(x,), **constants)
    return y


@implements(ops.dyadic_rotate)
def dyadic_rotate(x, lam, gam, quadrant, *, s):
    return turn_pairs(x, lam, gam, quadrant, s, 1)


@implements(ops.dyadic_rotate_inverse)
def dyadic_rotate_inverse(x, lam, gam, quadrant, *, s):
    return turn_pairs(x, lam, gam, quadrant, s, -1)


@implements(ops.rope)
def rope(x, lam, gam, quadrant, *, s):
    return turn_pairs(x, lam, gam, quadrant, s, 1)


@implements(ops.rope_inverse)
def rope_inverse(x, lam, gam, quadrant, *, s):
    return turn_pairs(x, lam, gam, quadrant, s, -1)


__all__ = ["dyadic_rotate", "dyadic_rotate_inverse", "rope", "rope_inverse"]
