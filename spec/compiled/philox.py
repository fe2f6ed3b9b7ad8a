"""Philox 4x32-10 for compiled code: the scalar twin of ``spec.philox``."""

import numpy as np
from numba import njit

from .. import philox
from .cache import compiled

# Typed constants: Numba turns an int64 mixed with a uint64 into a float.
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(philox.MULTIPLIER_0), np.uint64(philox.MULTIPLIER_1)
WEYL_0, WEYL_1 = np.uint64(philox.WEYL_0), np.uint64(philox.WEYL_1)
MASK, HALF = np.uint64(philox.MASK), np.uint64(32)


@njit(inline="always")
def philox_words(c0, c1, c2, c3, key0, key1):
    """Return the four words of one counter; words and keys are uint64 below 2**32."""
    for _ in range(philox.ROUNDS):
        product0 = c0 * MULTIPLIER_0
        product1 = c2 * MULTIPLIER_1
        c0, c1, c2, c3 = (
            (product1 >> HALF) ^ c1 ^ key0,
            product1 & MASK,
            (product0 >> HALF) ^ c3 ^ key1,
            product0 & MASK,
        )
        key0 = (key0 + WEYL_0) & MASK
        key1 = (key1 + WEYL_1) & MASK
    return c0, c1, c2, c3


def random_words(seed: int, stream: int, count: int) -> np.ndarray:
    """Return the words of ``spec.philox.random_words``."""
    keys = np.uint64(seed & philox.MASK), np.uint64(seed >> 32)
    words = np.empty((-(-count // 4), 4), np.uint64)
    _stream_words(words, np.uint64(stream & philox.MASK), np.uint64(stream >> 32), *keys)
    return words.reshape(-1)[:count]


@compiled
def _stream_words(words, c2, c3, key0, key1):
    for i in range(words.shape[0]):
        block = philox_words(np.uint64(i), np.uint64(0), c2, c3, key0, key1)
        words[i, 0], words[i, 1], words[i, 2], words[i, 3] = block
