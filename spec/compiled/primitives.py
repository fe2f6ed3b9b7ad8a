"""Numba twins of ``spec.ops.primitives``."""

import numpy as np
from numba import prange

from .. import ops
from ..contract import implements
from . import integers
from .threads import spread


@implements(ops.shift_round)
def shift_round(x, *, s):
    return _shift_round(np.ascontiguousarray(x).reshape(-1), s).reshape(x.shape)


@spread
def _shift_round(x, s):
    y = np.empty_like(x)
    for i in prange(x.size):
        y[i] = integers.shift_round(np.int64(x[i]), s)
    return y


@implements(ops.saturate)
def saturate(x, *, bits):
    return _saturate(np.ascontiguousarray(x).reshape(-1), bits).reshape(x.shape)


@spread
def _saturate(x, bits):
    y = np.empty_like(x)
    for i in prange(x.size):
        y[i] = integers.saturate(np.int64(x[i]), bits)
    return y


@implements(ops.bit_length)
def bit_length(x):
    return _bit_length(np.ascontiguousarray(x).reshape(-1)).reshape(x.shape)


@spread
def _bit_length(x):
    y = np.empty_like(x)
    for i in prange(x.size):
        y[i] = integers.bit_length(np.int64(x[i]))
    return y


@implements(ops.isqrt)
def isqrt(v):
    return _isqrt(np.ascontiguousarray(v).reshape(-1)).reshape(v.shape)


@spread
def _isqrt(v):
    r = np.empty_like(v)
    for i in prange(v.size):
        r[i] = integers.isqrt(np.int64(v[i]))
    return r


__all__ = ["bit_length", "isqrt", "saturate", "shift_round"]
