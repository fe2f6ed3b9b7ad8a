"""Numba twins of ``spec.ops.packing``."""

import numpy as np
from numba import prange

from .. import ops
from ..contract import implements
from .threads import spread


def by_rows(kernel, array, columns, *arguments):
    """Run a kernel on the array as a matrix; the result has ``columns`` in place of the last dimension."""
    matrix = np.ascontiguousarray(array).reshape(int(np.prod(array.shape[:-1])), array.shape[-1])
    return kernel(matrix, columns, *arguments).reshape(*array.shape[:-1], columns)


@implements(ops.pack_ternary)
def pack_ternary(w):
    return by_rows(_pack_ternary, w, -(-w.shape[-1] // 4))


@spread
def _pack_ternary(w, columns):
    packed = np.empty((w.shape[0], columns), np.uint8)
    for i in prange(w.shape[0]):
        for j in range(columns):
            byte = 0
            for k in range(4 * j, min(4 * j + 4, w.shape[1])):
                byte |= (w[i, k] & 3) << (2 * (k & 3))
            packed[i, j] = byte
    return packed


@implements(ops.unpack_ternary)
def unpack_ternary(packed, *, K):
    return by_rows(_unpack_ternary, packed, K)


@spread
def _unpack_ternary(packed, digits):
    w = np.empty((packed.shape[0], digits), np.int8)
    for i in prange(packed.shape[0]):
        for k in range(digits):
            w[i, k] = (((packed[i, k >> 2] >> (2 * (k & 3))) & 3) ^ 2) - 2
    return w


@implements(ops.pack_trits)
def pack_trits(w):
    return by_rows(_pack_trits, w, -(-w.shape[-1] // 5))


@spread
def _pack_trits(w, columns):
    packed = np.empty((w.shape[0], columns), np.uint8)
    for i in prange(w.shape[0]):
        for j in range(columns):
            byte = 0
            for k in range(5 * j + 4, 5 * j - 1, -1):
                byte = 3 * byte + (w[i, k] + 1 if k < w.shape[1] else 1)
            packed[i, j] = byte
    return packed


@implements(ops.unpack_trits)
def unpack_trits(packed, *, K):
    return by_rows(_unpack_trits, packed, K)


@spread
def _unpack_trits(packed, digits):
    w = np.empty((packed.shape[0], digits), np.int8)
    for i in prange(packed.shape[0]):
        for j in range(packed.shape[1]):
            byte = np.int64(packed[i, j])
            for k in range(5 * j, min(5 * j + 5, digits)):
                w[i, k] = byte % 3 - 1
                byte //= 3
    return w


__all__ = ["pack_ternary", "pack_trits", "unpack_ternary", "unpack_trits"]
