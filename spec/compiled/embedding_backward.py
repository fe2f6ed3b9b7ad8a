"""Numba twins of ``spec.ops.embedding_backward``."""

import numpy as np
from numba import prange

from .. import ops
from ..contract import implements
from .threads import spread

# Columns that one thread sums at a time: no two threads write to one row of them.
COLUMNS = 128


@implements(ops.embedding_backward)
def embedding_backward(ids, dy, *, V):
    D = dy.shape[-1]
    dtable = np.zeros((V, D), np.int64)
    _scatter(dtable, np.ascontiguousarray(ids).reshape(-1), np.ascontiguousarray(dy).reshape(ids.size, D))
    return dtable


@spread
def _scatter(dtable, ids, dy):
    D = dy.shape[1]
    for block in prange(-(-D // COLUMNS)):
        first, last = block * COLUMNS, min((block + 1) * COLUMNS, D)
        for place in range(ids.size):
            # As slices the two rows are known to be contiguous: the sum runs in lanes.
            entry, error = dtable[ids[place], first:last], dy[place, first:last]
            for d in range(last - first):
                entry[d] += error[d]


__all__ = ["embedding_backward"]
