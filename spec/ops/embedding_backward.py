"""Backward of the embedding: rows of the gradient are added to the rows of the table that they came from."""

from __future__ import annotations

import math

import numpy as np

from ..arrays import Int32Array, Int64Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op

STREAM_GRADIENT = Interval.signed(32)


@op(
    inputs=(
        Tensor("ids", "int32", "...", low=0, high="V - 1", meaning="row numbers"),
        Tensor("dy", "int32", "... D", meaning="gradient of the residual stream, times 2**G"),
    ),
    outputs=(Tensor("dtable", "int64", "V D", meaning="gradient of the table, times 2**G"),),
    parameters=(Parameter("V", 1, 2**31 - 1, "rows of the table"),),
    clauses={
        "C1": "dtable[v, d] = sum of dy[..., d] over all places where ids[...] = v, exact",
        "C2": "an id outside [0, V - 1] is a DomainError",
    },
    backward_of="embedding",
    widths=lambda at: {"dtable": Width(STREAM_GRADIENT.sum(math.prod(at.leading)), "int64")},
)
def embedding_backward(ids: Int32Array, dy: Int32Array, /, *, V: int) -> Int64Array:
    """Compute the gradient of the embedding table: ``dtable[v] = sum of dy where ids = v`` (C1).

    A row that no id names gets zeros. The sums are exact, so those of micro-batches add up to the whole batch's.

    Examples
    --------
    >>> embedding_backward(np.array([2, 0, 2], np.int32), np.array([[1, -2], [3, 4], [5, -6]], np.int32), V=3).tolist()
    [[3, 4], [0, 0], [6, -8]]
    """
    D = dy.shape[-1]
    dtable = np.zeros((V, D), np.int64)
    # ACCUMULATE
    for place, row in zip(ids.reshape(-1), dy.reshape(ids.size, D), strict=True):
        dtable[place] += row
    return dtable


__all__ = ["embedding_backward"]
