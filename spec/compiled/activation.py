"""Numba twins of ``spec.ops.activation``."""

import math

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from . import integers
from .threads import spread


@implements(ops.squareplus)
def squareplus(x, *, f):
    return _squareplus(np.ascontiguousarray(x).reshape(-1), f).reshape(x.shape)


@spread
def _squareplus(x, f):
    y = np.empty_like(x)
    for i in prange(x.size):
        wide = np.int64(x[i])
        total = wide + integers.isqrt(wide * wide + (4 << (2 * f)))
        y[i] = integers.saturate(total >> 1, 16)
    return y


@implements(ops.algebraic_sigmoid)
def algebraic_sigmoid(z, *, f):
    return _algebraic_sigmoid(np.ascontiguousarray(z).reshape(-1), f).reshape(z.shape)


@njit(inline="always")
def sigmoid(z, f):
    # The float64 quotient has the exact floor: it is off by less than 2**-37, and a quotient that is no integer is at
    # least 2**-16 from one, for the denominator is below 2**16. Hardware divides floats in lanes, integers one by one.
    return (1 << 14) + np.int64(math.floor(np.float64(z << 14) / np.float64((1 << f) + abs(z))))


@spread
def _algebraic_sigmoid(z, f):
    y = np.empty_like(z)
    for i in prange(z.size):
        y[i] = sigmoid(np.int64(z[i]), f)
    return y


@implements(ops.sigmoid_gate)
def sigmoid_gate(x, z, *, f):
    flat_x, flat_z = (np.ascontiguousarray(a).reshape(-1) for a in (x, z))
    return _sigmoid_gate(flat_x, flat_z, f).reshape(x.shape)


@spread
def _sigmoid_gate(x, z, f):
    y = np.empty_like(x)
    for i in prange(x.size):
        y[i] = integers.shift_round(np.int64(x[i]) * sigmoid(np.int64(z[i]), f), 15)
    return y


__all__ = ["algebraic_sigmoid", "sigmoid_gate", "squareplus"]
