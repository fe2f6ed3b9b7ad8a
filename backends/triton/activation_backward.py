"""Triton versions of ``spec.ops.activation_backward``."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .activation import floor_ratio, in_rows
from .gradient import narrowed, passed
from .launch import elementwise, rows


@triton.jit
def round_ratio(a, b):
    """Floor of a / b + 1/2, where `floor_ratio` has the floor of a ratio of a + b/2 and b."""
    return floor_ratio(a + (b >> 1), b)


@triton.jit
def rounded_product(dy, factor, shift):
    """Return dy times int32 ``factor`` over ``2**shift``, rounded and saturated to 32 bits.

    Of a gradient of 16 bits, over 2**16 or more, it is at most 2**30.
    """
    product = integers.shift_round(dy.to(tl.int64) * factor, shift)
    if dy.dtype != tl.int16:
        product = integers.saturate(product, 32)
    return product.to(tl.int32)


@triton.jit
def squareplus_gradient(dy, x, f, offset):
    """Return the gradient of squareplus of int32 x; it is at most dy, and the slope at most 2**15."""
    root = integers.isqrt(x * x + (4 << (2 * f)))
    total = x + root
    slope = tl.where((total >> 1) - offset > 32767, 0, round_ratio(total << 14, root))
    return integers.shift_round(dy.to(tl.int32 if dy.dtype == tl.int16 else tl.int64) * slope, 15)


@implements(ops.squareplus_backward)
def squareplus_backward(dy, x, *, f, offset):
    dx = torch.empty(x.shape, dtype=torch.int32, device=x.device)
    return elementwise(squareplus_backward_kernel, dx, dy, x, f=f, offset=offset)


@triton.jit(do_not_specialize=["f", "offset"])
def squareplus_backward_kernel(dx_pointer, dy_pointer, x_pointer, size, f, offset, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < size
    dy = tl.load(dy_pointer + index, mask=mask, other=0)
    x = tl.load(x_pointer + index, mask=mask, other=0).to(tl.int32)
    tl.store(dx_pointer + index, squareplus_gradient(dy, x, f, offset).to(tl.int32), mask=mask)


@implements(ops.sigmoid_gate_backward)
def sigmoid_gate_backward(dy, x, z, *, f):
    gradients = tuple(torch.empty(a.shape, dtype=torch.int32, device=a.device) for a in (x, z))
    return elementwise(sigmoid_gate_backward_kernel, gradients, dy, x, z, f=f)


@triton.jit
def inverse_and_gate(z, f):
    inverse = round_ratio(1 << (f + 15), (1 << f) + tl.abs(z))
    return inverse, tl.where(z < 0, inverse, 65536 - inverse)


# f stays a variable: known, 2**f + |z| is added in 16 bits, and the assembler of Triton 3.6 then adds 0 for 2**f.
@triton.jit(do_not_specialize=["f"])
def sigmoid_gate_backward_kernel(
    dx_pointer, dz_pointer, dy_pointer, x_pointer, z_pointer, size, f, BLOCK: tl.constexpr
):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offset < size
    dy = tl.load(dy_pointer + offset, mask=mask, other=0).to(tl.int64)
    x = tl.load(x_pointer + offset, mask=mask, other=0).to(tl.int32)
    z = tl.load(z_pointer + offset, mask=mask, other=0).to(tl.int32)
    inverse, gate = inverse_and_gate(z, f)
    dx = integers.shift_round(dy * gate, 16)
    tl.store(dx_pointer + offset, dx.to(tl.int32), mask=mask)
    # x * slope is below 2**31, so that the product with dy is one of two 32-bit words.
    slope = integers.shift_round(inverse * inverse, 14)
    dz = integers.saturate(integers.shift_round(dy * (x * slope), (17 + f).to(tl.int64)), 32)
    tl.store(dz_pointer + offset, dz.to(tl.int32), mask=mask)


@implements(ops.silu_gate_backward)
def silu_gate_backward(dy, x, z, *, f):
    gradients = (torch.empty(a.shape, dtype=torch.int32, device=a.device) for a in (x, z))
    return gate_gradients(*gradients, dy, x, z, f, 0, 0, dz_distance=max(x.shape[-1:], default=1), NARROW=False)


def narrow_gate_gradients(dy, x, z, *, f, x_shift, z_shift):
    """Return `silu_gate_backward`, dx after `saturate_backward` and dz after `round_to_int16`, in one launch.

    dz is the right half of an array, its ``joined``, whose left half waits for what `narrow_conv_gradients` puts there.
    """
    inner = x.shape[-1]
    dx = torch.empty(x.shape, dtype=torch.int16, device=x.device)
    joined = torch.empty((*x.shape[:-1], 2 * inner), dtype=torch.int16, device=x.device)
    dz = joined[..., inner:]
    dz.joined = joined  # type: ignore[attr-defined] # of this tensor alone
    return gate_gradients(dx, dz, dy, x, z, f, x_shift, z_shift, dz_distance=2 * inner, NARROW=True)


def gate_gradients(dx, dz, *inputs, **constants):
    """Put the gradients of dy, x and z, which come before the integers, into dx and dz."""
    dy, x, z, *integers = inputs
    z, distance = rows(z)
    shape = dict(distance=distance, WIDTH=max(x.shape[-1:], default=1))
    return elementwise(
        silu_gate_backward_kernel, (dx, dz), dy, x, strided=(z,), integers=integers, **shape, **constants
    )


@triton.jit(do_not_specialize=["f", "x_shift", "z_shift"])
def silu_gate_backward_kernel(
    dx_pointer,
    dz_pointer,
    dy_pointer,
    x_pointer,
    z_pointer,
    size,
    f,
    x_shift,
    z_shift,
    distance,
    dz_distance,
    WIDTH: tl.constexpr,
    NARROW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    start, lane = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    offset = start + lane
    mask = offset < size
    dy = tl.load(dy_pointer + offset, mask=mask, other=0)
    x = tl.load(x_pointer + offset, mask=mask, other=0).to(tl.int32)
    z = tl.load(z_pointer + in_rows(start, lane, WIDTH, distance), mask=mask, other=0).to(tl.int32)
    inverse, gate = inverse_and_gate(z, f)
    half_square = integers.shift_round(inverse * inverse, 15)
    slope = tl.where(z < 0, half_square, 65536 - half_square)
    shift = (16 + f).to(tl.int64)
    # z * gate and x * slope are below 2**31, so that their products with dy are each one of two 32-bit words.
    dx = rounded_product(dy, z * gate, shift)
    dz = rounded_product(dy, x * slope, shift)
    if NARROW:
        dx = passed(narrowed(dx, integers.scalar(x_shift)), x, 32767)
        dz = narrowed(dz, integers.scalar(z_shift))
    tl.store(dx_pointer + offset, dx.to(dx_pointer.dtype.element_ty), mask=mask)
    dz_place = in_rows(start, lane, WIDTH, dz_distance)
    tl.store(dz_pointer + dz_place, dz.to(dz_pointer.dtype.element_ty), mask=mask)


__all__ = ["narrow_gate_gradients", "sigmoid_gate_backward", "silu_gate_backward", "squareplus_backward"]
