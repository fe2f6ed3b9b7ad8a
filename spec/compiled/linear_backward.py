"""Numba twins of ``spec.ops.linear_backward``.

Both products are sums of pairs of int16 along rows: the compiler finds the instruction that multiplies and adds pairs.
"""

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from . import integers
from .linear import matrix
from .threads import spread

# Rows of one operand that are held in the nearest cache while a row of the other meets each.
TILE = 16
# So many products of 2**15 and 127 are summed in int32.
SAFE = 512


@njit(inline="always")
def dot(a, b):
    total = np.int32(0)
    for i in range(a.size):
        total = np.int32(total + np.int32(a[i]) * np.int32(b[i]))
    return total


@implements(ops.ternary_linear_backward)
def ternary_linear_backward(dy, w, *, K, num, shift):
    errors = matrix(dy).astype(np.int16)
    return _backward(errors, np.ascontiguousarray(w), K, num, shift).reshape(*dy.shape[:-1], K)


@spread
def _backward(errors, w, K, num, shift):
    rows, N = errors.shape
    dx = np.empty((rows, K), np.int16)
    for tile in prange((K + TILE - 1) // TILE):
        columns = min(K - tile * TILE, TILE)
        digits = np.empty((TILE, N), np.int16)
        for n in range(N):
            for j in range((columns + 3) // 4):
                byte = w[n, tile * (TILE // 4) + j]
                for i in range(4):
                    digits[4 * j + i, n] = (((byte >> (2 * i)) & 3) ^ 2) - 2
        for row in range(rows):
            for k in range(columns):
                total = np.int64(dot(errors[row], digits[k]))
                rounded = integers.shift_round(total * num, shift)
                dx[row, tile * TILE + k] = integers.saturate(rounded, 16)
    return dx


@implements(ops.ternary_linear_backward_weight)
def ternary_linear_backward_weight(dy, q, *, bits):
    return _backward_weight(pieces(matrix(dy)), pieces(matrix(q)))


def pieces(rows):
    """Return the columns as int16 [pieces, columns, SAFE], the rows beyond the last zero."""
    count = -(-len(rows) // SAFE)
    padded = np.zeros((count * SAFE, rows.shape[1]), np.int16)
    padded[: len(rows)] = rows
    return np.ascontiguousarray(padded.reshape(count, SAFE, rows.shape[1]).transpose(0, 2, 1))


@spread
def _backward_weight(errors, values):
    N, K = errors.shape[1], values.shape[1]
    dw = np.zeros((N, K), np.int64)
    for tile in prange((N + TILE - 1) // TILE):
        for piece in range(errors.shape[0]):
            for k in range(K):
                for n in range(tile * TILE, min(tile * TILE + TILE, N)):
                    dw[n, k] += dot(errors[piece, n], values[piece, k])
    return dw


__all__ = ["ternary_linear_backward", "ternary_linear_backward_weight"]
