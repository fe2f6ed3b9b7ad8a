"""Numba twins of ``spec.ops.loss_backward``."""

import numpy as np
from numba import njit, prange

from .. import ops, philox
from ..contract import implements
from ..ops.loss_backward import CERTAIN, FRACTION_BITS
from . import integers
from .linear import matrix
from .loss import maximum, pow2_weight
from .philox import philox_words
from .threads import spread

DOMAIN, ONE = np.uint64(philox.ROUNDING_DOMAIN), np.uint64(1)


@implements(ops.cross_entropy_pow2_backward)
def cross_entropy_pow2_backward(logits, target, *, f, seed, step, stream, first):
    words = (np.uint64(word) for word in (step, stream, seed & philox.MASK, seed >> 32))
    rows = matrix(logits)
    return _backward(rows, np.ascontiguousarray(target).reshape(-1), f, first, *words).reshape(logits.shape)


@njit(inline="always")
def probability(weight, noise, total):
    """Return a weight's share of a total as a whole number of FRACTION_BITS, rounded by noise of 31 bits."""
    # Below 2**15 the rounding of a float64 quotient is finer than its distance to the next integer.
    return np.int64(((weight << FRACTION_BITS) + ((noise * total) >> 31)) / total)


@spread
def _backward(logits, target, f, first, step, stream, key0, key1):
    V = logits.shape[1]
    blocks = (V + 3) // 4
    dlogits = np.empty(logits.shape, np.int16)
    for row in prange(logits.shape[0]):
        best, total = maximum(logits[row]), np.int64(0)
        weights, noise = np.empty(V, np.int64), np.empty(4 * blocks, np.int64)
        for n in range(V):
            weights[n] = pow2_weight(best - logits[row, n], f)
        for n in range(V):
            total += weights[n]
        for block in range(blocks):
            counter = np.uint64((first + row) * blocks + block)
            w0, w1, w2, w3 = philox_words(counter, step, stream, DOMAIN, key0, key1)
            noise[4 * block] = np.int64(w0 >> ONE)
            noise[4 * block + 1] = np.int64(w1 >> ONE)
            noise[4 * block + 2] = np.int64(w2 >> ONE)
            noise[4 * block + 3] = np.int64(w3 >> ONE)
        for n in range(V):
            dlogits[row, n] = integers.saturate(probability(weights[n], noise[n], total), 16)
        n = target[row]
        dlogits[row, n] = integers.saturate(probability(weights[n], noise[n], total) - CERTAIN, 16)
    return dlogits


__all__ = ["cross_entropy_pow2_backward"]
