"""Triton versions of ``spec.ops.norm``: one program per row, which is held in registers and read once.

A row's sum and its sum of squares cross the threads together. Of its scale, floats say where to compare, and then
comparisons decide: no float decides anything.
"""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import norm as golden

from . import halves, integers
from .launch import launch
from .room import at_most

HALF_MEAN_SQUARE_BITS = tl.constexpr(golden.MEAN_SQUARE_BITS // 2)
ELEMENTS_A_WARP = 1024
REGISTERS = 64  # of a thread: 32 warps then share a processor
MOST_WARPS = 16
FEWEST_ELEMENTS = 4  # that one instruction takes


def row_launch(D):
    """Return the tile and the number of warps for rows of D elements."""
    block = max(triton.next_power_of_2(D), FEWEST_ELEMENTS)
    return {"BLOCK": block, "num_warps": min(max(block // ELEMENTS_A_WARP, 1), MOST_WARPS)}


@triton.constexpr_function
def whole_log2(D):
    return D.bit_length() - 1


@triton.jit
def scale_exponent(square_sum, D: tl.constexpr):
    """Return the smallest k >= 0 with square_sum <= D * 4**k: by the lengths of both it is one of two."""
    # The sum is above 2**(length - 1) and below 2**(length + 1), and D is below twice its power of two.
    length = (square_sum.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127
    k = tl.maximum((length - whole_log2(D)) >> 1, 0)
    bound = tl.full([], D, tl.int64) << (2 * k).to(tl.int64)
    return k + (bound < square_sum).to(tl.int32)


@triton.jit
def scale_mantissa(square_sum, D: tl.constexpr, k, b: tl.constexpr):
    """Return half of the largest root below 2**(b + 2) with root**2 * mean_square <= target, rounded."""
    cut = tl.maximum(k - HALF_MEAN_SQUARE_BITS, 0)
    mean_square = square_sum >> (2 * cut).to(tl.int64)
    target = tl.full([], D, tl.int64) << (2 * (k - cut) + 2 * b + 2).to(tl.int64)
    top: tl.constexpr = (4 << b) - 1
    ratio = target.to(tl.float32) / tl.maximum(mean_square, 1).to(tl.float32)
    near = tl.minimum(tl.sqrt(ratio).to(tl.int32), top)  # the root, or one beside it
    root = tl.maximum(tl.where(mean_square == 0, top, near) - 1, 0)
    first, second = (root + 1).to(tl.int64), (root + 2).to(tl.int64)
    more = (first * first * mean_square <= target).to(tl.int32)
    more += ((second * second * mean_square <= target) & (second <= top)).to(tl.int32)
    return (root + more + 1) >> 1


@triton.jit
def two_sums(a, b):
    """Return the sums of two int64 rows: both pass between the lanes and the warps at once."""
    return tl.split(tl.sum(tl.join(a, b), 0))


@triton.jit
def about_mean(total, squares, D: tl.constexpr):
    """Return a row's mean, rounded down, and the sum of squares about it, by the sums of the row and of its squares.

    A square is below 2**46 and a row has at most 2**14 elements: neither term is beyond 2**61.
    """
    mean = integers.floor_div(total, D)
    return mean.to(tl.int32), squares + mean * (D * mean - 2 * total)


@triton.jit
def row_scale(square_sum, D: tl.constexpr, b: tl.constexpr):
    """Return k and m of a row by the sum of its squares about its mean."""
    k = scale_exponent(square_sum, D)
    m = tl.full((), 1, tl.int32)
    if b > 0:
        m = scale_mantissa(square_sum, D, k, b)
    return k, m


@triton.jit
def scaled_row(x, mask, D: tl.constexpr, b: tl.constexpr):
    """Return c * m of one row as int32, zero where masked, and k."""
    fours: tl.constexpr = [x.shape[0] // 4, 4]
    squares = x.to(tl.int64) * x
    # Four elements have 24 bits each: they fit int32.
    total, squares = two_sums(tl.sum(tl.reshape(x, fours), 1).to(tl.int64), tl.sum(tl.reshape(squares, fours), 1))
    mean, square_sum = about_mean(total, squares, D)
    k, m = row_scale(square_sum, D, b)
    return tl.where(mask, x - mean, 0) * m, k


@triton.jit
def normalised_row(x_pointer, gamma_pointer, D: tl.constexpr, b: tl.constexpr, s: tl.constexpr, BLOCK: tl.constexpr):
    """Return one row of `bitshift_norm` as int16, zero past its end."""
    column = tl.arange(0, BLOCK)
    mask = column < D
    x = tl.load(x_pointer + column, mask=mask, other=0)
    gamma = tl.load(gamma_pointer + column, mask=mask, other=0)
    scaled, k = scaled_row(x, mask, D, b)
    # The widths prove that the rounded product fits int32, so that the saturation needs no wide comparison.
    rounded = integers.shift_round(scaled.to(tl.int64) * gamma, (k + b + s).to(tl.int64)).to(tl.int32)
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
