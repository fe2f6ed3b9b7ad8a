"""Numba twins of ``spec.ops.conv``."""

from functools import partial

import numpy as np
from numba import prange

from .. import ops
from ..contract import implements
from . import integers
from .threads import spread


@implements(ops.causal_conv1d)
def causal_conv1d(x, w, bias, state, *, s):
    known = np.ascontiguousarray(np.concatenate([state, x], axis=1))
    length = x.shape[1]
    y = _convolve(known, np.ascontiguousarray(w.T, np.int32), np.ascontiguousarray(bias), s)
    return y, known[:, length:].copy()


@implements(ops.conv1d_step)
def conv1d_step(x, w, bias, state, *, s):
    y, state = causal_conv1d.kernel(x[:, None], w, bias, state, s=s)
    return y[:, 0], state


@partial(spread, lightness=2)
def _convolve(known, w, bias, s):
    batch, length, channels = known.shape[0], known.shape[1] - 3, known.shape[2]
    y = np.empty((batch, length, channels), np.int16)
    for row in prange(batch * length):
        i, t = row // length, row % length
        for d in range(channels):
            old = w[0, d] * known[i, t, d] + w[1, d] * known[i, t + 1, d]
            new = w[2, d] * known[i, t + 2, d] + w[3, d] * known[i, t + 3, d]
            # Numba computes in 64 bits; narrowed at once, the loop has twice the lanes.
            total = np.int32(bias[d] + old + new)
            y[i, t, d] = integers.saturate(np.int32(integers.shift_round(total, s)), 16)
    return y


__all__ = ["causal_conv1d", "conv1d_step"]
