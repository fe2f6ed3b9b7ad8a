"""``spec.ops.packing`` on unbounded integers."""

import numpy as np

from .integers import elementwise
from .observe import see

CODES = {0: 0b00, 1: 0b01, -1: 0b11}


def rows(array):
    """Yield the index of each row and the row as a list of integers."""
    for index in np.ndindex(array.shape[:-1]):
        yield index, [int(v) for v in array[index]]


def pack(w, base, width, code):
    """Return groups of ``width`` digits as the integer with these digits in the given base, lowest first."""
    packed = np.empty((*w.shape[:-1], -(-w.shape[-1] // width)), np.uint8)
    for index, digits in rows(w):
        digits += [0] * (-len(digits) % width)
        for j in range(0, len(digits), width):
            codes = [code(d) for d in digits[j : j + width]]
            packed[(*index, j // width)] = see("packed", sum(c * base**i for i, c in enumerate(codes)))
    return packed


def unpack(packed, count, base, width, digit):
    w = np.empty((*packed.shape[:-1], count), np.int8)
    for index, values in rows(packed):
        for k in range(count):
            w[(*index, k)] = digit(values[k // width] // base ** (k % width) % base)
    return w


def pack_ternary(w):
    return pack(w, 4, 4, CODES.__getitem__)


def ternary_digits(packed, count):
    return unpack(packed, count, 4, 4, {code: digit for digit, code in CODES.items()}.__getitem__)


def unpack_ternary(packed, *, K):
    return elementwise(lambda digit: see("w", digit), "int8", ternary_digits(packed, K))


def pack_trits(w):
    return pack(w, 3, 5, lambda digit: digit + 1)


def unpack_trits(packed, *, K):
    return elementwise(lambda digit: see("w", digit), "int8", unpack(packed, K, 3, 5, lambda code: code - 1))


__all__ = ["pack_ternary", "pack_trits", "unpack_ternary", "unpack_trits"]
