"""Backward of the normalisation, with both terms of its Jacobian: one rounded division per row besides the means."""

from __future__ import annotations

import math

import numpy as np

from .. import integers
from ..arrays import Int16Array, Int32Array, Int64Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op
from .norm import GAMMA, LARGEST_ROW, ROWS, row_scale, scale_widths

ACTIVATION_GRADIENT = Interval.signed(16)
STREAM_GRADIENT = Interval.signed(32)
# Fraction bits of the normalised row, in which its own direction is found and the gain's gradient is summed.
UNIT_BITS = 12
# Bits cut from dy * gamma, so that a row's sums stay below 2**53 and what is left of the gradient fits int32.
CUT_BITS = 8


def bitshift_norm_backward_widths(at):
    D, b, (up, down) = at.D, at.b, final_shifts(at.e)
    scale = scale_widths(D, b)
    m, k = scale["m"].range, scale["k"].range
    root = math.isqrt(4 * D) + 1
    product = ACTIVATION_GRADIENT * GAMMA
    g = product.shift_round(CUT_BITS)
    g_sum = g.sum(D)
    # |c| <= sqrt(D) * 2**k and m <= 2**(b+1): no element of the normalised row exceeds 2 sqrt(D), and by Cauchy and
    # Schwarz neither do sums over the row exceed 2 D times the largest factor, but for the half that rounding adds.
    unit = Interval.symmetric(root << UNIT_BITS)
    longest = D * ((2 << UNIT_BITS) + 1)
    dot = Interval.symmetric(g.high * longest)
    energy = Interval(0, D * ((2 << UNIT_BITS) + 1) ** 2)
    divisor = Interval(1, max(int(integers.shift_round(energy.high, UNIT_BITS)), 1))
    # A row that isn't zero has some |n| >= 2**12 or, if k > 0, more than D / 4 as its sum of squares before rounding:
    # energy >= 2**22. With |dot| <= g sqrt(D * energy), the slope is below 2 g sqrt(D), and so is n * slope / 2**12.
    slope = Interval.symmetric(g.high * root)
    along = slope << UNIT_BITS
    across = g - g_sum_mean(g_sum, D) - along.shift_round(UNIT_BITS)
    raised = across * m << up
    update = raised.shift_round(b + down).union(raised.shift_round(k.high + b + down))
    total = STREAM_GRADIENT + update
    gain = ACTIVATION_GRADIENT * unit
    return scale | {
        "scaled": Width(scale["centred"].range * m, "int32", attained=False),
        "unit": Width(unit, "int32", attained=False),
        "product": Width(product, "int32"),
        "g": Width(g, "int32"),
        "g_sum": Width(g_sum, "int64"),
        "g_mean": Width(g_sum_mean(g_sum, D), "int32"),
        "dot": Width(dot, "int64", attained=False),
        "energy": Width(energy, "int64", attained=False),
        "divisor": Width(divisor, "int64", attained=False),
        "slope": Width(slope, "int32", attained=False),
        "along": Width(along, "int64", attained=False),
        "across": Width(across, "int32", attained=False),
        "raised": Width(raised, "int64", attained=False),
        "update": Width(update, "int64", attained=False),
        "total": Width(total, "int64", attained=False),
        "dx": Width(total.saturate(32), "int32"),
        "gain": Width(gain, "int64", attained=False),
        "dgamma": Width(gain.sum(math.prod(at.leading)), "int64", attained=False),
    }


def final_shifts(e: int) -> tuple[int, int]:
    """Return the left and the right shift that restore the CUT_BITS and take off e bits; one of them is 0."""
    return max(CUT_BITS - e, 0), max(e - CUT_BITS, 0)


def g_sum_mean(g_sum: Interval, D: int) -> Interval:
    return Interval(integers.round_div(g_sum.low, D), integers.round_div(g_sum.high, D))


@op(
    inputs=(
        *ROWS,
        Tensor("dy", "int16", "... D", meaning="gradient of the norm's result, times 2**H"),
        Tensor(
            "dr",
            "int32",
            "... D",
            meaning="gradient of the residual stream past the norm's block, times 2**G, or zeros",
        ),
    ),
    outputs=(
        Tensor("dx", "int32", "... D", meaning="gradient of x, times 2**G"),
        Tensor("dgamma", "int64", "D", meaning="gradient of gamma, times 2**(H + 12)"),
    ),
    parameters=(
        Parameter("b", 0, 4, "bits of the scale's mantissa"),
        Parameter("e", -16, 31, "bits that the gradient loses: H - G + g - r for x in Q.r and gamma in Q.g"),
    ),
    sizes={"D": (1, LARGEST_ROW)},
    clauses={
        "C1": "c, k and m are those of `bitshift_norm`, and n = floor(c * m * 2**12 / 2**(k + b) + 1/2)",
        "C2": "g = floor(dy * gamma / 2**8 + 1/2), less its mean floor(sum g / D + 1/2)",
        "C3": "p = floor(sum g*n / q + 1/2), both sums over the row, with g before its mean is taken off and "
        "q = max(1, floor(sum n*n / 2**12 + 1/2)); g loses floor(n * p / 2**12 + 1/2)",
        "C4": "dx = dr + floor(g * 2**8 * m / 2**(k + b + e) + 1/2), one rounding, "
        "saturated to [-(2**31 - 1), 2**31 - 1]",
        "C5": "dgamma[d] = sum of dy[..., d] * n[..., d] over all rows, exact",
        "C6": "rounding and saturation of `bitshift_norm`, and its scale's grid, have derivative one",
    },
    widths=bitshift_norm_backward_widths,
    backward_of="bitshift_norm",
)
def bitshift_norm_backward(
    x: Int32Array, gamma: Int16Array, dy: Int16Array, dr: Int32Array, /, *, b: int, e: int
) -> tuple[Int32Array, Int64Array]:
    """Compute the gradients of `bitshift_norm` with respect to x, added to ``dr``, and to gamma.

    The row is normalised again, to n in Q.12 (C1). Moving x along itself or by a constant doesn't change the norm's
    result, so the gradient g, ``dy * gamma`` over 2**8, is made orthogonal to ones (C2) and to n (C3). The rest, times
    the row's scale ``m / 2**(k + b)``, is the gradient of x (C4). The gradient of gamma is the exact sum of ``dy * n``
    (C5), so those of micro-batches add up to the whole batch's.

    Notes
    -----
    Each division and shift rounds to nearest: a floor here has a bias that training amplifies. The scale m / 2**(k + b)
    is taken as the norm's own, not as the exact ``sqrt(D / S)``; the two projections don't depend on it.
    Against the gradient of the norm in floats: cosine above 0.999 at b = 3, 0.98 at b = 1 and 0.9 at b = 0, and every
    sign of the elements above the mean size.

    Examples
    --------
    >>> x, gamma = np.array([[1000, -3000, 500, 2500]], np.int32), np.full(4, 4096, np.int16)
    >>> dy, dr = np.array([[1000, 0, 0, 0]], np.int16), np.array([[7, 7, 7, 7]], np.int32)
    >>> dx, dgamma = bitshift_norm_backward(x, gamma, dy, dr, b=3, e=0)
    >>> dx.tolist(), dgamma.tolist()
    ([[1438, -193, -516, -701]], [1500000, 0, 0, 0])
    """
    D = x.shape[-1]
    # ACCUMULATE
    centred, k, m = row_scale(x, b)
    unit = integers.shift_round((centred * m) << UNIT_BITS, k + b)
    gradient = dy.astype(np.int64)
    g = integers.shift_round(gradient * gamma, CUT_BITS)
    dgamma = (gradient * unit).reshape(-1, D).sum(axis=0)
    # ROUND
    mean = integers.round_div(g.sum(axis=-1, keepdims=True), D)
    energy = (unit * unit).sum(axis=-1, keepdims=True)
    divisor = np.maximum(integers.shift_round(energy, UNIT_BITS), 1)
    slope = integers.round_div((g * unit).sum(axis=-1, keepdims=True), divisor)
    across = g - mean - integers.shift_round(unit * slope, UNIT_BITS)
    up, down = final_shifts(e)
    update = integers.shift_round((across * m) << up, k + b + down)
    # SATURATE
    return integers.saturate(dr + update, 32).astype(np.int32), dgamma


__all__ = ["bitshift_norm_backward"]
