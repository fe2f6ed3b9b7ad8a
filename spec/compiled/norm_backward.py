"""Numba twins of ``spec.ops.norm_backward``."""

import numpy as np
from numba import prange

from .. import ops
from ..contract import implements
from ..ops.norm_backward import CUT_BITS, UNIT_BITS, final_shifts
from . import integers
from .norm import scale_exponent, scale_mantissa
from .threads import spread

# Pieces of work, each with its own sums for the gradient of gamma.
PIECES = 64


@implements(ops.bitshift_norm_backward)
def bitshift_norm_backward(x, gamma, dy, dr, *, b, e):
    D = x.shape[-1]
    rows = (np.ascontiguousarray(a).reshape(-1, D) for a in (x, dy, dr))
    dx, sums = _bitshift_norm_backward(*rows, np.ascontiguousarray(gamma), b, *final_shifts(e))
    return dx.reshape(x.shape), sums.sum(axis=0)


@spread
def _bitshift_norm_backward(x, dy, dr, gamma, b, up, down):
    rows, D = x.shape
    pieces = min(rows, PIECES)
    dx = np.empty((rows, D), np.int32)
    sums = np.zeros((pieces, D), np.int64)
    for piece in prange(pieces):
        unit, g = np.empty(D, np.int32), np.empty(D, np.int32)
        for row in range(piece * rows // pieces, (piece + 1) * rows // pieces):
            total, g_sum = 0, 0
            for i in range(D):
                g[i] = integers.shift_round(np.int32(np.int32(dy[row, i]) * np.int32(gamma[i])), CUT_BITS)
                total += np.int64(x[row, i])
                g_sum += np.int64(g[i])
            mean = np.int32(total // D)
            square_sum = 0
            for i in range(D):
                unit[i] = x[row, i] - mean
                square_sum += np.int64(unit[i]) * np.int64(unit[i])
            k = scale_exponent(square_sum, D)
            m = scale_mantissa(square_sum, D, k, b)
            # A left and a right shift, of which one is by zero: so every value fits 32 bits.
            left, right = max(UNIT_BITS - k - b, 0), np.int32(max(k + b - UNIT_BITS, 0))
            factor, half = np.int32(m << left), np.int32((1 << right) >> 1)
            dot, energy = 0, 0
            for i in range(D):
                unit[i] = np.int32(np.int32(unit[i] * factor) + half) >> right
                dot += np.int64(g[i]) * np.int64(unit[i])
                energy += np.int64(unit[i]) * np.int64(unit[i])
                sums[piece, i] += np.int64(dy[row, i]) * np.int64(unit[i])
            g_mean = np.int32(integers.round_div(g_sum, D))
            slope = np.int32(integers.round_div(dot, max(integers.shift_round(energy, UNIT_BITS), 1)))
            for i in range(D):
                along = integers.shift_round(np.int64(unit[i]) * np.int64(slope), UNIT_BITS)
                across = np.int32(g[i] - g_mean - along)
                update = integers.shift_round((np.int64(across) * m) << up, k + b + down)
                dx[row, i] = integers.saturate(dr[row, i] + update, 32)
    return dx, sums


__all__ = ["bitshift_norm_backward"]
