"""Numba twins of ``spec.ops.norm``."""

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from ..ops.norm import MEAN_SQUARE_BITS
from . import integers
from .linear import quantize_rows
from .threads import spread


@njit(inline="always")
def scale_exponent(square_sum, D):
    k = 0
    while square_sum > D << (2 * k):
        k += 1
    return k


@njit(inline="always")
def scale_mantissa(square_sum, D, k, b):
    if b == 0:
        return 1
    cut = max(k - MEAN_SQUARE_BITS // 2, 0)
    mean_square = square_sum >> (2 * cut)
    target = D << (2 * (k - cut) + 2 * b + 2)
    root = 0
    for bit in range(b + 1, -1, -1):
        trial = root + (1 << bit)
        if trial * trial * mean_square <= target:
            root = trial
    return (root + 1) >> 1


@implements(ops.bitshift_norm)
def bitshift_norm(x, gamma, *, b, s):
    D = x.shape[-1]
    rows = np.ascontiguousarray(x).reshape(-1, D)
    return _bitshift_norm(rows, np.ascontiguousarray(gamma), b, s).reshape(x.shape)


@spread
def _bitshift_norm(x, gamma, b, s):
    rows, D = x.shape
    y = np.empty((rows, D), np.int16)
    for row in prange(rows):
        total = 0
        for i in range(D):
            total += np.int64(x[row, i])
        mean = total // D
        square_sum = 0
        for i in range(D):
            centred = x[row, i] - mean
            square_sum += centred * centred
        k = scale_exponent(square_sum, D)
        m = scale_mantissa(square_sum, D, k, b)
        for i in range(D):
            scaled = (x[row, i] - mean) * m
            y[row, i] = integers.saturate(integers.shift_round(scaled * gamma[i], k + b + s), 16)
    return y


@implements(ops.norm_quantize)
def norm_quantize(x, gamma, *, b, s):
    return quantize_rows.kernel(bitshift_norm.kernel(x, gamma, b=b, s=s))


__all__ = ["bitshift_norm", "norm_quantize"]
