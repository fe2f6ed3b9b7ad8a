"""Triton versions of ``spec.ops.norm``: a program a row, the row held in registers and read once."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import norm as golden

from . import halves, integers
from .launch import launch
from .room import at_most

MEAN_SQUARE_BITS = tl.constexpr(golden.MEAN_SQUARE_BITS)
ELEMENTS_A_WARP = 1024
REGISTERS = 64  # of a thread: 32 warps then share a processor
MOST_WARPS = 16
FEWEST_ELEMENTS = 4  # that one instruction takes


def row_launch(D):
    """Return the tile and the number of warps for rows of D elements."""
    block = max(triton.next_power_of_2(D), FEWEST_ELEMENTS)
    return {"BLOCK": block, "num_warps": min(max(block // ELEMENTS_A_WARP, 1), MOST_WARPS)}


@triton.jit
def scale_exponent(square_sum, D: tl.constexpr):
    """Smallest k >= 0 with square_sum <= D * 4**k: a binary search that shifts right, so nothing overflows."""
    k = tl.zeros_like(square_sum)
    for log_step in tl.static_range(5):
        step = 16 >> log_step
        k = tl.where(((square_sum - 1) >> (2 * (k + step - 1))) >= D, k + step, k)
    return k


@triton.jit
def scale_mantissa(square_sum, D: tl.constexpr, k, b: tl.constexpr):
    cut = tl.maximum(k - MEAN_SQUARE_BITS // 2, 0)
    mean_square = square_sum >> (2 * cut)
    target = (tl.zeros_like(k) + D) << (2 * (k - cut) + 2 * b + 2)
    root = tl.zeros_like(k)
    for place in tl.static_range(b + 2):
        trial = root + (1 << (b + 1 - place))
        root = tl.where(trial * trial * mean_square <= target, trial, root)
    return (root + 1) >> 1


@triton.jit
def row_scale(centred, D: tl.constexpr, b: tl.constexpr):
    """Return k and m of a row less its mean, zero past its end."""
    wide = centred.to(tl.int64)
    square_sum = tl.sum(wide * wide)
    k = scale_exponent(square_sum, D)
    m = tl.full((), 1, tl.int32)
    if b > 0:
        m = scale_mantissa(square_sum, D, k, b).to(tl.int32)
    return k, m


@triton.jit
def scaled_row(x, mask, D: tl.constexpr, b: tl.constexpr):
    """Return c * m of one row as int32, zero where masked, and k and m."""
    fours = tl.sum(tl.reshape(x, [x.shape[0] // 4, 4]), 1)  # of 24 bits each: they fit int32
    mean = integers.floor_div(tl.sum(fours.to(tl.int64)), D).to(tl.int32)
    centred = tl.where(mask, x - mean, 0)
    k, m = row_scale(centred, D, b)
    return centred * m, k, m


@triton.jit
def normalised_row(x_pointer, gamma_pointer, D: tl.constexpr, b: tl.constexpr, s: tl.constexpr, BLOCK: tl.constexpr):
    """Return one row of `bitshift_norm` as int16, zero past its end."""
    column = tl.arange(0, BLOCK)
    mask = column < D
    x = tl.load(x_pointer + column, mask=mask, other=0)
    gamma = tl.load(gamma_pointer + column, mask=mask, other=0)
    scaled, k, _ = scaled_row(x, mask, D, b)
    # The widths prove that the rounded product fits int32, so that the saturation needs no wide comparison.
    rounded = integers.shift_round(scaled.to(tl.int64) * gamma, k + b + s).to(tl.int32)
    return halves.saturated(rounded)


@implements(ops.bitshift_norm)
def bitshift_norm(x, gamma, *, b, s):
    D = x.shape[-1]
    y = torch.empty(x.shape, dtype=torch.int16, device=x.device)
    launch(bitshift_norm_kernel, x.numel() // D, (y,), (x, gamma), D=D, b=b, s=s, **row_launch(D), **at_most(REGISTERS))
    return y


@triton.jit
def bitshift_norm_kernel(
    y_pointer, x_pointer, gamma_pointer, D: tl.constexpr, b: tl.constexpr, s: tl.constexpr, BLOCK: tl.constexpr
):
    start = tl.program_id(0).to(tl.int64) * D
    column = tl.arange(0, BLOCK)
    y = normalised_row(x_pointer + start, gamma_pointer, D, b, s, BLOCK)
    tl.store(y_pointer + start + column, y, mask=column < D)


@implements(ops.norm_quantize)
def norm_quantize(x, gamma, *, b, s):
    D = x.shape[-1]
    q = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    e = torch.empty(x.shape[:-1], dtype=torch.int32, device=x.device)
    launch(norm_quantize_kernel, e.numel(), (q, e), (x, gamma), D=D, b=b, s=s, **row_launch(D), **at_most(REGISTERS))
    return q, e


@triton.jit
def norm_quantize_kernel(
    q_pointer,
    e_pointer,
    x_pointer,
    gamma_pointer,
    D: tl.constexpr,
    b: tl.constexpr,
    s: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    y = normalised_row(x_pointer + row * D, gamma_pointer, D, b, s, BLOCK)
    e = tl.maximum(integers.bit_length(halves.largest(y)) - 7, 0)
    tl.store(q_pointer + row * D + column, halves.quantised(y, e), mask=column < D)
    tl.store(e_pointer + row, e)


__all__ = ["bitshift_norm", "norm_quantize"]
