"""Numba twins of ``spec.ops.gradient``."""

from functools import partial

import numpy as np
from numba import prange

from .. import ops, philox
from ..contract import implements
from . import integers
from .linear import matrix
from .philox import philox_words
from .threads import spread

DOMAIN = np.uint64(philox.ROUNDING_DOMAIN)
# Elements of a reduction that one thread takes at a time.
CHUNK = 1 << 14


@implements(ops.saturating_add)
def saturating_add(a, b):
    return _saturating_add(*(np.ascontiguousarray(x).reshape(-1) for x in (a, b))).reshape(a.shape)


@partial(spread, lightness=8)
def _saturating_add(a, b):
    y = np.empty_like(a)
    for i in prange(a.size):
        y[i] = integers.saturate(np.int32(a[i]) + np.int32(b[i]), 16)
    return y


@implements(ops.gradient_add)
def gradient_add(a, b):
    return _gradient_add(*(np.ascontiguousarray(x).reshape(-1) for x in (a, b))).reshape(a.shape)


@partial(spread, lightness=8)
def _gradient_add(a, b):
    y = np.empty_like(a)
    for i in prange(a.size):
        y[i] = a[i] + b[i]
    return y


@implements(ops.largest_magnitude)
def largest_magnitude(x):
    return _largest_magnitude(np.ascontiguousarray(x).reshape(-1)).max(initial=0).reshape(1)


@partial(spread, lightness=32)
def _largest_magnitude(x):
    largest = np.zeros((x.size + CHUNK - 1) // CHUNK, np.int64)
    for chunk in prange(largest.size):
        part = x[chunk * CHUNK : (chunk + 1) * CHUNK]
        # The least and the greatest in the array's own type, which min and max would widen: many to a register.
        low, high = part[0], part[0]
        for i in range(part.size):
            value = part[i]
            low = value if value < low else low
            high = value if value > high else high
        largest[chunk] = max(np.int64(high), -np.int64(low))
    return largest


@implements(ops.round_to_int16)
def round_to_int16(x, *, shift):
    return _round_to_int16(np.ascontiguousarray(x).reshape(-1), shift).reshape(x.shape)


@partial(spread, lightness=8)
def _round_to_int16(x, shift):
    y = np.empty(x.shape, np.int16)
    for i in prange(x.size):
        y[i] = integers.saturate(integers.shift_even(np.int64(x[i]), shift), 16)
    return y


@implements(ops.saturate_backward)
def saturate_backward(dy, y, *, shift):
    flat = (np.ascontiguousarray(a).reshape(-1) for a in (dy, y))
    return _saturate_backward(*flat, np.iinfo(y.dtype).max, shift).reshape(dy.shape)


@partial(spread, lightness=4)
def _saturate_backward(dy, y, limit, shift):
    dx = np.empty(dy.size, np.int16)
    for i in prange(dy.size):
        e = integers.saturate(integers.shift_even(np.int64(dy[i]), shift), 16)
        dx[i] = max(e, 0) if y[i] == limit else min(e, 0) if y[i] == -limit else e
    return dx


@implements(ops.stochastic_round_rows)
def stochastic_round_rows(x, e, *, shift, bits, seed, step, stream, first):
    words = (np.uint64(word) for word in (step, stream, seed & philox.MASK, seed >> 32))
    rows, exponents = matrix(x), np.ascontiguousarray(e).reshape(-1)
    y = np.empty(rows.shape, np.int8 if bits <= 8 else np.int16)
    _stochastic_round_rows(y, rows, exponents, np.int32(shift), bits, first, *words)
    return y.reshape(x.shape)


@spread
def _stochastic_round_rows(y, x, e, shift, bits, first, step, stream, key0, key1):
    K = x.shape[1]
    blocks = (K + 3) // 4
    mask = np.uint64((1 << shift) - 1)
    limit = np.int32((1 << (bits - 1)) - 1)
    for row in prange(x.shape[0]):
        noise = np.empty(4 * blocks, np.int32)
        for block in range(blocks):
            counter = np.uint64((first + row) * blocks + block)
            w0, w1, w2, w3 = philox_words(counter, step, stream, DOMAIN, key0, key1)
            noise[4 * block] = np.int32(w0 & mask)
            noise[4 * block + 1] = np.int32(w1 & mask)
            noise[4 * block + 2] = np.int32(w2 & mask)
            noise[4 * block + 3] = np.int32(w3 & mask)
        for k in range(K):
            rounded = np.int32((np.int32(x[row, k]) << e[row]) + noise[k]) >> shift
            y[row, k] = max(min(rounded, limit), -limit)


__all__ = [
    "gradient_add",
    "largest_magnitude",
    "round_to_int16",
    "saturate_backward",
    "saturating_add",
    "stochastic_round_rows",
]
