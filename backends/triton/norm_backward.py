"""Triton versions of ``spec.ops.norm_backward``: some rows a program, one after the other, each read once."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops.norm_backward import CUT_BITS, UNIT_BITS

from . import integers
from .launch import ceil_div, launch, zeros
from .norm import scaled_row

# A program sums the gain's gradient over its rows before it adds to memory.
ROWS = 8
ELEMENTS_A_WARP = 256
MOST_WARPS = 16


@implements(ops.bitshift_norm_backward)
def bitshift_norm_backward(x, gamma, dy, dr, *, b, e):
    D = x.shape[-1]
    rows = x.numel() // D
    dx = torch.empty(x.shape, dtype=torch.int32, device=x.device)
    dgamma = zeros((D,), torch.int64, x.device)
    block = triton.next_power_of_2(D)
    launch(
        bitshift_norm_backward_kernel,
        ceil_div(rows, ROWS),
        (dx, dgamma),
        (x, gamma, dy, dr),
        rows,
        e,
        D=D,
        b=b,
        unit_bits=UNIT_BITS,
        cut_bits=CUT_BITS,
        ROWS=ROWS,
        BLOCK=block,
        num_warps=min(max(block // ELEMENTS_A_WARP, 1), MOST_WARPS),
    )
    return dx, dgamma


@triton.jit
def round_div_by_float(a, b):
    """Floor of a / b + 1/2 for b > 0, where |a| + b < 2**53.

    Both are float64 numbers, and so is the quotient but for less than 1 / b; if it is no integer, it is at least 1 / b
    from the next.
    """
    return tl.floor((a + (b >> 1)).to(tl.float64) / b.to(tl.float64)).to(tl.int64)


@triton.jit(do_not_specialize=["e"])
def bitshift_norm_backward_kernel(
    dx_pointer,
    dgamma_pointer,
    x_pointer,
    gamma_pointer,
    dy_pointer,
    dr_pointer,
    rows,
    e,
    D: tl.constexpr,
    b: tl.constexpr,
    unit_bits: tl.constexpr,
    cut_bits: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.arange(0, BLOCK)
    mask = column < D
    gamma = tl.load(gamma_pointer + column, mask=mask, other=0).to(tl.int32)
    e = integers.scalar(e)
    up, down = tl.maximum(cut_bits - e, 0), tl.maximum(e - cut_bits, 0)  # of which one is 0
    gain = tl.zeros((BLOCK,), tl.int64)
    row = tl.program_id(0).to(tl.int64) * ROWS
    last = tl.minimum(row + ROWS, rows)
    while row < last:
        place = row * D + column
        x = tl.load(x_pointer + place, mask=mask, other=0)
        dy = tl.load(dy_pointer + place, mask=mask, other=0).to(tl.int32)
        dr = tl.load(dr_pointer + place, mask=mask, other=0)
        scaled, k, m = scaled_row(x, mask, D, b)
        # A left and a right shift, of which one is by zero: so the unit row fits 32 bits on the way too.
        places = (k + b).to(tl.int32) - unit_bits
        unit = integers.shift_round(scaled << tl.maximum(-places, 0), tl.maximum(places, 0))
        wide = unit.to(tl.int64)
        gain += dy.to(tl.int64) * wide
        g = integers.shift_round(dy * gamma, cut_bits)
        mean = integers.round_div(tl.sum(g.to(tl.int64)), D).to(tl.int32)
        divisor = tl.maximum(integers.shift_round(tl.sum(wide * wide), unit_bits), 1)
        slope = round_div_by_float(tl.sum(g.to(tl.int64) * wide), divisor).to(tl.int32)
        along = integers.shift_round(wide * slope, unit_bits).to(tl.int32)
        across = g - mean - along
        update = integers.shift_round((across.to(tl.int64) * m) << up.to(tl.int64), k + b + down)
        dx = integers.saturate(dr.to(tl.int64) + update, 32)
        tl.store(dx_pointer + place, dx.to(tl.int32), mask=mask)
        row += 1
    tl.atomic_add(dgamma_pointer + column, gain, mask=mask, sem="relaxed")


__all__ = ["bitshift_norm_backward"]
