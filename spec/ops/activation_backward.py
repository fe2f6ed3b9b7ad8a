"""Backward of the activations: each slope is one rounded division, each product of a gradient one rounding."""

from __future__ import annotations

import numpy as np

from .. import integers
from ..arrays import Int16Array, Int32Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op
from .activation import ACTIVATION, root_of, squareplus_widths

GRADIENT = Interval.signed(32)
LARGEST = ACTIVATION.high


def gradient(name: str, shape: str = "...") -> Tensor:
    """Return a gradient that an op takes: int16 or int32, in units that the caller keeps."""
    return Tensor(name, ("int32", "int16"), shape, meaning="gradient of the result, in any unit")


def least_saturated(f: int, offset: int) -> int:
    """Return the least x whose squareplus exceeds 16 bits, or one more than the largest x."""
    low, high = 0, LARGEST + 1
    while low < high:
        x = (low + high) // 2
        if x + root_of(x * x + (4 << (2 * f))) > 2 * (LARGEST + offset) + 1:
            high = x
        else:
            low = x + 1
    return low


def squareplus_slope(x: int, f: int) -> int:
    root = root_of(x * x + (4 << (2 * f)))
    return integers.round_div((x + root) << 14, root)


def squareplus_backward_widths(at):
    forward = squareplus_widths(at)
    # The slope never falls as x grows, for root - |x| never grows with |x|; where squareplus saturates it is 0.
    saturated = least_saturated(at.f, at.offset)
    lowest = 0 if saturated <= LARGEST else squareplus_slope(-LARGEST, at.f)
    slope = Interval(lowest, squareplus_slope(saturated - 1, at.f))
    product = GRADIENT * slope
    scaled = forward["sum"].range << 14
    return {name: forward[name] for name in ("square", "radicand", "root", "sum", "lowered")} | {
        "scaled": Width(scaled, "int32"),
        "numerator": Width(scaled + Interval(0, forward["root"].range.high >> 1), "int32", attained=False),
        "slope": Width(slope, "int32"),
        "product": Width(product, "int64"),
        "dx": Width(product.shift_round(15), "int32"),
    }


@op(
    inputs=(gradient("dy"), Tensor("x", "int16", "...", meaning="input of the forward op, Q.f")),
    outputs=(Tensor("dx", "int32", "...", meaning="gradient of x, the unit of dy"),),
    parameters=(
        Parameter("f", 0, 14, "fraction bits of x"),
        Parameter("offset", 0, 2**15 - 1, "that of the forward op, Q.f"),
    ),
    clauses={
        "C1": "slope = floor((x + r) * 2**14 / r + 1/2) in Q.15, r the largest integer with r*r <= x*x + 4 * 4**f",
        "C2": "slope = 0 where squareplus saturates: floor((x + r) / 2) - offset > 32767",
        "C3": "dx = floor(dy * slope / 2**15 + 1/2), so that |dx| <= |dy|",
    },
    widths=squareplus_backward_widths,
    backward_of="squareplus",
)
def squareplus_backward(dy: Int32Array | Int16Array, x: Int16Array, /, *, f: int, offset: int) -> Int32Array:
    """Compute the gradient of `squareplus` with respect to x: ``dx = dy (1 + x / sqrt(x*x + 4)) / 2``.

    With ``r = isqrt(x*x + 4 * 4**f)`` the slope is ``round_div((x + r) << 14, r)`` in Q.15 (C1), zero where the result
    was saturated (C2), and ``dx = shift_round(dy * slope, 15)`` (C3). The gradient passes straight through the
    floor of the forward halving.

    Notes
    -----
    Only the high end saturates: r >= |x|, so that the forward result is at least -offset >= -32767. With offset >= 2**f
    it never exceeds |x|, and nothing saturates.

    Short of saturation the slope never falls as x grows. It is within ``2**-16 + 2**-(f+2)`` of the derivative: half an
    ulp of the division, and the floor of the root, which is at least ``2 * 2**f``. Against the derivative in floats,
    the gradient's cosine is above 1 - 1e-5, and every sign is dy's.

    Examples
    --------
    >>> dy, x = np.full(3, 1000, np.int32), np.array([-256, 0, 256], np.int16)
    >>> squareplus_backward(dy, x, f=8, offset=256).tolist()
    [276, 500, 724]
    """
    # ACCUMULATE
    wide = x.astype(np.int64)
    root = integers.isqrt(wide * wide + (4 << (2 * f)))
    total = wide + root
    # ROUND
    slope = integers.round_div(total << 14, root)
    slope = np.where(integers.shift_floor(total, 1) - offset > LARGEST, 0, slope)
    return integers.shift_round(dy.astype(np.int64) * slope, 15).astype(np.int32)


def inverse_and_gate(gating, f):
    """Return u = 1 / (1 + |z|) in Q.15 and the sigmoid of z in Q.16: u / 2 for z < 0 and 1 - u / 2 else."""
    inverse = integers.round_div(1 << (f + 15), (1 << f) + np.abs(gating))
    return inverse, np.where(gating < 0, inverse, (1 << 16) - inverse)


def inverse_and_gate_widths(at):
    one = 1 << at.f
    denominator = ACTIVATION.magnitude() + one
    scaled = one << 15
    inverse = Interval(integers.round_div(scaled, denominator.high), 1 << 15)
    return {
        "denominator": Width(denominator, "int32"),
        "numerator": Width(Interval(scaled + (one >> 1), scaled + (denominator.high >> 1)), "int32"),
        "inverse": Width(inverse, "int32"),
        "gate": Width(Interval(inverse.low, (1 << 16) - inverse.low), "int32"),
        "square": Width(inverse.square(), "int32"),
    }


def sigmoid_gate_backward_widths(at):
    shared = inverse_and_gate_widths(at)
    gate = shared["gate"].range
    slope = shared["square"].range.shift_round(14)
    product = GRADIENT * ACTIVATION * slope
    return shared | {
        "slope": Width(slope, "int32"),
        "dx_product": Width(GRADIENT * gate, "int64"),
        "dz_product": Width(product, "int64"),
        "dx": Width((GRADIENT * gate).shift_round(16), "int32"),
        "dz": Width(product.shift_round(17 + at.f).saturate(32), "int32"),
    }


@op(
    inputs=(
        gradient("dy"),
        Tensor("x", "int16", "...", meaning="gated input of the forward op"),
        Tensor("z", "int16", "...", meaning="gating input of the forward op, Q.f"),
    ),
    outputs=(
        Tensor("dx", "int32", "...", meaning="gradient of x, the unit of dy"),
        Tensor("dz", "int32", "...", meaning="gradient of the integer z, the unit of dy"),
    ),
    parameters=(Parameter("f", 0, 14, "fraction bits of z"),),
    clauses={
        "C1": "u = floor(2**(f+15) / (2**f + |z|) + 1/2), the one division",
        "C2": "dx = floor(dy * g / 2**16 + 1/2) with g = u for z < 0 and 2**16 - u for z >= 0",
        "C3": "dz = saturate(floor(dy * x * slope / 2**(17+f) + 1/2), 32) with slope = floor(u*u / 2**14 + 1/2)",
    },
    widths=sigmoid_gate_backward_widths,
    backward_of="sigmoid_gate",
)
def sigmoid_gate_backward(
    dy: Int32Array | Int16Array, x: Int16Array, z: Int16Array, /, *, f: int
) -> tuple[Int32Array, Int32Array]:
    """Compute the gradients of `sigmoid_gate` with respect to x and z.

    Both follow from ``u = 1 / (1 + |z|)``, in Q.15 ``round_div(2**(f+15), 2**f + |z|)`` (C1): the sigmoid is ``u / 2``
    for z < 0 and ``1 - u / 2`` else, g in Q.16, and ``dx = shift_round(dy * g, 16)`` (C2). Its derivative is
    ``u*u / 2``, and with ``slope = shift_round(u * u, 14)`` in Q.16,
    ``dz = saturate(shift_round(dy * x * slope, 17 + f), 32)`` (C3). Gradients pass straight through the forward
    roundings.

    Notes
    -----
    g is rounded where the forward sigmoid is floored: it is within half an ulp of Q.15 of the smooth sigmoid, and has
    no bias. x and z have units of their own: dz is the gradient with respect to the integer z. Against the derivatives
    in floats: cosine above 1 - 1e-7 for dx and 1 - 1e-5 for dz.

    Examples
    --------
    >>> dy, x = np.full(3, 1000, np.int32), np.full(3, 512, np.int16)
    >>> dx, dz = sigmoid_gate_backward(dy, x, np.array([-256, 0, 256], np.int16), f=8)
    >>> dx.tolist(), dz.tolist()
    ([250, 500, 750], [250, 1000, 250])
    """
    # ACCUMULATE
    gradient, gating = dy.astype(np.int64), z.astype(np.int64)
    # ROUND
    inverse, gate = inverse_and_gate(gating, f)
    slope = integers.shift_round(inverse * inverse, 14)
    dx = integers.shift_round(gradient * gate, 16)
    dz = integers.shift_round(gradient * x * slope, 17 + f)
    # SATURATE
    return dx.astype(np.int32), integers.saturate(dz, 32).astype(np.int32)


def silu_slope(inverse, gating):
    """Return the derivative of z * sigmoid(z) in Q.16: u*u / 2 for z < 0 and 1 - u*u / 2 else."""
    half_square = integers.shift_round(inverse * inverse, 15)
    return np.where(gating < 0, half_square, (1 << 16) - half_square)


def silu_gate_backward_widths(at):
    shared = inverse_and_gate_widths(at)
    half_square = shared["square"].range.shift_round(15)
    slope = Interval(half_square.low, (1 << 16) - half_square.low)
    by_x = GRADIENT * ACTIVATION * shared["gate"].range
    by_z = GRADIENT * ACTIVATION * slope
    return shared | {
        "half_square": Width(half_square, "int32"),
        "slope": Width(slope, "int32"),
        "dx_product": Width(by_x, "int64"),
        "dz_product": Width(by_z, "int64"),
        "dx": Width(by_x.shift_round(16 + at.f).saturate(32), "int32"),
        "dz": Width(by_z.shift_round(16 + at.f).saturate(32), "int32"),
    }


@op(
    inputs=(
        gradient("dy"),
        Tensor("x", "int16", "...", meaning="gated input of the forward op"),
        Tensor("z", "int16", "...", meaning="gating input of the forward op, Q.f"),
    ),
    outputs=(
        Tensor("dx", "int32", "...", meaning="gradient of x, the unit of dy"),
        Tensor("dz", "int32", "...", meaning="gradient of the integer z, the unit of dy"),
    ),
    parameters=(Parameter("f", 0, 14, "fraction bits of z"),),
    clauses={
        "C1": "u = floor(2**(f+15) / (2**f + |z|) + 1/2), the one division",
        "C2": "dx = saturate(floor(dy * z * g / 2**(16+f) + 1/2), 32) with g = u for z < 0 and 2**16 - u for z >= 0",
        "C3": "dz = saturate(floor(dy * x * slope / 2**(16+f) + 1/2), 32) with v = floor(u*u / 2**15 + 1/2) and "
        "slope = v for z < 0 and 2**16 - v for z >= 0",
    },
    widths=silu_gate_backward_widths,
    backward_of="silu_gate",
)
def silu_gate_backward(
    dy: Int32Array | Int16Array, x: Int16Array, z: Int16Array, /, *, f: int
) -> tuple[Int32Array, Int32Array]:
    """Compute the gradients of `silu_gate` with respect to x and z.

    Both follow from ``u = 1 / (1 + |z|)``, in Q.15 ``round_div(2**(f+15), 2**f + |z|)`` (C1): the sigmoid is
    ``u / 2`` for z < 0 and ``1 - u / 2`` else, g in Q.16, and ``dx = saturate(shift_round(dy * z * g, 16 + f), 32)``
    (C2); the derivative of ``z * sigmoid(z)`` is ``u*u / 2`` for z < 0 and ``1 - u*u / 2`` else, the slope in Q.16, and
    ``dz = saturate(shift_round(dy * x * slope, 16 + f), 32)`` (C3). Gradients pass straight
    through the forward roundings and the forward saturation.

    Notes
    -----
    With the algebraic sigmoid, ``z * sigmoid(z)`` grows with z everywhere, from -1/2 on: the slope is in [0, 1], within
    ``1.5 * 2**-16 + 2**-33`` of the derivative, and has no bias. dz is the gradient with respect to the integer z.

    Examples
    --------
    >>> dy, x = np.full(3, 1000, np.int32), np.full(3, 512, np.int16)
    >>> dx, dz = silu_gate_backward(dy, x, np.array([-256, 0, 256], np.int16), f=8)
    >>> dx.tolist(), dz.tolist()
    ([-250, 0, 750], [250, 1000, 1750])
    """
    # ACCUMULATE
    gradient, gating = dy.astype(np.int64), z.astype(np.int64)
    # ROUND
    inverse, gate = inverse_and_gate(gating, f)
    slope = silu_slope(inverse, gating)
    dx = integers.shift_round(gradient * gating * gate, 16 + f)
    dz = integers.shift_round(gradient * x * slope, 16 + f)
    # SATURATE
    return integers.saturate(dx, 32).astype(np.int32), integers.saturate(dz, 32).astype(np.int32)


__all__ = ["sigmoid_gate_backward", "silu_gate_backward", "squareplus_backward"]
