"""Numba twins of ``spec.ops.linear_backward``: both are products of words of two numbers of 16 bits."""

from functools import partial

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from . import integers
from .linear import matrix
from .products import LANES, ROWS, multiply_pairs, paired, round_lanes, word_of
from .threads import spread

# Pairs of products of 2**15 and 127, so many of which are summed in int32.
SAFE = 256


@implements(ops.ternary_linear_backward)
def ternary_linear_backward(dy, w, *, K, num, shift):
    errors = matrix(dy)
    words = np.zeros((-(-len(errors) // ROWS) * ROWS, -(-errors.shape[1] // 2) * 2), np.int16)
    words[: len(errors), : errors.shape[1]] = errors
    codes = np.zeros((words.shape[1], -(-w.shape[1] // 4) * 4), np.uint8)
    codes[: len(w), : w.shape[1]] = w
    dx = _backward(words.view(np.int32), codes.view(np.uint32), len(errors), K, num, shift)
    return dx.reshape(*dy.shape[:-1], K)


@njit(inline="always")
def digit(codes, lane):
    return np.int32((np.int32(codes >> np.uint32(2 * lane)) & 3) ^ 2) - 2


@partial(spread, lightness=1 / 8)
def _backward(errors, codes, rows, K, num, shift):
    """Multiply rows of words of two errors by digits, of which a word of ``codes`` has those of a panel's lanes."""
    dx = np.empty((rows, K), np.int16)
    for task in prange((K + LANES - 1) // LANES):
        first = task * LANES
        columns = min(K - first, LANES)
        panel, block = np.empty((errors.shape[1], LANES), np.int32), np.empty((ROWS, LANES), np.int32)
        none = np.zeros(LANES, np.int32)
        for pair in range(len(panel)):
            early, late = codes[2 * pair, task], codes[2 * pair + 1, task]
            for lane in range(LANES):
                panel[pair, lane] = word_of(digit(early, lane), digit(late, lane))
        for start in range(0, rows, ROWS):
            multiply_pairs(block, errors[start : start + ROWS], panel)
            for row in range(start, min(start + ROWS, rows)):
                if columns == LANES:
                    round_lanes(dx, row, first, block, row - start, none, num, (1 << shift) >> 1, shift)
                    continue
                for k in range(columns):
                    rounded = integers.shift_round(np.int64(block[row - start, k]) * num, shift)
                    dx[row, first + k] = integers.saturate(rounded, 16)
    return dx


@implements(ops.ternary_linear_backward_weight)
def ternary_linear_backward_weight(dy, q, *, bits):
    return _backward_weight(paired(matrix(dy)), paired(matrix(q)), dy.shape[-1], q.shape[-1])


@spread
def _backward_weight(errors, values, N, K):
    """Multiply panels of pairs of rows: errors are (N / LANES, pairs, LANES), values (K / LANES, pairs, LANES)."""
    dw, pairs = np.zeros((N, K), np.int64), errors.shape[1]
    for task in prange(N // ROWS + (N % ROWS > 0)):
        first, block = task * ROWS, np.empty((ROWS, LANES), np.int32)
        rows = errors[first // LANES, :, first % LANES : first % LANES + ROWS].T
        for tile in range(len(values)):
            for start in range(0, pairs, SAFE):
                stop = min(start + SAFE, pairs)
                multiply_pairs(block, rows[:, start:stop], values[tile, start:stop])
                for n in range(min(ROWS, N - first)):
                    for k in range(min(LANES, K - tile * LANES)):
                        dw[first + n, tile * LANES + k] += block[n, k]
    return dw


__all__ = ["ternary_linear_backward", "ternary_linear_backward_weight"]
