"""The embedding: rows of an integer table, brought to the format of the residual stream."""

from __future__ import annotations

import numpy as np

from ..arrays import Int16Array, Int32Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op
from ..integers import RESIDUAL_BITS

TABLE_BITS = 16


@op(
    inputs=(
        Tensor("ids", "int32", "...", low=0, high="V - 1", meaning="row numbers"),
        Tensor("table", "int16", "V D", meaning="Q.f"),
    ),
    outputs=(Tensor("y", "int32", "... D", meaning="Q.(f + shift)"),),
    parameters=(Parameter("shift", 0, RESIDUAL_BITS - TABLE_BITS, "fraction bits that y has more than the table"),),
    sizes={"V": (1, 2**31 - 1)},
    clauses={
        "C1": "y[..., d] = table[ids[...], d] * 2**shift, exact",
        "C2": "an id outside [0, V - 1] is a DomainError",
    },
    widths=lambda at: {"y": Width(Interval.signed(TABLE_BITS) << at.shift, "int32")},
)
def embedding(ids: Int32Array, table: Int16Array, /, *, shift: int) -> Int32Array:
    """Look up rows of the embedding table: ``y = table[ids] * 2**shift`` (C1), the start of the residual stream.

    The largest shift is the one for which every result stays inside the residual stream, ``|y| <= 2**23 - 1``.

    Examples
    --------
    >>> embedding(np.array([2, 0], np.int32), np.array([[1, -2], [3, 4], [5, -6]], np.int16), shift=4).tolist()
    [[80, -96], [16, -32]]
    """
    return table[ids].astype(np.int32) << shift


__all__ = ["embedding"]
