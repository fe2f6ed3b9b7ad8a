"""Numba twins of ``spec.ops.rotation``."""

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from .threads import spread

FORWARD, INVERSE = 1, -1


@njit(inline="always")
def quarter_turns(x, y, quadrant):
    if quadrant == 1:
        return -y, x
    if quadrant == 2:
        return -x, -y
    if quadrant == 3:
        return y, -x
    return x, y


@njit(inline="always")
def shears(x, y, lam, gam, s, direction):
    x += direction * ((y * lam) >> s)
    y += direction * ((x * gam) >> s)
    x += direction * ((y * lam) >> s)
    return x, y


@njit(inline="always")
def turn(x, y, lam, gam, quadrant, s, direction):
    if direction == FORWARD:
        x, y = quarter_turns(x, y, quadrant)
    x, y = shears(x, y, np.int64(lam), np.int64(gam), s, direction)
    if direction == INVERSE:
        x, y = quarter_turns(x, y, (4 - quadrant) & 3)
    return x, y


def turn_pairs(x, lam, gam, quadrant, s, direction):
    """Turn the pairs of x; the coefficients repeat from the innermost pair outwards."""
    pairs = np.ascontiguousarray(x).reshape(-1, 2)
    lam, gam, quadrant = (np.ascontiguousarray(a).reshape(-1) for a in (lam, gam, quadrant))
    return _turn_pairs(pairs, lam, gam, quadrant, s, direction).reshape(x.shape)


@spread
def _turn_pairs(pairs, lam, gam, quadrant, s, direction):
    y = np.empty(pairs.shape, np.int32)
    for i in prange(len(pairs)):
        k = i % len(lam)
        y[i, 0], y[i, 1] = turn(np.int64(pairs[i, 0]), np.int64(pairs[i, 1]), lam[k], gam[k], quadrant[k], s, direction)
    return y


@implements(ops.dyadic_rotate)
def dyadic_rotate(x, lam, gam, quadrant, *, s):
    return turn_pairs(x, lam, gam, quadrant, s, FORWARD)


@implements(ops.dyadic_rotate_inverse)
def dyadic_rotate_inverse(x, lam, gam, quadrant, *, s):
    return turn_pairs(x, lam, gam, quadrant, s, INVERSE)


@implements(ops.rope)
def rope(x, lam, gam, quadrant, *, s):
    return turn_pairs(x, lam, gam, quadrant, s, FORWARD)


@implements(ops.rope_inverse)
def rope_inverse(x, lam, gam, quadrant, *, s):
    return turn_pairs(x, lam, gam, quadrant, s, INVERSE)


__all__ = ["dyadic_rotate", "dyadic_rotate_inverse", "rope", "rope_inverse"]
