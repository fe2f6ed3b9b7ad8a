"""Numba twins of ``spec.ops.sampling``."""

import numpy as np
from numba import njit, prange

from .. import ops, philox
from ..contract import implements
from ..ops.loss import FARTHEST
from ..ops.sampling import SAMPLING_DOMAIN
from . import integers
from .loss import maximum, pow2_weight
from .philox import philox_words
from .threads import spread


@implements(ops.argmax)
def argmax(logits):
    return _argmax(np.ascontiguousarray(logits).reshape(-1, logits.shape[-1])).reshape(logits.shape[:-1])


@spread
def _argmax(logits):
    token = np.empty(logits.shape[0], np.int32)
    for row in prange(logits.shape[0]):
        best = 0
        for i in range(1, logits.shape[1]):
            if logits[row, i] > logits[row, best]:
                best = i
        token[row] = best
    return token


@implements(ops.philox4x32)
def philox4x32(counter, *, key0, key1):
    counters = np.ascontiguousarray(counter).view(np.uint32).reshape(-1, 4)
    return _philox4x32(counters, np.uint64(key0), np.uint64(key1)).view(np.int32).reshape(counter.shape)


@spread
def _philox4x32(counter, key0, key1):
    words = np.empty_like(counter)
    for i in prange(counter.shape[0]):
        c = counter[i].astype(np.uint64)
        words[i, 0], words[i, 1], words[i, 2], words[i, 3] = philox_words(c[0], c[1], c[2], c[3], key0, key1)
    return words


@implements(ops.sample)
def sample(logits, stream, position, *, seed, f, num, shift, top_k, top_p):
    key0, key1 = np.uint64(seed & philox.MASK), np.uint64(seed >> 32)
    rows = (np.ascontiguousarray(a) for a in (logits, stream, position))
    return _sample(*rows, key0, key1, f, num, shift, top_k, top_p)


@spread
def _sample(logits, stream, position, key0, key1, f, num, shift, top_k, top_p):
    token = np.empty(logits.shape[0], np.int32)
    for row in prange(logits.shape[0]):
        c0, c2 = np.uint64(position[row]), np.uint64(stream[row])
        words = philox_words(c0, np.uint64(0), c2, np.uint64(SAMPLING_DOMAIN), key0, key1)
        token[row] = draw(logits[row], np.int64(words[0] >> np.uint64(1)), f, num, shift, top_k, top_p)
    return token


@njit(inline="always")
def weight_at(distance, f, num, shift):
    return pow2_weight(integers.shift_round(distance * num, shift), f)


@njit
def draw(logits, word, f, num, shift, top_k, top_p):
    """Return the token of one row without a sort: tokens of equal distance weigh the same, so it counts them."""
    best = maximum(logits)
    count = np.zeros(FARTHEST + 1, np.int64)
    for i in range(logits.size):
        count[best - logits[i]] += 1

    total, left, d = 0, min(top_k, logits.size), 0
    while left > 0:
        count[d] = min(count[d], left)
        left -= count[d]
        total += count[d] * weight_at(d, f, num, shift)
        d += 1

    # The nucleus: every token nearer than d, and the first `last` tokens at d.
    target = (top_p * total + 65535) >> 16
    kept, d = 0, 0
    while kept + count[d] * weight_at(d, f, num, shift) < target:
        kept += count[d] * weight_at(d, f, num, shift)
        d += 1
    weight = weight_at(d, f, num, shift)
    last = (target - kept + weight - 1) // weight
    kept += last * weight

    u = (word * kept) >> 31
    running, token = 0, -1
    while running <= u:
        token += 1
        distance = best - logits[token]
        if distance < d:
            running += weight_at(distance, f, num, shift)
        elif distance == d and last > 0:
            last -= 1
            running += weight
    return token


__all__ = ["argmax", "philox4x32", "sample"]
