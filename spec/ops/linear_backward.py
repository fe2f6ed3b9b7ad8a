"""Backward of the ternary linear layer: with respect to its rows, and to its weights.

Rounding, saturation and the weights' projection to three values pass gradients as if they were not there
(straight through). An error operand is int8 or int16: the caller chooses, and knows its exponent.
"""

from math import prod

import numpy as np

from .. import integers
from ..bounds import Interval, Width
from ..contract import PackedTernary, Parameter, Tensor, op
from .linear import EXPONENT, LARGEST_ROW, QUANTISED
from .packing import unpack_ternary

# The wider of the two error types stands for both: this many of them are summed exactly in int32.
ERROR = Interval.signed(16)
MOST_ERRORS = 2**16


def ternary_linear_backward_widths(at):
    accumulator = (ERROR * Interval(-1, 1)).sum(at.N)
    scaled = accumulator * at.num
    rounded_sum = scaled.shift_round(at.shift)
    return {
        "accumulator": Width(accumulator, "int32"),
        "scaled": Width(scaled, "int64"),
        "rounded_sum": Width(rounded_sum, "int64"),
        "dx": Width(rounded_sum.saturate(32), "int32"),
    }


@op(
    inputs=(
        Tensor("dy", ("int16", "int8"), "... N", meaning="gradient of the loss by y, any scale"),
        PackedTernary("w", "uint8", "N K/4", meaning="the layer's weights"),
    ),
    outputs=(Tensor("dx", "int32", "... K", meaning="gradient of the loss by x, the scale of dy"),),
    parameters=(
        Parameter("K", 1, LARGEST_ROW, "digits in a row of w"),
        Parameter("num", 1, 2**15 - 1, "numerator of the weights' scale"),
        Parameter("shift", 0, 47, "the scale is num / 2**shift"),
    ),
    sizes={"N": (1, MOST_ERRORS)},
    clauses={
        "C1": "a[k] = sum over n of dy[n] * w[n, k], exactly: additions and subtractions alone",
        "C2": "dx = a * num / 2**shift to the nearest integer, ties toward plus infinity, one rounding",
        "C3": "dx is saturated to [-(2**31 - 1), 2**31 - 1]",
    },
    widths=ternary_linear_backward_widths,
)
def ternary_linear_backward(dy, w, *, K, num, shift):
    """Return the gradient by the rows ``x = q * 2**e`` that a ternary linear layer was given.

    The transposed weights times the errors (C1), exact in int32, times the layer's scale in one rounding,
    ``shift_round(a * num, shift)`` (C2), saturated to 32 bits (C3). The row exponents don't enter: they belong to x.
    ``num = 1, shift = 0`` returns the sum itself, its scale left to the gradient's exponent.

    Parameters
    ----------
    dy : int8 or int16 array, shape (..., N), symmetric range, N in [1, 65536]
    w : uint8 array, shape (N, ceil(K / 4)), 2-bit codes
    K : int in [1, 2**20]
    num : int in [1, 2**15 - 1]
    shift : int in [0, 47]

    Returns
    -------
    int32 array, shape (..., K).

    Raises
    ------
    DomainError
        A value, dtype or shape that is not as above; an invalid code.

    Notes
    -----
    Straight through the rounding and saturation of y, and those of x to q: Y. Bengio, N. Leonard and A. Courville,
    "Estimating or propagating gradients through stochastic neurons", 2013.

    Examples
    --------
    >>> w = pack_ternary(np.array([[1, -1, 0], [1, 1, 1]], np.int8))
    >>> ternary_linear_backward(np.array([[10, 3]], np.int8), w, K=3, num=1, shift=1).tolist()
    [[7, -3, 2]]
    """
    # ACCUMULATE
    digits = unpack_ternary.golden(w, K=K).astype(np.int64)
    accumulator = dy.astype(np.int64) @ digits
    # ROUND
    rounded_sum = integers.shift_round(accumulator * num, shift)
    # SATURATE
    return integers.saturate(rounded_sum, 32).astype(np.int32)


def ternary_linear_backward_weight_widths(at):
    product = ERROR * QUANTISED
    aligned = product << EXPONENT.high
    return {
        "product": Width(product, "int32"),
        "aligned": Width(aligned, "int64"),
        "dw": Width(aligned.sum(prod(at.leading)), "int64"),
    }


@op(
    inputs=(
        Tensor("dy", ("int16", "int8"), "... N", meaning="gradient of the loss by y, any scale"),
        Tensor("q", "int8", "... K", meaning="the rows that the layer was given"),
        Tensor("e", "int32", "...", low=EXPONENT.low, high=EXPONENT.high, meaning="their exponents"),
    ),
    outputs=(Tensor("dw", "int64", "N K", meaning="gradient of the loss by w, the scale of dy over the weights'"),),
    clauses={
        "C1": "dw[n, k] = sum over all rows of dy[n] * q[k] * 2**e, exactly: nothing is rounded",
    },
    widths=ternary_linear_backward_weight_widths,
)
def ternary_linear_backward_weight(dy, q, e):
    """Return the gradient by the weights of a ternary linear layer, summed over all rows.

    The errors times the rows ``x = q * 2**e`` that the layer saw (C1). The sum is exact, so rows may be cut into
    micro-batches and ranks at will and their gradients added. The weights' scale, one Dyadic for the whole matrix, is
    left to the gradient's exponent; so is the choice of how many bits to keep.

    Parameters
    ----------
    dy : int8 or int16 array, shape (..., N), symmetric range
    q : int8 array, shape (..., K), in [-127, 127]
    e : int32 array, shape (...), in [0, 15]

    Returns
    -------
    int64 array, shape (N, K); zeros where there are no rows.

    Raises
    ------
    DomainError
        A value, dtype or shape that is not as above; so many rows (2**26) that the sum could pass int64.

    Notes
    -----
    Straight through the projection of the master weights to three values.

    Examples
    --------
    >>> dy, q = np.array([[1, -2], [3, 0]], np.int8), np.array([[10, 5, 0], [1, 0, -1]], np.int8)
    >>> ternary_linear_backward_weight(dy, q, np.array([0, 2], np.int32)).tolist()
    [[22, 5, -12], [-20, -10, 0]]
    """
    # ACCUMULATE
    n, k = dy.shape[-1], q.shape[-1]
    rows = prod(e.shape)
    aligned = dy.reshape(rows, n).astype(np.int64) << e.reshape(rows, 1).astype(np.int64)
    return aligned.T @ q.reshape(rows, k).astype(np.int64)


__all__ = ["ternary_linear_backward", "ternary_linear_backward_weight"]
