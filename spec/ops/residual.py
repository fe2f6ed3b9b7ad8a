"""The residual stream: 24 bits in an int32, added to once per layer."""

from __future__ import annotations

import numpy as np

from .. import integers
from ..arrays import Int16Array, Int32Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op
from ..integers import RESIDUAL_BITS

RESIDUAL = Interval.signed(RESIDUAL_BITS)
ACTIVATION = Interval.signed(16)


def residual_add_widths(at):
    product = ACTIVATION * at.num
    half = (1 << at.shift) >> 1
    update = product.shift_round(at.shift)
    total = RESIDUAL + update
    return {
        "product": Width(product, "int32"),
        "raised": Width(product + half, "int32"),
        "update": Width(update, "int32"),
        "sum": Width(total, "int32"),
        "y": Width(total.saturate(RESIDUAL_BITS), "int32"),
    }


@op(
    inputs=(
        Tensor("r", "int32", "...", low=RESIDUAL.low, high=RESIDUAL.high, meaning="residual stream, Q.f"),
        Tensor("x", "int16", "...", meaning="a layer's result, in any Q format"),
    ),
    outputs=(Tensor("y", "int32", "...", low=RESIDUAL.low, high=RESIDUAL.high, meaning="residual stream, Q.f"),),
    parameters=(
        Parameter("num", -(2**15) + 1, 2**15 - 1, "numerator of the gate"),
        Parameter("shift", 0, 30, "the gate is num / 2**shift"),
    ),
    clauses={
        "C1": "u = floor(x * num / 2**shift + 1/2), one rounding",
        "C2": "y = r + u, saturated to [-(2**23 - 1), 2**23 - 1]",
    },
    widths=residual_add_widths,
)
def residual_add(r: Int32Array, x: Int16Array, /, *, num: int, shift: int) -> Int32Array:
    """Add a layer's result to the residual stream through a dyadic gate: ``y = r + x * num / 2**shift``.

    With ``u = shift_round(x * num, shift)`` (C1), ``y = saturate(r + u, 24)`` (C2).

    Notes
    -----
    Every intermediate fits 32 bits: ``|x * num| + 2**29 < 2**31``.

    Examples
    --------
    >>> residual_add(np.array([100, 8388607], np.int32), np.array([-3, 9], np.int16), num=3, shift=1).tolist()
    [96, 8388607]
    """
    # ACCUMULATE
    product = x.astype(np.int64) * num
    # ROUND
    total = r.astype(np.int64) + integers.shift_round(product, shift)
    # SATURATE
    return integers.saturate(total, RESIDUAL_BITS).astype(np.int32)


__all__ = ["residual_add"]
