"""Triton versions of ``spec.ops.transform``: one row per program, every stage in registers."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.tables import eighth_turn

from .launch import launch
from .rotation import FORWARD, INVERSE, shears, turn


@triton.jit
def bit_reversed(i, m: tl.constexpr):
    reverse = tl.zeros_like(i)
    for bit in tl.static_range(m):
        reverse = reverse | (((i >> bit) & 1) << (m - 1 - bit))
    return reverse


@triton.jit
def halves(z, half: tl.constexpr, step: tl.constexpr):
    """Return the first and second points of each pair, shape [step, half]."""
    return tl.split(tl.permute(tl.reshape(z, (step, 2, half)), (0, 2, 1)))


@triton.jit
def whole(a, b, half: tl.constexpr, step: tl.constexpr):
    return tl.reshape(tl.permute(tl.join(a, b), (0, 2, 1)), (2 * half * step,))


@triton.jit
def stage(
    re,
    im,
    lam_pointer,
    gam_pointer,
    quadrant_pointer,
    eighth_lam,
    eighth_gam,
    half: tl.constexpr,
    step: tl.constexpr,
    s: tl.constexpr,
    direction: tl.constexpr,
):
    re_a, re_b = halves(re, half, step)
    im_a, im_b = halves(im, half, step)
    k = tl.arange(0, half)[None, :] * step
    lam = tl.load(lam_pointer + k)
    gam = tl.load(gam_pointer + k)
    quadrant = tl.load(quadrant_pointer + k).to(tl.int32)
    if direction == FORWARD:
        re_b, im_b = turn(re_b, im_b, lam, gam, quadrant, s, FORWARD)
        re_a, re_b = shears(re_a, re_b, eighth_lam, eighth_gam, s, FORWARD)
        im_a, im_b = shears(im_a, im_b, eighth_lam, eighth_gam, s, FORWARD)
        re_b, im_b = -re_b, -im_b
    else:
        re_a, re_b = shears(re_a, -re_b, eighth_lam, eighth_gam, s, INVERSE)
        im_a, im_b = shears(im_a, -im_b, eighth_lam, eighth_gam, s, INVERSE)
        re_b, im_b = turn(re_b, im_b, lam, gam, quadrant, s, INVERSE)
    return whole(re_a, re_b, half, step), whole(im_a, im_b, half, step)


@triton.jit
def transform_kernel(
    y_pointer,
    x_pointer,
    lam_pointer,
    gam_pointer,
    quadrant_pointer,
    eighth_lam,
    eighth_gam,
    m: tl.constexpr,
    s: tl.constexpr,
    direction: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * (2 << m)
    straight = tl.arange(0, 1 << m)
    reverse = bit_reversed(straight, m)
    source = reverse if direction == FORWARD else straight
    target = straight if direction == FORWARD else reverse
    re = tl.load(x_pointer + row + 2 * source)
    im = tl.load(x_pointer + row + 2 * source + 1)
    for i in tl.static_range(m):
        re, im = stage(
            re,
            im,
            lam_pointer,
            gam_pointer,
            quadrant_pointer,
            eighth_lam,
            eighth_gam,
            half=1 << (i if direction == FORWARD else m - 1 - i),
            step=1 << (m - 1 - i if direction == FORWARD else i),
            s=s,
            direction=direction,
        )
    tl.store(y_pointer + row + 2 * target, re)
    tl.store(y_pointer + row + 2 * target + 1, im)


def transform(x, lam, gam, quadrant, s, direction):
    y = torch.empty(x.shape, dtype=torch.int32, device=x.device)
    n = x.shape[-2]
    rows = x.numel() // (2 * n)
    constants = {"m": n.bit_length() - 1, "s": s, "direction": direction, "num_warps": 8 if n > 1024 else 4}
    launch(transform_kernel, rows, (y,), (x, lam, gam, quadrant), *eighth_turn(s), **constants)
    return y


@implements(ops.dyadic_transform)
def dyadic_transform(x, lam, gam, quadrant, *, s):
    return transform(x, lam, gam, quadrant, s, 1)


@implements(ops.dyadic_transform_inverse)
def dyadic_transform_inverse(x, lam, gam, quadrant, *, s):
    return transform(x, lam, gam, quadrant, s, -1)


__all__ = ["dyadic_transform", "dyadic_transform_inverse"]
