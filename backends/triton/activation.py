"""Triton versions of ``spec.ops.activation``."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .launch import elementwise, rows


@implements(ops.squareplus)
def squareplus(x, *, f, offset):
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return elementwise(squareplus_kernel, y, x, f=f, offset=offset)


@triton.jit
def squareplus_of(x, f: tl.constexpr, offset: tl.constexpr):
    total = x + integers.isqrt(x * x + (4 << (2 * f)))
    return integers.saturate((total >> 1) - offset, 16)


@triton.jit
def squareplus_kernel(y_pointer, x_pointer, size, f: tl.constexpr, offset: tl.constexpr, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_pointer + index, mask=index < size, other=0).to(tl.int32)
    tl.store(y_pointer + index, squareplus_of(x, f, offset).to(tl.int16), mask=index < size)


@implements(ops.algebraic_sigmoid)
def algebraic_sigmoid(z, *, f):
    return elementwise(algebraic_sigmoid_kernel, torch.empty(z.shape, dtype=z.dtype, device=z.device), z, f=f)


@triton.jit
def in_rows(offset, WIDTH: tl.constexpr, distance):
    """Return the place of an element of a dense array in rows that are ``distance`` apart."""
    row = offset // WIDTH
    return offset + row * (distance - WIDTH)


@triton.jit
def sigmoid(z, f: tl.constexpr):
    return (1 << 14) + integers.floor_div(z << 14, (1 << f) + tl.abs(z))


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
    # z * sigmoid is below 2**30, so that the product with x is one of two 32-bit words, and its scaled value one word.
    return integers.saturate(integers.product_shift_round(x.to(tl.int32), z * sigmoid(z, f), 15 + f), 16)


@triton.jit
def silu_gate_kernel(
    y_pointer, x_pointer, z_pointer, size, distance, WIDTH: tl.constexpr, f: tl.constexpr, BLOCK: tl.constexpr
):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_pointer + offset, mask=offset < size, other=0)
    z = tl.load(z_pointer + in_rows(offset, WIDTH, distance), mask=offset < size, other=0).to(tl.int32)
    tl.store(y_pointer + offset, silu_gated(x, z, f).to(tl.int16), mask=offset < size)


__all__ = ["algebraic_sigmoid", "sigmoid_gate", "silu_gate", "squareplus"]
