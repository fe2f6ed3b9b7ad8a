"""Numba twins of ``spec.ops.loss``."""

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from ..ops.loss import CURVE, ONE, SLOPE
from . import integers
from .threads import spread


@njit(inline="always")
def pow2_weight(d, f):
    fraction = d & ((1 << f) - 1)
    mantissa = ONE - ((SLOPE * fraction) >> f) + ((CURVE * fraction * fraction) >> (2 * f))
    return mantissa >> min(d >> f, 31)


@njit(inline="always")
def maximum(logits):
    best = logits[0]
    for i in range(1, logits.size):
        best = max(best, logits[i])
    return np.int64(best)


@njit(inline="always")
def weight_sum(logits, f):
    best, total = maximum(logits), 0
    for i in range(logits.size):
        total += pow2_weight(best - logits[i], f)
    return total


@implements(ops.softmax_pow2)
def softmax_pow2(logits, *, f, q):
    rows = np.ascontiguousarray(logits).reshape(-1, logits.shape[-1])
    return _softmax_pow2(rows, f, q).reshape(logits.shape)


@spread
def _softmax_pow2(logits, f, q):
    p = np.empty(logits.shape, np.int32)
    for row in prange(logits.shape[0]):
        best, total = maximum(logits[row]), weight_sum(logits[row], f)
        for i in range(logits.shape[1]):
            p[row, i] = ((pow2_weight(best - logits[row, i], f) << q) + (total >> 1)) // total
    return p


@njit(inline="always")
def log2_q16(total):
    log = integers.bit_length(total) - 1
    mantissa = (total << 14) >> (log - 16)
    for _ in range(16):
        square = (mantissa * mantissa) >> 30
        bit = square >> 31
        mantissa = square >> bit
        log = (log << 1) + bit
    return log


@implements(ops.cross_entropy_pow2)
def cross_entropy_pow2(logits, target, *, f):
    rows = np.ascontiguousarray(logits).reshape(-1, logits.shape[-1])
    return _cross_entropy_pow2(rows, np.ascontiguousarray(target).reshape(-1), f).reshape(target.shape)


@spread
def _cross_entropy_pow2(logits, target, f):
    loss = np.empty(target.shape, np.int32)
    for row in prange(target.size):
        distance = maximum(logits[row]) - logits[row, target[row]]
        bits = (distance << (16 - f)) + log2_q16(weight_sum(logits[row], f)) - (16 << 16)
        loss[row] = integers.saturate(bits, 32)
    return loss


__all__ = ["cross_entropy_pow2", "softmax_pow2"]
