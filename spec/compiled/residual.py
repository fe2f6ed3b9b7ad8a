"""Numba twins of ``spec.ops.residual``."""

from functools import partial

import numpy as np
from numba import prange

from .. import ops
from ..contract import implements
from ..integers import RESIDUAL_BITS
from . import integers
from .threads import spread


@implements(ops.residual_add)
def residual_add(r, x, *, num, shift):
    flat_r, flat_x = (np.ascontiguousarray(a).reshape(-1) for a in (r, x))
    return _residual_add(flat_r, flat_x, num, shift).reshape(r.shape)


@partial(spread, lightness=8)
def _residual_add(r, x, num, shift):
    y = np.empty_like(r)
    for i in prange(r.size):
        update = integers.shift_round(np.int64(x[i]) * num, shift)
        y[i] = integers.saturate(r[i] + update, RESIDUAL_BITS)
    return y


__all__ = ["residual_add"]
