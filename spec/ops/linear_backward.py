"""Backward of the ternary linear layer: with respect to its rows, and to its weights.

Rounding, saturation and the weights' projection to three values pass gradients as if they were not there
(straight through). Errors are int16, or int8 where 8 bits are enough; their scale is their caller's to know.
"""

from math import prod

import numpy as np

from .. import integers
from ..bounds import Interval, Width
from ..contract import PackedTernary, Parameter, Tensor, op
from .linear import LARGEST_ROW, QUANTISED, SCALE
from .packing import unpack_ternary

# The wider type stands for both: this many errors are summed exactly in int32.
ERROR = Interval.signed(16)
MOST_ERRORS = 2**16
ERROR_TYPES = ("int16", "int8")


def ternary_linear_backward_widths(at):
    accumulator = (ERROR * Interval(-1, 1)).sum(at.N)
    scaled = accumulator * at.num
    rounded_sum = scaled.shift_round(at.shift)
    return {
        "accumulator": Width(accumulator, "int32"),
        "scaled": Width(scaled, "int64"),
        "rounded_sum": Width(rounded_sum, "int64"),
        "dx": Width(rounded_sum.saturate(16), "int16"),
    }


@op(
    inputs=(
        Tensor("dy", ERROR_TYPES, "... N", meaning="error of y, any scale"),
        PackedTernary("w", "uint8", "N K/4", meaning="the layer's weights"),
    ),
    outputs=(Tensor("dx", "int16", "... K", meaning="error of x = q * 2**e, the scale of dy"),),
    parameters=(Parameter("K", 1, LARGEST_ROW, "digits in a row of w"), *SCALE),
    sizes={"N": (1, MOST_ERRORS)},
    clauses={
        "C1": "a[k] = sum over n of dy[n] * w[n, k], exactly: additions and subtractions alone",
        "C2": "dx = a * num / 2**shift to the nearest integer, ties toward plus infinity, one rounding",
        "C3": "dx is saturated to [-32767, 32767]",
    },
    widths=ternary_linear_backward_widths,
)
def ternary_linear_backward(dy, w, *, K, num, shift):
    """Return the error of the rows ``x = q * 2**e`` that a ternary linear layer was given.

    The transposed weights times the errors (C1), exact in int32, then a Dyadic in one rounding,
    ``shift_round(a * num, shift)`` (C2), saturated to 16 bits (C3). With the layer's own num and shift dx has the scale
    of dy; another shift moves its exponent. The row exponents don't enter: they belong to x.

    Parameters
    ----------
    dy : int8 or int16 array, shape (..., N), symmetric range, N in [1, 65536]
    w : uint8 array, shape (N, ceil(K / 4)), 2-bit codes
    K : int in [1, 2**20]
    num : int in [1, 2**15 - 1]
    shift : int in [0, 47]

    Returns
    -------
    int16 array, shape (..., K).

    Raises
    ------
    DomainError
        A value, dtype or shape that is not as above; an invalid code.

    Notes
    -----
    Straight through the rounding and saturation of y, and those of x to q: Y. Bengio, N. Leonard and A. Courville,
    "Estimating or propagating gradients through stochastic neurons", 2013. Against the product in floats: cosine above
    0.9999, and more than 99 % of the signs.

    Examples
    --------
    >>> w = pack_ternary(np.array([[1, -1, 0], [1, 1, 1]], np.int8))
    >>> ternary_linear_backward(np.array([[10, 3]], np.int16), w, K=3, num=1, shift=1).tolist()
    [[7, -3, 2]]
    """
    # ACCUMULATE
    digits = unpack_ternary.golden(w, K=K).astype(np.int64)
    accumulator = dy.astype(np.int64) @ digits
    # ROUND
    rounded_sum = integers.shift_round(accumulator * num, shift)
    # SATURATE
    return integers.saturate(rounded_sum, 16).astype(np.int16)


def ternary_linear_backward_weight_widths(at):
    product = Interval.signed(at.bits) * QUANTISED
    return {
        "product": Width(product, "int32"),
        "dw": Width(product.sum(prod(at.leading)), "int64"),
    }


@op(
    inputs=(
        Tensor(
            "dy",
            ERROR_TYPES,
            "... N",
            low=lambda at: Interval.signed(at.bits).low,
            high=lambda at: Interval.signed(at.bits).high,
            meaning="error of y, each row times its 2**e",
        ),
        Tensor("q", "int8", "... K", meaning="the rows that the layer was given"),
    ),
    outputs=(Tensor("dw", "int64", "N K", meaning="gradient of the weights, the scale of dy"),),
    parameters=(Parameter("bits", 2, 16, "width of dy: up to 8, one int8 product gives the result"),),
    clauses={"C1": "dw[n, k] = sum over all rows of dy[n] * q[k], exactly: nothing is rounded"},
    widths=ternary_linear_backward_weight_widths,
)
def ternary_linear_backward_weight(dy, q, *, bits):
    """Return the gradient of the weights of a ternary linear layer, summed over all rows.

    The errors times the quantised rows (C1). The sum is exact, so rows may be cut into micro-batches and ranks at will
    and their gradients added. The row exponents of ``x = q * 2**e`` must be in dy already: there they are rounded away
    with the error's own low bits, and the product stays one of small integers. The weights' scale, one Dyadic for the
    whole matrix, is left to the gradient's exponent.

    Parameters
    ----------
    dy : int8 or int16 array, shape (..., N), in [-(2**(bits-1) - 1), 2**(bits-1) - 1]
    q : int8 array, shape (..., K), in [-127, 127]
    bits : int in [2, 16]

    Returns
    -------
    int64 array, shape (N, K); zeros where there are no rows.

    Raises
    ------
    DomainError
        A value, dtype or shape that is not as above.

    Notes
    -----
    Straight through the projection of the master weights to three values. With rows that `stochastic_round_rows` cut to
    16 bits: cosine above 0.9999 to the product in floats, and more than 99 % of the signs.

    Examples
    --------
    >>> dy, q = np.array([[1, -2], [3, 0]], np.int16), np.array([[10, 5, 0], [1, 0, -1]], np.int8)
    >>> ternary_linear_backward_weight(dy, q, bits=8).tolist()
    [[13, 5, -3], [-20, -10, 0]]
    """
    rows = prod(dy.shape[:-1])
    errors = dy.reshape(rows, dy.shape[-1]).astype(np.int64)
    # ACCUMULATE
    return errors.T @ q.reshape(rows, q.shape[-1]).astype(np.int64)


__all__ = ["ternary_linear_backward", "ternary_linear_backward_weight"]
