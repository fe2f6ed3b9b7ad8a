"""Numba twins of ``spec.ops.loss_backward``."""

import numpy as np
from numba import prange

from .. import ops, philox
from ..contract import implements
from ..ops.loss_backward import CERTAIN, FRACTION_BITS
from . import integers
from .linear import matrix
from .loss import maximum, pow2_weight, weight_sum
from .philox import philox_words
from .threads import spread

DOMAIN, ONE = np.uint64(philox.ROUNDING_DOMAIN), np.uint64(1)


@implements(ops.cross_entropy_pow2_backward)
def cross_entropy_pow2_backward(logits, target, *, f, seed, step, stream, first):
    words = (np.uint64(word) for word in (step, stream, seed & philox.MASK, seed >> 32))
    rows = matrix(logits)
    return _backward(rows, np.ascontiguousarray(target).reshape(-1), f, first, *words).reshape(logits.shape)


@spread
def _backward(logits, target, f, first, step, stream, key0, key1):
    V = logits.shape[1]
    blocks = (V + 3) // 4
    dlogits = np.empty(logits.shape, np.int16)
    for row in prange(logits.shape[0]):
        best, total = maximum(logits[row]), weight_sum(logits[row], f)
        for block in range(blocks):
            counter = np.uint64((first + row) * blocks + block)
            words = philox_words(counter, step, stream, DOMAIN, key0, key1)
            for i in range(min(4, V - 4 * block)):
                n = 4 * block + i
                dither = (np.int64(words[i] >> ONE) * total) >> 31
                # Below 2**15 the rounding of a float64 quotient is finer than its distance to the next integer.
                p = np.int64(((pow2_weight(best - logits[row, n], f) << FRACTION_BITS) + dither) / total)
                dlogits[row, n] = integers.saturate(p - CERTAIN if n == target[row] else p, 16)
    return dlogits


__all__ = ["cross_entropy_pow2_backward"]
