"""Backward of the ternary linear layer: the gradients of its rows and of its weights.

Gradients pass straight through rounding, saturation and the weights' projection to three values. They are int16, or
int8 where 8 bits are enough. Their scale is known to the caller alone.
"""

from __future__ import annotations

from math import prod

import numpy as np

from .. import integers
from ..arrays import Int8Array, Int16Array, Int64Array, UInt8Array
from ..bounds import Interval, Width
from ..contract import PackedTernary, Parameter, Tensor, op
from .linear import LARGEST_ROW, QUANTISED, SCALE
from .packing import unpack_ternary

# The wider type stands for both: this many gradients are summed exactly in int32.
ACTIVATION_GRADIENT = Interval.signed(16)
MOST_GRADIENTS = 2**16
GRADIENT_TYPES = ("int16", "int8")


def ternary_linear_backward_widths(at):
    accumulator = (ACTIVATION_GRADIENT * Interval(-1, 1)).sum(at.N)
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
        Tensor("dy", GRADIENT_TYPES, "... N", meaning="gradient of y, any scale"),
        PackedTernary("w", "uint8", "N K/4", meaning="the layer's weights"),
    ),
    outputs=(Tensor("dx", "int16", "... K", meaning="gradient of x = q * 2**e, the scale of dy"),),
    parameters=(Parameter("K", 1, LARGEST_ROW, "digits in a row of w"), *SCALE),
    sizes={"N": (1, MOST_GRADIENTS)},
    clauses={
        "C1": "a[k] = sum over n of dy[n] * w[n, k], exactly: additions and subtractions alone",
        "C2": "dx = a * num / 2**shift to the nearest integer, ties toward plus infinity, one rounding",
        "C3": "dx is saturated to [-32767, 32767]",
    },
    widths=ternary_linear_backward_widths,
    backward_of="ternary_linear",
)
def ternary_linear_backward(
    dy: Int16Array | Int8Array, w: UInt8Array, /, *, K: int, num: int, shift: int
) -> Int16Array:
    """Compute the gradient of `ternary_linear` with respect to its rows: ``dx = dy @ w * num / 2**shift``.

    The transposed weights times the gradients (C1), exact in int32, then a Dyadic in one rounding,
    ``shift_round(a * num, shift)`` (C2), saturated to 16 bits (C3). With the layer's own num and shift dx has the scale
    of dy; another shift moves its exponent. The row exponents don't enter: they belong to x.

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
            GRADIENT_TYPES,
            "... N",
            low="-(2**(bits - 1) - 1)",
            high="2**(bits - 1) - 1",
            meaning="gradient of y, each row times its 2**e",
        ),
        Tensor("q", "int8", "... K", meaning="the rows that the layer was given"),
    ),
    outputs=(Tensor("dw", "int64", "N K", meaning="gradient of the weights, the scale of dy"),),
    parameters=(Parameter("bits", 2, 16, "width of dy: up to 8, one int8 product gives the result"),),
    clauses={"C1": "dw[n, k] = sum over all rows of dy[n] * q[k], exactly: nothing is rounded"},
    widths=ternary_linear_backward_weight_widths,
    backward_of="ternary_linear",
)
def ternary_linear_backward_weight(dy: Int16Array | Int8Array, q: Int8Array, /, *, bits: int) -> Int64Array:
    """Compute the gradient of `ternary_linear` with respect to its weights: ``dw = dy.T @ q``, exactly.

    The gradients times the quantised rows, summed over all rows (C1). The sum is exact, so a batch may be cut into
    micro-batches and ranks anywhere, and their gradients added. The row exponents of ``x = q * 2**e`` must be in dy
    already: there they are rounded away with the gradient's own low bits, and the product stays one of small integers.
    The weights' scale, one Dyadic for the whole matrix, is left to the gradient's exponent.

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
    gradients = dy.reshape(rows, dy.shape[-1]).astype(np.int64)
    # ACCUMULATE
    return gradients.T @ q.reshape(rows, q.shape[-1]).astype(np.int64)


__all__ = ["ternary_linear_backward", "ternary_linear_backward_weight"]
