"""Activations: squareplus, the algebraic sigmoid and its gate.

None uses a table or a transcendental function: one root by Newton iteration, one floor division.
"""

import numpy as np

from .. import integers
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op

ACTIVATION = Interval.signed(16)


def squareplus_widths(at):
    square = ACTIVATION.square()
    radicand = square + (4 << (2 * at.f))
    root = Interval(2 << at.f, root_of(radicand.high))
    # x + root is least at x = -32767 and greatest at x = 32767: the root grows slower than |x|.
    total = Interval(ACTIVATION.low + root.high, ACTIVATION.high + root.high)
    return {
        "square": Width(square, "int32"),
        "radicand": Width(radicand, "int32"),
        "root": Width(root, "int32"),
        "sum": Width(total, "int32"),
        "y": Width((total >> 1).saturate(16), "int16"),
    }


def root_of(v: int) -> int:
    return int(integers.isqrt(np.int64(v)))


@op(
    inputs=(Tensor("x", "int16", "...", meaning="Q.f"),),
    outputs=(Tensor("y", "int16", "...", meaning="Q.f"),),
    parameters=(Parameter("f", 0, 14, "fraction bits of x and y"),),
    clauses={
        "C1": "r is the largest integer with r*r <= x*x + 4*4**f",
        "C2": "y = floor((x + r) / 2)",
        "C3": "y is saturated to [-32767, 32767]",
    },
    widths=squareplus_widths,
)
def squareplus(x, *, f):
    """Return ``(x + sqrt(x*x + 4)) / 2``, a smooth ReLU, in Q.f.

    With ``r = isqrt(x*x + 4 * 4**f)`` (C1), ``y = (x + r) >> 1`` (C2), saturated to 16 bits (C3). y >= 0 for every x.

    Parameters
    ----------
    x : int16 array, any shape, Q.f, in [-32767, 32767]
    f : int in [0, 14]

    Returns
    -------
    int16 array, the shape of x, Q.f.

    Raises
    ------
    DomainError
        x holds -32768 or is not int16; f outside its range.

    Notes
    -----
    J. T. Barron, "Squareplus: a softplus-like algebraic rectifier", 2021, with b = 4.

    Examples
    --------
    >>> squareplus(np.array([-256, 0, 256], np.int16), f=8).tolist()
    [158, 256, 414]
    """
    # ACCUMULATE
    wide = x.astype(np.int64)
    radicand = wide * wide + (4 << (2 * f))
    # ROUND
    y = integers.shift_floor(wide + integers.isqrt(radicand), 1)
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
    outputs=(Tensor("y", "int16", "...", meaning="Q.15, in [0, 1)"),),
    parameters=(Parameter("f", 0, 14, "fraction bits of z"),),
    clauses={"C1": "y = 2**14 + floor(z * 2**14 / (2**f + |z|)), one floor division"},
    widths=algebraic_sigmoid_widths,
)
def algebraic_sigmoid(z, *, f):
    """Return ``1/2 + z / (2 (1 + |z|))`` in Q.15: a sigmoid made of one division.

    ``y = 2**14 + floor_div(z << 14, 2**f + |z|)`` (C1). The result lies in [0, 32767]; it never reaches 1.

    Parameters
    ----------
    z : int16 array, any shape, Q.f, in [-32767, 32767]
    f : int in [0, 14]

    Returns
    -------
    int16 array, the shape of z, Q.15.

    Raises
    ------
    DomainError
        z holds -32768 or is not int16; f outside its range.

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
        Tensor("x", "int16", "...", meaning="any Q format"),
        Tensor("z", "int16", "...", meaning="Q.f"),
    ),
    outputs=(Tensor("y", "int16", "...", meaning="the format of x"),),
    parameters=(Parameter("f", 0, 14, "fraction bits of z"),),
    clauses={
        "C1": "g = algebraic_sigmoid(z)",
        "C2": "y = floor(x * g / 2**15 + 1/2), one rounding",
    },
    widths=sigmoid_gate_widths,
)
def sigmoid_gate(x, z, *, f):
    """Return ``x * sigmoid(z)``: the gate of a block.

    With ``g = algebraic_sigmoid(z)`` in Q.15 (C1), ``y = shift_round(x * g, 15)`` (C2). Since g < 1, nothing saturates.

    Parameters
    ----------
    x : int16 array, any shape, in [-32767, 32767]
    z : int16 array, the shape of x, Q.f, in [-32767, 32767]
    f : int in [0, 14]

    Returns
    -------
    int16 array, the shape and format of x.

    Raises
    ------
    DomainError
        x or z holds -32768 or is not int16; their shapes differ; f outside its range.

    Examples
    --------
    >>> sigmoid_gate(np.array([100, -100], np.int16), np.array([0, 256], np.int16), f=8).tolist()
    [50, -75]
    """
    # ACCUMULATE
    product = x.astype(np.int64) * algebraic_sigmoid.golden(z, f=f).astype(np.int64)
    # ROUND
    return integers.shift_round(product, 15).astype(np.int16)


__all__ = ["algebraic_sigmoid", "sigmoid_gate", "squareplus"]
