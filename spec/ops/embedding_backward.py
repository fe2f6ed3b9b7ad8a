"""Backward of the embedding: rows of the error are added to the rows of the table that they came from."""

import math

import numpy as np

from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op

STREAM_ERROR = Interval.signed(32)


@op(
    inputs=(
        Tensor("ids", "int32", "...", low=0, high=lambda at: at.V - 1, meaning="row numbers"),
        Tensor("dy", "int32", "... D", meaning="error of the residual stream, times 2**G"),
    ),
    outputs=(Tensor("dtable", "int64", "V D", meaning="gradient of the table, times 2**G"),),
    parameters=(Parameter("V", 1, 2**31 - 1, "rows of the table"),),
    clauses={
        "C1": "dtable[v, d] = sum of dy[..., d] over all places where ids[...] = v, exact",
        "C2": "an id outside [0, V - 1] is a DomainError",
    },
    widths=lambda at: {"dtable": Width(STREAM_ERROR.sum(math.prod(at.leading)), "int64")},
)
def embedding_backward(ids, dy, *, V):
    """Return the sum of the errors at the places that read each row of the table (C1).

    A row that no id names gets zeros. The sums are exact, so those of micro-batches add up to the whole batch's.

    Parameters
    ----------
    ids : int32 array, any shape, in [0, V - 1]
    dy : int32 array, shape (..., D), in [-(2**31 - 1), 2**31 - 1]
    V : int in [1, 2**31 - 1]

    Returns
    -------
    int64 array, shape (V, D).

    Raises
    ------
    DomainError
        An id outside the table (C2); dy holds -2**31; ids and dy of different leading dimensions; V outside its range.

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
