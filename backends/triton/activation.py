"""Triton versions of ``spec.ops.activation``."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .instructions import reciprocal
from .launch import elementwise, rows


@implements(ops.squareplus)
def squareplus(x, *, f, offset):
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return elementwise(squareplus_kernel, y, x, f=f, offset=offset)


# Added to an integer n of at most 2**22, either way, as bits and as a float32: the sums are the same 32 bits.
SHIFTED, SHIFTED_BITS = tl.constexpr(1.5 * 2**23), tl.constexpr(0x4B400000)


@triton.jit
def squareplus_of(x, f: tl.constexpr, offset: tl.constexpr):
    """Return squareplus of int16 in int32, with no conversion between integers and floats: those are slow.

    The float32 radicand and its root are wrong by less than a part in 2**21 together, so by less than 0.03: the nearest
    integer is the root rounded down or one more, at most 46340, as the radicand is at most 32767**2 + 2**30.
    """
    real = (x + SHIFTED_BITS).to(tl.float32, bitcast=True) - SHIFTED
    root = (tl.sqrt(real * real + (4 << (2 * f))) + SHIFTED).to(tl.int32, bitcast=True) - SHIFTED_BITS
    too_large = (x * x + (4 << (2 * f)) - root * root) >> 31  # -1 if it is
    return tl.minimum(((x + root + too_large) >> 1) - offset, 32767)  # none is below -offset


@triton.jit
def squareplus_kernel(y_pointer, x_pointer, size, f: tl.constexpr, offset: tl.constexpr, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_pointer + index, mask=index < size, other=0).to(tl.int32)
    tl.store(y_pointer + index, squareplus_of(x, f, offset).to(tl.int16), mask=index < size)


@implements(ops.algebraic_sigmoid)
def algebraic_sigmoid(z, *, f):
    return elementwise(algebraic_sigmoid_kernel, torch.empty(z.shape, dtype=z.dtype, device=z.device), z, f=f)


@triton.jit
def in_rows(start, lane, WIDTH: tl.constexpr, distance):
    """Return the place of element ``start + lane`` of a dense array in rows that are ``distance`` apart.

    From the first element's row on, places are small numbers, which divide faster; not in rows of more than 2**30.
    """
    row = start // WIDTH
    place = start - row * WIDTH + lane
    if WIDTH <= 1 << 30:
        place = place.to(tl.int32)
    return row * distance + place + (place // WIDTH).to(tl.int64) * (distance - WIDTH)


@triton.jit
def floor_ratio(a, b):
    """Floor of a / b for int32 0 <= a < 2**31 and 0 < b < 2**17 with a ratio of at most 2**17.

    The float32 quotient is within a part in 2**20 of it, so its floor is off by at most one, which the rest settles.
    """
    quotient = (a.to(tl.float32) * reciprocal(b.to(tl.float32))).to(tl.int32)
    rest = a - quotient * b
    return quotient + tl.where(rest >= b, 1, 0) - tl.where(rest < 0, 1, 0)


@triton.jit
def sigmoid(z, f: tl.constexpr):
    """Return 2**14 plus the floor of ``z * 2**14 / (2**f + |z|)``, as one ratio of integers that aren't negative."""
    denominator = (1 << f) + tl.abs(z)
    return floor_ratio((z + denominator) << 14, denominator)


@triton.jit
def algebraic_sigmoid_kernel(y_pointer, z_pointer, size, f: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    z = tl.load(z_pointer + offset, mask=offset < size, other=0).to(tl.int32)
    tl.store(y_pointer + offset, sigmoid(z, f).to(tl.int16), mask=offset < size)


@implements(ops.sigmoid_gate)
def sigmoid_gate(x, z, *, f):
    return elementwise(sigmoid_gate_kernel, torch.empty(x.shape, dtype=x.dtype, device=x.device), x, z, f=f)


@triton.jit
def sigmoid_gate_kernel(y_pointer, x_pointer, z_pointer, size, f: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_pointer + offset, mask=offset < size, other=0).to(tl.int32)
    z = tl.load(z_pointer + offset, mask=offset < size, other=0).to(tl.int32)
    y = integers.shift_round(x * sigmoid(z, f), 15)
    tl.store(y_pointer + offset, y.to(tl.int16), mask=offset < size)


@implements(ops.silu_gate)
def silu_gate(x, z, *, f):
    y, (z, distance) = torch.empty(x.shape, dtype=x.dtype, device=x.device), rows(z)
    return elementwise(silu_gate_kernel, y, x, strided=(z,), distance=distance, WIDTH=max(x.shape[-1:], default=1), f=f)


@triton.jit
def silu_gated(x, z, f: tl.constexpr):
    # z * sigmoid is at most 2**30, so that the product with x is one of two 32-bit words, and rounded fits one.
    return integers.saturate(integers.shift_round(x.to(tl.int64) * (z * sigmoid(z, f)), 15 + f).to(tl.int32), 16)


@triton.jit
def silu_gate_kernel(
    y_pointer, x_pointer, z_pointer, size, distance, WIDTH: tl.constexpr, f: tl.constexpr, BLOCK: tl.constexpr
):
    start, lane = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    offset = start + lane
    x = tl.load(x_pointer + offset, mask=offset < size, other=0)
    z = tl.load(z_pointer + in_rows(start, lane, WIDTH, distance), mask=offset < size, other=0).to(tl.int32)
    tl.store(y_pointer + offset, silu_gated(x, z, f).to(tl.int16), mask=offset < size)


__all__ = ["algebraic_sigmoid", "sigmoid_gate", "silu_gate", "squareplus"]
