"""Philox 4x32-10: the counter-based generator behind sampling, initialisation and stochastic rounding.

J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
A word is a pure function of (key, counter), so any element can be drawn alone, in any order, on any machine.
"""

import numpy as np

ROUNDS = 10
MULTIPLIER_0 = 0xD2511F53
MULTIPLIER_1 = 0xCD9E8D57
WEYL_0 = 0x9E3779B9
WEYL_1 = 0xBB67AE85
MASK = 0xFFFFFFFF


def philox_words(counter, key0, key1):
    """Return the four 32-bit words of each counter.

    Parameters
    ----------
    counter : uint64 array, shape (..., 4)
        Counter words, each below 2**32, least significant first.
    key0, key1 : int
        Key words, each in [0, 2**32).

    Returns
    -------
    uint64 array, shape (..., 4), each word below 2**32.
    """
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    for _ in range(ROUNDS):
        product0 = c0 * np.uint64(MULTIPLIER_0)
        product1 = c2 * np.uint64(MULTIPLIER_1)
        c0, c1, c2, c3 = (
            (product1 >> np.uint64(32)) ^ c1 ^ np.uint64(key0),
            product1 & np.uint64(MASK),
            (product0 >> np.uint64(32)) ^ c3 ^ np.uint64(key1),
            product0 & np.uint64(MASK),
        )
        key0 = (key0 + WEYL_0) & MASK
        key1 = (key1 + WEYL_1) & MASK
    return np.stack([c0, c1, c2, c3], axis=-1)


def random_words(seed: int, stream: int, count: int) -> np.ndarray:
    """Return the first ``count`` 32-bit words (uint64 array) of stream ``stream`` under a 64-bit ``seed``.

    Word i is word ``i % 4`` of counter ``(i // 4, 0, stream mod 2**32, stream div 2**32)``.
    """
    blocks = -(-count // 4)
    counter = np.zeros((blocks, 4), np.uint64)
    counter[:, 0] = np.arange(blocks, dtype=np.uint64)
    counter[:, 2] = stream & MASK
    counter[:, 3] = stream >> 32
    return philox_words(counter, seed & MASK, seed >> 32).reshape(-1)[:count]


# Fourth counter word of the words that round: no other consumer has them under the same seed.
ROUNDING_DOMAIN = 3


def rounding_words(rows: int, columns: int, *, seed: int, step: int, stream: int, first: int) -> np.ndarray:
    """Return the words, uint64 below 2**32, that round a tensor of ``rows`` rows, of which the first is row ``first``.

    Element n of row r has word ``n % 4`` of counter ``(r * ceil(columns / 4) + n // 4, step, stream, 3)``: a row's
    words are its own, however the rows are cut into batches.
    """
    blocks = -(-columns // 4)
    counter = np.zeros((rows * blocks, 4), np.uint64)
    counter[:, 0] = first * blocks + np.arange(rows * blocks)
    counter[:, 1:] = step, stream, ROUNDING_DOMAIN
    return philox_words(counter, seed & MASK, seed >> 32).reshape(rows, 4 * blocks)[:, :columns]
