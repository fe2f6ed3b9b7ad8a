"""Numba twins of ``spec.ops.activation_backward``."""

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from . import integers
from .activation import root
from .threads import spread


@njit(inline="always")
def ratio(a, b):
    """Floor of a / b for 0 <= a < 2**31 and 0 < b < 2**17.

    The float64 quotient has that floor: it is off by less than 2**-21, and one that is no integer is at least 2**-17
    from the next. Hardware divides floats in lanes, integers one by one.
    """
    return np.int64(np.float64(a) / np.float64(b))


@implements(ops.squareplus_backward)
def squareplus_backward(dy, x, *, f, offset):
    flat_dy, flat_x = (np.ascontiguousarray(a).reshape(-1) for a in (dy, x))
    return _squareplus_backward(flat_dy, flat_x, f, offset).reshape(x.shape)


@spread
def _squareplus_backward(dy, x, f, offset):
    dx = np.empty(x.size, np.int32)
    for i in prange(x.size):
        wide = np.int64(x[i])
        r = root(wide * wide + (4 << (2 * f)))
        total = wide + r
        slope = ratio((total << 14) + (r >> 1), r) if (total >> 1) - offset < 32768 else 0
        dx[i] = integers.shift_round(dy[i] * slope, 15)
    return dx


@njit(inline="always")
def inverse_of(z, f):
    denominator = (1 << f) + abs(z)
    return ratio((1 << (f + 15)) + (denominator >> 1), denominator)


@implements(ops.sigmoid_gate_backward)
def sigmoid_gate_backward(dy, x, z, *, f):
    dx, dz = _sigmoid_gate_backward(*(np.ascontiguousarray(a).reshape(-1) for a in (dy, x, z)), f)
    return dx.reshape(x.shape), dz.reshape(x.shape)


@spread
def _sigmoid_gate_backward(dy, x, z, f):
    dx, dz = np.empty(x.size, np.int32), np.empty(x.size, np.int32)
    for i in prange(x.size):
        gradient, gating = np.int64(dy[i]), np.int64(z[i])
        inverse = inverse_of(gating, f)
        gate = inverse if gating < 0 else 65536 - inverse
        slope = integers.shift_round(inverse * inverse, 14)
        dx[i] = integers.shift_round(gradient * gate, 16)
        dz[i] = integers.saturate(integers.shift_round(gradient * x[i] * slope, 17 + f), 32)
    return dx, dz


@implements(ops.silu_gate_backward)
def silu_gate_backward(dy, x, z, *, f):
    dx, dz = _silu_gate_backward(*(np.ascontiguousarray(a).reshape(-1) for a in (dy, x, z)), f)
    return dx.reshape(x.shape), dz.reshape(x.shape)


@spread
def _silu_gate_backward(dy, x, z, f):
    dx, dz = np.empty(x.size, np.int32), np.empty(x.size, np.int32)
    for i in prange(x.size):
        gradient, gating = np.int64(dy[i]), np.int64(z[i])
        inverse = inverse_of(gating, f)
        half_square = integers.shift_round(inverse * inverse, 15)
        gate = inverse if gating < 0 else 65536 - inverse
        slope = half_square if gating < 0 else 65536 - half_square
        dx[i] = integers.saturate(integers.shift_round(gradient * gating * gate, 16 + f), 32)
        dz[i] = integers.saturate(integers.shift_round(gradient * x[i] * slope, 16 + f), 32)
    return dx, dz


__all__ = ["sigmoid_gate_backward", "silu_gate_backward", "squareplus_backward"]
