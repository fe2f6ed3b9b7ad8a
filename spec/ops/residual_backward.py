"""Backward of the residual connection."""

import numpy as np

from .. import integers
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op

STREAM_ERROR = Interval.signed(32)


def residual_add_backward_widths(at):
    product = STREAM_ERROR * at.num
    rounded = product.shift_round(at.shift)
    return {
        "product": Width(product, "int64"),
        "raised": Width(product + ((1 << at.shift) >> 1), "int64"),
        "rounded": Width(rounded, "int64"),
        "dx": Width(rounded.saturate(16), "int16"),
    }


@op(
    inputs=(Tensor("dy", "int32", "...", meaning="error of the residual stream after the sum, times 2**G"),),
    outputs=(Tensor("dx", "int16", "...", meaning="error of the layer's result, times 2**(G - shift)"),),
    parameters=(
        Parameter("num", -(2**15) + 1, 2**15 - 1, "numerator of the gate"),
        Parameter("shift", 0, 47, "bits that the error loses"),
    ),
    clauses={
        "C1": "dx = floor(dy * num / 2**shift + 1/2), one rounding, saturated to [-32767, 32767]",
        "C2": "the error of the stream before the sum is dy itself: the rounding and the saturation of `residual_add` "
        "have derivative one",
    },
    widths=residual_add_backward_widths,
)
def residual_add_backward(dy, *, num, shift):
    """Return the error of what `residual_add` added to the stream: dy times the gate, as int16.

    ``dx = saturate(shift_round(dy * num, shift), 16)`` (C1). The stream's own error passes the sum unchanged, so it is
    no result of this op (C2).

    Parameters
    ----------
    dy : int32 array, any shape, in [-(2**31 - 1), 2**31 - 1]
    num : int in [-32767, 32767]
        The gate's numerator.
    shift : int in [0, 47]
        The gate's shift and the bits by which the exponent of dx is less than that of dy, together.

    Returns
    -------
    int16 array, the shape of dy.

    Raises
    ------
    DomainError
        dy holds -2**31 or is not int32; num or shift outside its range.

    Notes
    -----
    Straight-through: a stream at its edge still gets the error that takes it back.

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
