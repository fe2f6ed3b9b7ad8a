"""Numba twins of ``spec.ops.conv_backward``: a block of channels at a time, each sum kept by one thread."""

import numpy as np
from numba import prange

from .. import ops
from ..contract import implements
from . import integers
from .threads import spread

# Channels of one piece of work: a step's gradients and sums stay in the nearest cache.
CHANNELS = 64


@implements(ops.causal_conv1d_backward)
def causal_conv1d_backward(dy, x, w, bias, state, *, s):
    dy, x, bias, state = (np.ascontiguousarray(a) for a in (dy, x, bias, state))
    dx, sums = _convolve_backward(dy, x, np.ascontiguousarray(w.T, np.int32), bias, state, s)
    total = sums.sum(axis=0)
    return dx, np.ascontiguousarray(total[:4].T), total[4]


@spread
def _convolve_backward(dy, x, w, bias, state, s):
    batch, length, channels = x.shape
    dx = np.empty((batch, length, channels), np.int32)
    sums = np.zeros((batch, 5, channels), np.int64)
    blocks = -(-channels // CHANNELS)
    for piece in prange(batch * blocks):
        i, first = piece // blocks, piece % blocks * CHANNELS
        last = min(first + CHANNELS, channels)
        known = np.empty((length + 3, last - first), np.int32)
        known[:3], known[3:] = state[i, :, first:last], x[i, :, first:last]
        g = np.zeros((length + 3, last - first), np.int32)
        for t in range(length):
            for d in range(last - first):
                old = w[0, first + d] * known[t, d] + w[1, first + d] * known[t + 1, d]
                new = w[2, first + d] * known[t + 2, d] + w[3, first + d] * known[t + 3, d]
                y = np.int32(integers.shift_round(np.int32(bias[first + d] + old + new), s))
                g[t, d] = dy[i, t, first + d] if abs(y) <= 32767 else 0
        for t in range(length):
            for d in range(last - first):
                c, gradient = first + d, np.int64(g[t, d])
                late = w[3, c] * gradient + w[2, c] * np.int64(g[t + 1, d])
                later = w[1, c] * np.int64(g[t + 2, d]) + w[0, c] * np.int64(g[t + 3, d])
                dx[i, t, c] = integers.saturate(integers.shift_round(late + later, s), 32)
                for j in range(4):
                    sums[i, j, c] += gradient * known[t + j, d]
                sums[i, 4, c] += gradient
    return dx, sums


__all__ = ["causal_conv1d_backward"]
