"""Triton versions of ``spec.ops.activation_backward``."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .activation import in_rows
from .gradient import passed
from .launch import elementwise, rows


@triton.jit
def round_ratio(a, b):
    """Floor of a / b + 1/2 for int32 0 <= a < 2**31 and 0 < b < 2**17 with a ratio of at most 2**17.

    The float32 quotient is within a part in 2**20 of it, so its floor is off by at most one, which the rest settles.
    """
    raised = a + (b >> 1)
    quotient = (raised.to(tl.float32) / b.to(tl.float32)).to(tl.int32)
    rest = raised - quotient * b
    return quotient + tl.where(rest >= b, 1, 0) - tl.where(rest < 0, 1, 0)


@triton.jit
def squareplus_gradient(dy, x, f, offset):
    """Return the gradient of squareplus of int32 x: of int16 dy as int32, else as int64.

    The slope is at most 2**15, so that its product with 16 bits, and the half, fit int32.
    """
    root = integers.isqrt(x * x + (4 << (2 * f)))
    total = x + root
    slope = tl.where((total >> 1) - offset > 32767, 0, round_ratio(total << 14, root))
    dy = dy.to(tl.int32 if dy.dtype == tl.int16 else tl.int64)
    return integers.shift_round(dy * slope, 15)


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
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offset < size
    x_shift, z_shift = integers.scalar(x_shift).to(tl.int64), integers.scalar(z_shift).to(tl.int64)
    dy = tl.load(dy_pointer + offset, mask=mask, other=0)
    x = tl.load(x_pointer + offset, mask=mask, other=0).to(tl.int32)
    z = tl.load(z_pointer + in_rows(offset, WIDTH, distance), mask=mask, other=0).to(tl.int32)
    inverse, gate = inverse_and_gate(z, f)
    half_square = integers.shift_round(inverse * inverse, 15)
    slope = tl.where(z < 0, half_square, 65536 - half_square)
    # z * gate and x * slope are below 2**31, so that their products with dy are each one of two 32-bit words.
    if dy.dtype == tl.int16:  # both results are at most 2**30: shifts of 31 and more leave 0
        x_shift, z_shift = tl.minimum(x_shift, 31).to(tl.int32), tl.minimum(z_shift, 31).to(tl.int32)
        dx = integers.product_shift_round(dy.to(tl.int32), z * gate, 16 + f)
        dz = integers.product_shift_round(dy.to(tl.int32), x * slope, 16 + f)
    else:
        shift, dy = (16 + f).to(tl.int64), dy.to(tl.int64)
        dx = integers.saturate(integers.shift_round(dy * (z * gate), shift), 32)
        dz = integers.saturate(integers.shift_round(dy * (x * slope), shift), 32)
    if NARROW:
        dx = passed(integers.saturate(integers.shift_even(dx, x_shift), 16), x, 32767)
        dz = integers.saturate(integers.shift_even(dz, z_shift), 16)
    tl.store(dx_pointer + offset, dx.to(dx_pointer.dtype.element_ty), mask=mask)
    tl.store(dz_pointer + in_rows(offset, WIDTH, dz_distance), dz.to(dz_pointer.dtype.element_ty), mask=mask)


__all__ = ["narrow_gate_gradients", "sigmoid_gate_backward", "silu_gate_backward", "squareplus_backward"]
