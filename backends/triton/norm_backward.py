"""Triton versions of ``spec.ops.norm_backward``: each row is read once, while the row before it is computed."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops.norm_backward import CUT_BITS, UNIT_BITS

from . import integers
from .gluon_names import processors
from .launch import ceil_div, launch, zeros
from .norm import row_scale, two_sums

# A program sums the gain's gradient over its rows before it adds to memory. A warp has a whole short row, and a device
# runs all programs at once, whose rows lie side by side. Rows of 2048 were slower so: a program has ROWS of them.
SHORT_ROW, PROGRAMS_OF_PROCESSOR = 1024, 8
ROWS, ELEMENTS_A_WARP, MOST_WARPS = 8, 512, 16


@implements(ops.bitshift_norm_backward)
def bitshift_norm_backward(x, gamma, dy, dr, *, b, e):
    D = x.shape[-1]
    rows = x.numel() // D
    dx = torch.empty(x.shape, dtype=torch.int32, device=x.device)
    dgamma = zeros((D,), torch.int64, x.device)
    block = triton.next_power_of_2(D)
    if block <= SHORT_ROW:
        programs, warps = min(rows, PROGRAMS_OF_PROCESSOR * processors(x.device)), 1
        walk = (1, programs, rows)
    else:
        programs, warps = ceil_div(rows, ROWS), min(block // ELEMENTS_A_WARP, MOST_WARPS)
        walk = (ROWS, 1, ROWS)
    shape = {"D": D, "b": b, "unit_bits": UNIT_BITS, "cut_bits": CUT_BITS, "BLOCK": block}
    inputs = (x, gamma, dy, dr)
    launch(bitshift_norm_backward_kernel, programs, (dx, dgamma), inputs, rows, *walk, e, **shape, num_warps=warps)
    return dx, dgamma


@triton.jit
def round_div_by_float(a, b):
    """Floor of a / b + 1/2 for b > 0, where |a| + b < 2**53.

    Both are float64 numbers, and so is the quotient but for less than 1 / b; if it is no integer, it is at least 1 / b
    from the next.
    """
    return tl.floor((a + (b >> 1)).to(tl.float64) / b.to(tl.float64)).to(tl.int64)


@triton.jit
def load_row(x_pointer, dy_pointer, dr_pointer, place, mask):
    x = tl.load(x_pointer + place, mask=mask, other=0)
    dy = tl.load(dy_pointer + place, mask=mask, other=0).to(tl.int32)
    return x, dy, tl.load(dr_pointer + place, mask=mask, other=0)


@triton.jit(do_not_specialize=["rows", "pitch", "distance", "reach", "e"])
def bitshift_norm_backward_kernel(
    dx_pointer,
    dgamma_pointer,
    x_pointer,
    gamma_pointer,
    dy_pointer,
    dr_pointer,
    rows,
    pitch,
    distance,
    reach,
    e,
    D: tl.constexpr,
    b: tl.constexpr,
    unit_bits: tl.constexpr,
    cut_bits: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute rows ``distance`` apart, each program's first ``pitch`` from the last one's, all within its ``reach``."""
    column = tl.arange(0, BLOCK)
    mask = column < D
    gamma = tl.load(gamma_pointer + column, mask=mask, other=0).to(tl.int32)
    e = integers.scalar(e)
    up, down = tl.maximum(cut_bits - e, 0), tl.maximum(e - cut_bits, 0)  # of which one is 0
    gain = tl.zeros((BLOCK,), tl.int64)
    row = tl.program_id(0).to(tl.int64) * pitch
    end = tl.minimum(row + reach, rows)
    place, last = row * D + column, end * D
    x, dy, dr = load_row(x_pointer, dy_pointer, dr_pointer, place, mask)
    while row < end:
        row += distance
        next_place = row * D + column
        inside = mask & (next_place < last)
        next_x, next_dy, next_dr = load_row(x_pointer, dy_pointer, dr_pointer, next_place, inside)
        g = integers.shift_round(dy * gamma, cut_bits)
        x_sum, g_sum = two_sums(x.to(tl.int64), g.to(tl.int64))
        centred = tl.where(mask, x - integers.floor_div(x_sum, D).to(tl.int32), 0)
        k, m = row_scale(tl.sum(centred.to(tl.int64) * centred), D, b)
        # A left and a right shift, of which one is by zero: so the unit row fits 32 bits on the way too.
        places = k + b - unit_bits
        unit = integers.shift_round((centred * m) << tl.maximum(-places, 0), tl.maximum(places, 0))
        wide = unit.to(tl.int64)
        gain += dy.to(tl.int64) * wide
        energy, dot = two_sums(wide * wide, g.to(tl.int64) * wide)
        mean = integers.round_div(g_sum, D).to(tl.int32)
        divisor = tl.maximum(integers.shift_round(energy, unit_bits), 1)
        slope = round_div_by_float(dot, divisor).to(tl.int32)
        along = integers.shift_round(wide * slope, unit_bits).to(tl.int32)
        across = g - mean - along
        # m << up is at most 2**29.
        update = integers.shift_round(across.to(tl.int64) * (m << up), (k + b + down).to(tl.int64))
        dx = integers.saturate(dr.to(tl.int64) + update, 32)
        tl.store(dx_pointer + place, dx.to(tl.int32), mask=mask)
        x, dy, dr, place = next_x, next_dy, next_dr, next_place
    tl.atomic_add(dgamma_pointer + column, gain, mask=mask, sem="relaxed")


__all__ = ["bitshift_norm_backward"]
