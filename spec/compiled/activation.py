"""Numba twins of ``spec.ops.activation``."""

import math
from functools import partial

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from . import integers
from .threads import spread


@njit(inline="always")
def root(v):
    """Largest r with r*r <= v for 0 <= v < 2**32: the float64 root of an integer below 2**52 has that floor."""
    return np.int64(math.sqrt(np.float64(v)))


@implements(ops.squareplus)
def squareplus(x, *, f, offset):
    return _squareplus(np.ascontiguousarray(x).reshape(-1), f, offset).reshape(x.shape)


@partial(spread, lightness=2)
def _squareplus(x, f, offset):
    y = np.empty_like(x)
    for i in prange(x.size):
        wide = np.int64(x[i])
        total = wide + root(wide * wide + (4 << (2 * f)))
        y[i] = integers.saturate((total >> 1) - offset, 16)
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


@implements(ops.silu_gate)
def silu_gate(x, z, *, f):
    flat_x, flat_z = (np.ascontiguousarray(a).reshape(-1) for a in (x, z))
    return _silu_gate(flat_x, flat_z, f).reshape(x.shape)


@partial(spread, lightness=2)
def _silu_gate(x, z, f):
    y = np.empty_like(x)
    for i in prange(x.size):
        wide = np.int64(z[i])
        y[i] = integers.saturate(integers.shift_round(x[i] * (wide * sigmoid(wide, f)), 15 + f), 16)
    return y


__all__ = ["algebraic_sigmoid", "sigmoid_gate", "silu_gate", "squareplus"]
