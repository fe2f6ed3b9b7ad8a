"""Normalisation by comparisons, shifts and products: no isqrt, no logarithm, no table, one division (the mean's)."""

from __future__ import annotations

import math

import numpy as np

from .. import integers
from ..arrays import Int8Array, Int16Array, Int32Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op
from ..integers import RESIDUAL_BITS
from .linear import quantised_widths, quantize_rows

RESIDUAL = Interval.signed(RESIDUAL_BITS)
GAMMA = Interval.signed(16)
LARGEST_ROW = 2**14
# 4**LARGEST_EXPONENT exceeds the square of any element, so also the mean of the squares.
LARGEST_EXPONENT = RESIDUAL_BITS - 1
# The mantissa is found on the mean square cut to this many bits: then its comparisons stay far below 2**63.
MEAN_SQUARE_BITS = 16


def centred_range(D: int, limit: int) -> Interval:
    """Return the range of ``x - floor(mean x)``: its ends are one element against all others."""
    return Interval(-limit - limit * (D - 2) // D, limit - limit * (2 - D) // D)


def largest_square_sum(D: int, limit: int) -> int:
    """Return the greatest sum of squares about the floored mean, for ``D < 2 * limit``.

    Half the row lies at each end of the range; in an odd row the one left over, of either sign, moves the mean.
    """
    odd = limit * (D % 2)
    return max(D * limit**2 - 2 * total * (total // D) + D * (total // D) ** 2 for total in (odd, -odd))


def scale_widths(D: int, b: int) -> dict[str, Width]:
    """Return the widths on the way to a row's scale."""
    centred = centred_range(D, RESIDUAL.high)
    square_sum = Interval(0, largest_square_sum(D, RESIDUAL.high))
    k = Interval(0, int(scale_exponent(np.int64(square_sum.high), D)))
    m = Interval(1 << b, 2 << b) if b else Interval(1, 1)
    varied = D > 1  # a row of one element is its own mean
    widths = {
        "sum": Width(RESIDUAL.sum(D), "int64"),
        "mean": Width(RESIDUAL, "int32"),
        "centred": Width(centred, "int32"),
        "square": Width(centred.square(), "int64"),
        "square_sum": Width(square_sum, "int64"),
        "k": Width(k, "int32"),
        "m": Width(m, "int32", attained=varied),
    }
    if b:
        root = Interval(2 << b, (4 << b) - 1)
        mean_square = Interval(0, min(square_sum.high, D << MEAN_SQUARE_BITS))
        target = Interval(D, D << min(2 * k.high, MEAN_SQUARE_BITS)) << (2 * b + 2)
        widths |= {
            "mean_square": Width(mean_square, "int64", attained=D % 2 == 0),
            "target": Width(target, "int64"),
            "trial": Width(root.square() * mean_square, "int64", attained=False),
            "root": Width(root, "int32", attained=varied),
        }
    return widths


def bitshift_norm_widths(at):
    scale = scale_widths(at.D, at.b)
    scaled = scale["centred"].range * scale["m"].range
    # |c| <= sqrt(D) * 2**k, so that |c * m * gamma| / 2**(k+b) <= 2 sqrt(D) * |gamma|.
    normalised = (GAMMA * (math.isqrt(4 * at.D) + 1)).shift_round(at.s)
    return scale | {
        "scaled": Width(scaled, "int32", attained=False),
        "product": Width(scaled * GAMMA, "int64", attained=False),
        "normalised": Width(normalised, "int32", attained=False),
        "y": Width(normalised.saturate(16), "int16", attained=at.D > 1 and at.s == 0),
    }


def scale_exponent(square_sum, D):
    """Return the smallest k >= 0 with ``square_sum <= D * 4**k``."""
    k = np.zeros_like(square_sum)
    for j in range(LARGEST_EXPONENT):
        k = k + (square_sum > D << (2 * j))
    return k


def scale_mantissa(square_sum, D, k, b):
    """Return m, about ``2**(b+k) * sqrt(D / square_sum)``, found bit by bit as a root in half units."""
    if b == 0:
        return np.ones_like(k)
    cut = np.maximum(k - MEAN_SQUARE_BITS // 2, 0)
    mean_square = square_sum >> (2 * cut)
    target = D << (2 * (k - cut) + 2 * b + 2)
    root = np.zeros_like(k)
    for bit in range(b + 1, -1, -1):
        trial = root + (1 << bit)
        root = np.where(trial * trial * mean_square <= target, trial, root)
    return (root + 1) >> 1


def row_scale(x, b):
    """Return each row less its floored mean, and the scale ``m / 2**(k + b)`` of that row as k and m."""
    D = x.shape[-1]
    wide = x.astype(np.int64)
    centred = wide - integers.floor_div(wide.sum(axis=-1, keepdims=True), D)
    square_sum = (centred * centred).sum(axis=-1, keepdims=True)
    k = scale_exponent(square_sum, D)
    return centred, k, scale_mantissa(square_sum, D, k, b)


ROWS = (
    Tensor("x", "int32", "... D", low=RESIDUAL.low, high=RESIDUAL.high, meaning="residual stream, any Q format"),
    Tensor("gamma", "int16", "D", meaning="Q.g"),
)
SCALE = (
    Parameter("b", 0, 4, "bits of the scale's mantissa"),
    Parameter("s", 0, 15, "fraction bits that gamma has more than y"),
)


@op(
    inputs=ROWS,
    outputs=(Tensor("y", "int16", "... D", meaning="Q.(g - s)"),),
    parameters=SCALE,
    sizes={"D": (1, LARGEST_ROW)},
    clauses={
        "C1": "c = x - floor(sum x / D), and S = sum c*c, both over the row",
        "C2": "k is the smallest integer >= 0 with S <= D * 4**k",
        "C3": "for b > 0, with t = max(0, k - 8): M is the largest integer below 2**(b+2) with "
        "M*M * floor(S / 4**t) <= D * 4**(k - t + b + 1), and m = floor((M + 1) / 2)",
        "C4": "for b = 0, m = 1: the scale is a plain power of two",
        "C5": "y = floor(c * m * gamma / 2**(k + b + s) + 1/2), one rounding, saturated to [-32767, 32767]",
    },
    widths=bitshift_norm_widths,
)
def bitshift_norm(x: Int32Array, gamma: Int16Array, /, *, b: int, s: int) -> Int16Array:
    """Normalise rows by shifts: ``y = (x - mean) * gamma / standard deviation``, to within the scale's bits.

    With the centred row c and its square sum S (C1), the scale ``sqrt(D / S)`` is approximated by ``m / 2**(k + b)``:
    k comes from comparing S with ``D * 4**k`` (C2), and m, in [2**b, 2**(b+1)], from comparing multiples of the mean
    square (C3), so that it is the nearest such number but for the bits cut from S; b = 0 leaves it at 1 (C4).
    Then ``y = saturate(shift_round(c * m * gamma, k + b + s), 16)`` (C5). A row of equal elements gives zeros.

    Notes
    -----
    Where S / D exceeds 1/4, the scale's relative error is at most about ``2**-(b+1)`` for b > 0; for b = 0 it is too
    small by up to a half. But for rounding, y depends on ratios of x alone: the format of x need not be known.

    Examples
    --------
    >>> x, gamma = np.array([[1000, -3000, 500, 2500]], np.int32), np.full(4, 256, np.int16)
    >>> bitshift_norm(x, gamma, b=3, s=0).tolist()
    [[94, -406, 31, 281]]
    """
    # ACCUMULATE
    centred, k, m = row_scale(x, b)
    # ROUND
    y = integers.shift_round(centred * m * gamma, k + b + s)
    # SATURATE
    return integers.saturate(y, 16).astype(np.int16)


def norm_quantize_widths(at):
    norm = bitshift_norm_widths(at)
    return norm | quantised_widths(norm["y"])


@op(
    inputs=ROWS,
    outputs=(
        Tensor("q", "int8", "... D", meaning="Q.(g - s - e)"),
        Tensor("e", "int32", "...", low=0, high=8, meaning="the row's exponent"),
    ),
    parameters=SCALE,
    sizes={"D": (1, LARGEST_ROW)},
    clauses={"C1": "(q, e) = quantize_rows(bitshift_norm(x, gamma))"},
    widths=norm_quantize_widths,
    composed_of=("bitshift_norm", "quantize_rows"),
)
def norm_quantize(x: Int32Array, gamma: Int16Array, /, *, b: int, s: int) -> tuple[Int8Array, Int32Array]:
    """Normalise rows and quantise them to int8: ``(q, e) = quantize_rows(bitshift_norm(x, gamma))``.

    Exactly ``quantize_rows(bitshift_norm(x, gamma, b=b, s=s))`` (C1), both roundings included.

    Examples
    --------
    >>> x, gamma = np.array([[1000, -3000, 500, 2500]], np.int32), np.full(4, 256, np.int16)
    >>> q, e = norm_quantize(x, gamma, b=3, s=0)
    >>> q.tolist(), e.tolist()
    ([[24, -101, 8, 70]], [2])
    """
    return quantize_rows.golden(bitshift_norm.golden(x, gamma, b=b, s=s))


__all__ = ["bitshift_norm", "norm_quantize"]
