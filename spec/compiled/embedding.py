"""Numba twins of ``spec.ops.embedding``."""

import numpy as np
from numba import prange

from .. import ops
from ..contract import implements
from .threads import spread


@implements(ops.embedding)
def embedding(ids, table, *, shift):
    rows = _embedding(np.ascontiguousarray(ids).reshape(-1), np.ascontiguousarray(table), shift)
    return rows.reshape(*ids.shape, table.shape[1])


@spread
def _embedding(ids, table, shift):
    y = np.empty((ids.size, table.shape[1]), np.int32)
    for row in prange(ids.size):
        for d in range(table.shape[1]):
            y[row, d] = np.int64(table[ids[row], d]) << shift
    return y


__all__ = ["embedding"]
