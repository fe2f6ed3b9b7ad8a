"""Numba twins of ``spec.ops.conv_backward``: the steps of a block in turn, all channels in lanes.

Each loop over channels writes one array: a loop that writes more is not known to have them apart, and runs one by one.
"""

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from . import integers
from .threads import spread

# Steps of one piece of work, whose gradients stay in the cache. The next block's first three are computed twice.
STEPS = 64


@implements(ops.causal_conv1d_backward)
def causal_conv1d_backward(dy, x, w, bias, state, *, s):
    known = np.ascontiguousarray(np.concatenate([state, x], axis=1))
    taps = np.ascontiguousarray(w.T, np.int32)
    dx, sums = _convolve_backward(np.ascontiguousarray(dy), known, taps, np.ascontiguousarray(bias), s)
    total = sums.sum(axis=0)
    return dx, np.ascontiguousarray(total[:4].T), total[4]


@njit(inline="always")
def pass_gradients(g, dy, x0, x1, x2, x3, w, bias, s):
    """Write the gradients of a step's results into g, 0 where a result was saturated."""
    for d in range(g.size):
        old = w[0, d] * x0[d] + w[1, d] * x1[d]
        new = w[2, d] * x2[d] + w[3, d] * x3[d]
        y = np.int32(integers.shift_round(np.int32(bias[d] + old + new), s))
        g[d] = dy[d] if abs(y) <= 32767 else 0


@njit(inline="always")
def put_back(dx, g0, g1, g2, g3, w, s):
    for d in range(dx.size):
        early = w[3, d] * np.int64(g0[d]) + w[2, d] * np.int64(g1[d])
        late = w[1, d] * np.int64(g2[d]) + w[0, d] * np.int64(g3[d])
        dx[d] = integers.saturate(integers.shift_round(early + late, s), 32)


@njit(inline="always")
def add_products(total, g, x):
    for d in range(g.size):
        total[d] += np.int64(g[d]) * x[d]


@njit(inline="always")
def add(total, g):
    for d in range(g.size):
        total[d] += g[d]


@spread
def _convolve_backward(dy, known, w, bias, s):
    batch, length, channels = dy.shape
    dx = np.empty((batch, length, channels), np.int32)
    blocks = -(-length // STEPS)
    sums = np.zeros((batch * blocks, 5, channels), np.int64)
    for piece in prange(batch * blocks):
        i, first = piece // blocks, piece % blocks * STEPS
        last = min(first + STEPS, length)
        x = known[i, first:]
        g = np.zeros((last - first + 3, channels), np.int32)
        for t in range(min(last + 3, length) - first):
            pass_gradients(g[t], dy[i, first + t], x[t], x[t + 1], x[t + 2], x[t + 3], w, bias, s)
        for t in range(last - first):
            put_back(dx[i, first + t], g[t], g[t + 1], g[t + 2], g[t + 3], w, s)
            for j in range(4):
                add_products(sums[piece, j], g[t], x[t + j])
            add(sums[piece, 4], g[t])
    return dx, sums


__all__ = ["causal_conv1d_backward"]
