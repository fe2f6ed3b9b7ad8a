"""Numba twins of ``spec.ops.linear``."""

import math
from functools import partial

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from . import integers
from .products import LANES, ROWS, multiply_bytes, round_lanes, sum_digits
from .threads import spread

# Up to this many rows the packed weights are read as they are; above, unpacking them first pays.
FEW_ROWS = 16
# Added to signed bytes, it makes them unsigned, as one operand of a product of bytes has to be.
OFFSET = 128
VECTOR = 4 * LANES  # bytes of packed weights that are read at a time
TASK = 64  # rows of weights that a thread takes at a time


def matrix(array):
    """Return the array as a contiguous matrix of its rows."""
    return np.ascontiguousarray(array).reshape(math.prod(array.shape[:-1]), array.shape[-1])


@implements(ops.quantize_rows)
def quantize_rows(x):
    q, e = _quantize_rows(matrix(x))
    return q.reshape(x.shape), e.reshape(x.shape[:-1])


@partial(spread, lightness=4)
def _quantize_rows(x):
    q, exponents = np.empty(x.shape, np.int8), np.empty(x.shape[0], np.int32)
    for i in prange(x.shape[0]):
        maximum = np.int32(0)
        for k in range(x.shape[1]):
            maximum = max(maximum, abs(np.int32(x[i, k])))
        e = max(integers.bit_length(maximum) - 7, 0)
        half = np.int32((1 << e) >> 1)
        for k in range(x.shape[1]):
            q[i, k] = max(min((np.int32(x[i, k]) + half) >> e, np.int32(127)), np.int32(-127))
        exponents[i] = e
    return q, exponents


@implements(ops.requantize)
def requantize(x, *, shift):
    return _requantize(np.ascontiguousarray(x).reshape(-1), shift).reshape(x.shape)


@partial(spread, lightness=8)
def _requantize(x, shift):
    q = np.empty(x.shape, np.int8)
    for i in prange(x.size):
        q[i] = integers.saturate(integers.shift_round(np.int64(x[i]), shift), 8)
    return q


@implements(ops.ternary_linear)
def ternary_linear(q, e, w, *, num, shift):
    rows, exponents = matrix(q), np.ascontiguousarray(e).reshape(-1)
    if len(rows) <= FEW_ROWS:
        y = _few_rows(planes(rows), rows.sum(1, np.int64), exponents, np.ascontiguousarray(w), num, shift)
    else:
        y = _many_rows(offset_words(rows), exponents, np.ascontiguousarray(w), num, shift)
    return y.reshape(*q.shape[:-1], w.shape[0])


@njit(inline="always")
def scale(accumulator, e, num, shift):
    return integers.saturate(integers.shift_round((accumulator * num) << e, shift), 16)


def offset_words(q):
    """Return the rows as words of unsigned bytes, 128 more than q; one or more rows that are 128 follow."""
    bytes_ = np.full(((len(q) // ROWS + 1) * ROWS, -(-q.shape[1] // 4) * 4), OFFSET, np.uint8)
    np.bitwise_xor(q.view(np.uint8), OFFSET, out=bytes_[: len(q), : q.shape[1]])
    return bytes_.view(np.int32)


@njit(inline="always")
def digits_of(byte):
    """Return the four digits of a byte as a word of bytes."""
    wide = np.int32(byte)
    codes = np.int32((wide | (wide << 6) | (wide << 12) | (wide << 18)) & 0x03030303)
    return np.int32(codes | np.int32((codes & 0x02020202) * 126))


@partial(spread, lightness=1 / 8)
def _many_rows(q, exponents, w, num, shift):
    rows, N = exponents.size, w.shape[0]
    y = np.empty((rows, N), np.int16)
    for task in prange((N + LANES - 1) // LANES):
        first = task * LANES
        columns = min(N - first, LANES)
        panel, block = np.zeros((w.shape[1], LANES), np.int32), np.empty((ROWS, LANES), np.int32)
        for n in range(columns):
            for j in range(w.shape[1]):
                panel[j, n] = digits_of(w[first + n, j])
        # The last row is 128 in all its bytes: its sums are what the others have too much.
        multiply_bytes(block, q[len(q) - ROWS :], panel)
        excess = block[ROWS - 1].copy()
        for start in range(0, rows, ROWS):
            multiply_bytes(block, q[start : start + ROWS], panel)
            for row in range(start, min(start + ROWS, rows)):
                if columns == LANES:
                    factor = np.int64(num) << exponents[row]
                    round_lanes(y, row, first, block, row - start, excess, factor, (1 << shift) >> 1, shift)
                    continue
                for n in range(columns):
                    total = np.int64(block[row - start, n]) - excess[n]
                    y[row, first + n] = scale(total, exponents[row], num, shift)
    return y


def planes(q):
    """Return the rows as int8 [rows, 4, bytes]: plane i has the elements that bits 2i of the bytes meet, then zeros."""
    bytes_ = -(-q.shape[1] // 4)
    values = np.zeros((q.shape[0], 4, -(-bytes_ // VECTOR) * VECTOR), np.int8)
    for i in range(4):
        part = q[:, i::4]
        values[:, i, : part.shape[1]] = part
    return values


@partial(spread, lightness=16)
def _few_rows(q, row_sums, exponents, w, num, shift):
    y = np.empty((q.shape[0], w.shape[0]), np.int16)
    (count, bytes_), read = w.shape, q.shape[2]
    # Whole vectors reach into the next rows, where the values are zeros; the last rows have too few such.
    inside = (w.size - read) // max(bytes_, 1) - (ROWS - 1)
    for task in prange((count + TASK - 1) // TASK):
        last, block = np.zeros((ROWS, read), np.uint8), np.empty(ROWS, np.int32)
        for first in range(task * TASK, min((task + 1) * TASK, count), ROWS):
            size = min(ROWS, count - first)
            rows, start = w, first
            if first > inside:
                last[:size, :bytes_] = w[first : first + ROWS]
                rows, start = last, 0
            for i in range(q.shape[0]):
                # A code with its high bit turned is its digit plus 2: unsigned, as one operand of a product has to be.
                sum_digits(block, rows, start, q[i])
                for n in range(size):
                    y[i, first + n] = scale(np.int64(block[n]) - 2 * row_sums[i], exponents[i], num, shift)
    return y


@implements(ops.ternary_linear_requant)
def ternary_linear_requant(q, e, w, *, num, shift):
    return quantize_rows.kernel(ternary_linear.kernel(q, e, w, num=num, shift=shift))


__all__ = ["quantize_rows", "requantize", "ternary_linear", "ternary_linear_requant"]
