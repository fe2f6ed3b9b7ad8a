"""Activations: squareplus, the algebraic sigmoid and its gate.

None uses a table or a transcendental function: one root by Newton iteration, one floor division.
"""

from __future__ import annotations

import numpy as np

from .. import integers
from ..arrays import Int16Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op

ACTIVATION = Interval.signed(16)


def squareplus_widths(at):
    square = ACTIVATION.square()
    radicand = square + (4 << (2 * at.f))
    root = Interval(2 << at.f, root_of(radicand.high))
    # x + root is least at x = -32767 and greatest at x = 32767: the root grows slower than |x|.
    total = Interval(ACTIVATION.low + root.high, ACTIVATION.high + root.high)
    lowered = (total >> 1) - at.offset
    return {
        "square": Width(square, "int32"),
        "radicand": Width(radicand, "int32"),
        "root": Width(root, "int32"),
        "sum": Width(total, "int32"),
        "lowered": Width(lowered, "int32"),
        "y": Width(lowered.saturate(16), "int16"),
    }


def root_of(v: int) -> int:
    return int(integers.isqrt(np.int64(v)))


@op(
    inputs=(Tensor("x", "int16", "...", meaning="Q.f"),),
    outputs=(Tensor("y", "int16", "...", meaning="Q.f"),),
    parameters=(
        Parameter("f", 0, 14, "fraction bits of x and y"),
        Parameter(
            "offset",
            0,
            2**15 - 1,
            "subtracted from the result, Q.f; with 2**f, squareplus(0) is 0 and nothing saturates",
        ),
    ),
    clauses={
        "C1": "r is the largest integer with r*r <= x*x + 4*4**f",
        "C2": "y = floor((x + r) / 2) - offset",
        "C3": "y is saturated to [-32767, 32767]",
    },
    widths=squareplus_widths,
)
def squareplus(x: Int16Array, /, *, f: int, offset: int) -> Int16Array:
    """Apply squareplus, a smooth ReLU: ``y = (x + sqrt(x*x + 4)) / 2 - offset``, in Q.f.

    With ``r = isqrt(x*x + 4 * 4**f)`` (C1), ``y = ((x + r) >> 1) - offset`` (C2), saturated to 16 bits (C3).
    y >= -offset for every x, since r >= |x|: only the high end saturates.

    Notes
    -----
    J. T. Barron, "Squareplus: a softplus-like algebraic rectifier", 2021, with b = 4.

    Examples
    --------
    >>> squareplus(np.array([-256, 0, 256], np.int16), f=8, offset=256).tolist()
    [-98, 0, 158]
    """
    # ACCUMULATE
    wide = x.astype(np.int64)
    radicand = wide * wide + (4 << (2 * f))
    # ROUND
    y = integers.shift_floor(wide + integers.isqrt(radicand), 1) - offset
    # SATURATE
    return integers.saturate(y, 16).astype(np.int16)


def algebraic_sigmoid_widths(at):
    numerator = ACTIVATION << 14
    denominator = ACTIVATION.magnitude() + (1 << at.f)
    return {
        "numerator": Width(numerator, "int32"),
        "denominator": Width(denominator, "int32"),
        "y": Width(sigmoid_range(at.f), "int16"),
    }


def sigmoid_range(f: int) -> Interval:
    limit = ACTIVATION.high
    half, denominator = 1 << 14, limit + (1 << f)
    return Interval(half + (-limit * half) // denominator, half + (limit * half) // denominator)


@op(
    inputs=(Tensor("z", "int16", "...", meaning="Q.f"),),
    outputs=(Tensor("y", "int16", "...", low=0, meaning="Q.15, in [0, 1)"),),
    parameters=(Parameter("f", 0, 14, "fraction bits of z"),),
    clauses={"C1": "y = 2**14 + floor(z * 2**14 / (2**f + |z|)), one floor division"},
    widths=algebraic_sigmoid_widths,
)
def algebraic_sigmoid(z: Int16Array, /, *, f: int) -> Int16Array:
    """Apply the algebraic sigmoid, ``y = 1/2 + z / (2 (1 + |z|))`` in Q.15, by one division.

    ``y = 2**14 + floor_div(z << 14, 2**f + |z|)`` (C1). The result lies in [0, 32767]; it never reaches 1.

    Examples
    --------
    >>> algebraic_sigmoid(np.array([-256, 0, 256], np.int16), f=8).tolist()
    [8192, 16384, 24576]
    """
    # ACCUMULATE
    wide = z.astype(np.int64)
    # ROUND
    y = (1 << 14) + integers.floor_div(wide << 14, (1 << f) + np.abs(wide))
    return y.astype(np.int16)


def sigmoid_gate_widths(at):
    product = ACTIVATION * sigmoid_range(at.f)
    sigmoid = algebraic_sigmoid_widths(at)
    return {
        "numerator": sigmoid["numerator"],
        "denominator": sigmoid["denominator"],
        "sigmoid": sigmoid["y"],
        "product": Width(product, "int32"),
        "y": Width(product.shift_round(15).saturate(16), "int16"),
    }


@op(
    inputs=(
        Tensor("x", "int16", "...", meaning="gated input, any Q format"),
        Tensor("z", "int16", "...", meaning="gating input, Q.f"),
    ),
    outputs=(Tensor("y", "int16", "...", meaning="the format of x"),),
    parameters=(Parameter("f", 0, 14, "fraction bits of z"),),
    clauses={
        "C1": "g = algebraic_sigmoid(z)",
        "C2": "y = floor(x * g / 2**15 + 1/2), one rounding",
    },
    widths=sigmoid_gate_widths,
)
def sigmoid_gate(x: Int16Array, z: Int16Array, /, *, f: int) -> Int16Array:
    """Gate x with the algebraic sigmoid of z: ``y = x * sigmoid(z)``.

    With ``g = algebraic_sigmoid(z)`` in Q.15 (C1), ``y = shift_round(x * g, 15)`` (C2). Since g < 1, nothing saturates.

    Examples
    --------
    >>> sigmoid_gate(np.array([100, -100], np.int16), np.array([0, 256], np.int16), f=8).tolist()
    [50, -75]
    """
    # ACCUMULATE
    product = x.astype(np.int64) * algebraic_sigmoid.golden(z, f=f).astype(np.int64)
    # ROUND
    return integers.shift_round(product, 15).astype(np.int16)


def least_weighted(f: int) -> int:
    """Return the z of the least z * algebraic_sigmoid(z).

    For z = -n the sigmoid is ``q = 2**(14+f) // (2**f + n)``. The greatest n of a q is 32767 for the last q, else
    ``2**(14+f) // q - 2**f``, so that n * q is ``2**f * (2**14 - q)`` less a remainder below q. The q after the last is
    at most 2**f: no greater q has a greater n * q, and the least z is the greatest n of one of these two.
    """
    one, total = 1 << f, 1 << (14 + f)
    last = total // (one + ACTIVATION.high)
    before = total // (last + 1) - one
    return -before if (last + 1) * before > last * ACTIVATION.high else ACTIVATION.low


def silu_gate_widths(at):
    sigmoid = algebraic_sigmoid_widths(at)
    least = least_weighted(at.f)
    low = least * ((1 << (14 + at.f)) // ((1 << at.f) - least))
    weight = Interval(low, ACTIVATION.high * sigmoid["y"].range.high)
    product = ACTIVATION * weight
    return {
        "numerator": sigmoid["numerator"],
        "denominator": sigmoid["denominator"],
        "sigmoid": sigmoid["y"],
        "weight": Width(weight, "int32"),
        "product": Width(product, "int64"),
        "y": Width(product.shift_round(15 + at.f).saturate(16), "int16"),
    }


@op(
    inputs=(
        Tensor("x", "int16", "...", meaning="gated input, any Q format"),
        Tensor("z", "int16", "...", meaning="gating input, Q.f"),
    ),
    outputs=(Tensor("y", "int16", "...", meaning="the format of x"),),
    parameters=(Parameter("f", 0, 14, "fraction bits of z"),),
    clauses={
        "C1": "g = algebraic_sigmoid(z)",
        "C2": "y = floor(x * z * g / 2**(15+f) + 1/2), one rounding",
        "C3": "y is saturated to [-32767, 32767]",
    },
    widths=silu_gate_widths,
)
def silu_gate(x: Int16Array, z: Int16Array, /, *, f: int) -> Int16Array:
    """Gate x with the SiLU of z, on the algebraic sigmoid: ``y = x * z * sigmoid(z)``.

    With ``g = algebraic_sigmoid(z)`` in Q.15 (C1), ``y = shift_round(x * z * g, 15 + f)`` (C2), saturated to 16 bits
    (C3).

    Notes
    -----
    ``z * g / 2**(15+f)`` is above -1/2 for every z: -1/2 is the limit of the smooth function, and g is floored.

    Examples
    --------
    >>> silu_gate(np.array([100, -100, 100], np.int16), np.array([-256, 0, 256], np.int16), f=8).tolist()
    [-25, 0, 75]
    """
    # ACCUMULATE
    wide = z.astype(np.int64)
    product = x.astype(np.int64) * (wide * algebraic_sigmoid.golden(z, f=f).astype(np.int64))
    # ROUND
    y = integers.shift_round(product, 15 + f)
    # SATURATE
    return integers.saturate(y, 16).astype(np.int16)


__all__ = ["algebraic_sigmoid", "sigmoid_gate", "silu_gate", "squareplus"]
