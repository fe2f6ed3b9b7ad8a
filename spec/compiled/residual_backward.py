"""Numba twins of ``spec.ops.residual_backward``."""

from functools import partial

import numpy as np
from numba import prange

from .. import ops
from ..contract import implements
from . import integers
from .threads import spread


@implements(ops.residual_add_backward)
def residual_add_backward(dy, *, num, shift):
    return _residual_add_backward(np.ascontiguousarray(dy).reshape(-1), num, shift).reshape(dy.shape)


@partial(spread, lightness=8)
def _residual_add_backward(dy, num, shift):
    dx = np.empty(dy.size, np.int16)
    for i in prange(dy.size):
        dx[i] = integers.saturate(integers.shift_round(np.int64(dy[i]) * num, shift), 16)
    return dx


__all__ = ["residual_add_backward"]
