"""Numba twins of ``spec.ops.linear``."""

import numpy as np
from numba import prange

from .. import ops
from ..contract import implements
from . import integers
from .threads import spread


def matrix(array):
    """Return the array as a contiguous matrix of its rows."""
    return np.ascontiguousarray(array).reshape(int(np.prod(array.shape[:-1])), array.shape[-1])


@implements(ops.quantize_rows)
def quantize_rows(x):
    q, e = _quantize_rows(matrix(x))
    return q.reshape(x.shape), e.reshape(x.shape[:-1])


@spread
def _quantize_rows(x):
    q, exponents = np.empty(x.shape, np.int8), np.empty(x.shape[0], np.int32)
    for i in prange(x.shape[0]):
        maximum = np.int32(0)
        for k in range(x.shape[1]):
            maximum = max(maximum, abs(np.int32(x[i, k])))
        e = max(integers.bit_length(maximum) - 7, 0)
        half = (1 << e) >> 1
        for k in range(x.shape[1]):
            q[i, k] = min((np.int32(x[i, k]) + np.int32(half)) >> np.int32(e), np.int32(127))
            q[i, k] = max(q[i, k], np.int8(-127))
        exponents[i] = e
    return q, exponents


@implements(ops.requantize)
def requantize(x, *, shift):
    return _requantize(np.ascontiguousarray(x).reshape(-1), shift).reshape(x.shape)


@spread
def _requantize(x, shift):
    q = np.empty(x.shape, np.int8)
    for i in prange(x.size):
        q[i] = integers.saturate(integers.shift_round(np.int64(x[i]), shift), 8)
    return q


@implements(ops.ternary_linear)
def ternary_linear(q, e, w, *, num, shift):
    y = _ternary_linear(
        matrix(q).astype(np.int16), np.ascontiguousarray(e).reshape(-1), np.ascontiguousarray(w), num, shift
    )
    return y.reshape(*q.shape[:-1], w.shape[0])


@spread
def _ternary_linear(q, exponents, w, num, shift):
    # Both factors are int16, so that the compiler finds the instruction that multiplies and adds pairs of them.
    y = np.empty((q.shape[0], w.shape[0]), np.int16)
    for n in prange(w.shape[0]):
        unpacked = np.empty((w.shape[1], 4), np.int16)
        for j in range(w.shape[1]):
            for i in range(4):
                unpacked[j, i] = (((w[n, j] >> (2 * i)) & 3) ^ 2) - 2
        digits = unpacked.reshape(-1)
        for row in range(q.shape[0]):
            accumulator = np.int32(0)
            for k in range(q.shape[1]):
                accumulator = np.int32(accumulator + np.int32(q[row, k]) * np.int32(digits[k]))
            aligned = (np.int64(accumulator) * num) << exponents[row]
            y[row, n] = integers.saturate(integers.shift_round(aligned, shift), 16)
    return y


@implements(ops.ternary_linear_requant)
def ternary_linear_requant(q, e, w, *, num, shift):
    return quantize_rows.kernel(ternary_linear.kernel(q, e, w, num=num, shift=shift))


__all__ = ["quantize_rows", "requantize", "ternary_linear", "ternary_linear_requant"]
