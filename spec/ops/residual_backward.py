"""Backward of the residual connection."""

from __future__ import annotations

import numpy as np

from .. import integers
from ..arrays import Int16Array, Int32Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op

STREAM_GRADIENT = Interval.signed(32)


def residual_add_backward_widths(at):
    product = STREAM_GRADIENT * at.num
    rounded = product.shift_round(at.shift)
    return {
        "product": Width(product, "int64"),
        "raised": Width(product + ((1 << at.shift) >> 1), "int64"),
        "rounded": Width(rounded, "int64"),
        "dx": Width(rounded.saturate(16), "int16"),
    }


@op(
    inputs=(Tensor("dy", "int32", "...", meaning="gradient of the residual stream after the sum, times 2**G"),),
    outputs=(Tensor("dx", "int16", "...", meaning="gradient of the layer's result, times 2**(G - shift)"),),
    parameters=(
        Parameter("num", -(2**15) + 1, 2**15 - 1, "numerator of the gate"),
        Parameter(
            "shift", 0, 47, "the gate's shift, plus the bits by which the exponent of dx is less than that of dy"
        ),
    ),
    clauses={
        "C1": "dx = floor(dy * num / 2**shift + 1/2), one rounding, saturated to [-32767, 32767]",
        "C2": "the gradient of the stream before the sum is dy itself: the rounding and the saturation of "
        "`residual_add` have derivative one",
    },
    widths=residual_add_backward_widths,
    backward_of="residual_add",
)
def residual_add_backward(dy: Int32Array, /, *, num: int, shift: int) -> Int16Array:
    """Compute the gradient of `residual_add` with respect to x: ``dx = dy * num / 2**shift``, as int16.

    ``dx = saturate(shift_round(dy * num, shift), 16)`` (C1). The gradient of the stream passes the sum unchanged, so it
    is no result of this op (C2).

    Notes
    -----
    Straight-through: a stream at its edge still gets the gradient that takes it back.

    Examples
    --------
    >>> residual_add_backward(np.array([100, -3, 3, 2147483647], np.int32), num=3, shift=1).tolist()
    [150, -4, 5, 32767]
    """
    # ACCUMULATE
    product = dy.astype(np.int64) * num
    # ROUND
    dx = integers.shift_round(product, shift)
    # SATURATE
    return integers.saturate(dx, 16).astype(np.int16)


__all__ = ["residual_add_backward"]
