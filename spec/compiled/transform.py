"""Numba twins of ``spec.ops.transform``: one row per thread, in place."""

import numpy as np
from numba import prange

from .. import ops
from ..contract import implements
from ..tables import eighth_turn
from .rotation import FORWARD, INVERSE, shears, turn
from .threads import spread


@implements(ops.dyadic_transform)
def dyadic_transform(x, lam, gam, quadrant, *, s):
    return transform(_forward, x, lam, gam, quadrant, s)


@implements(ops.dyadic_transform_inverse)
def dyadic_transform_inverse(x, lam, gam, quadrant, *, s):
    return transform(_inverse, x, lam, gam, quadrant, s)


def transform(rows, x, lam, gam, quadrant, s):
    n = x.shape[-2]
    order = np.zeros(1, np.int64)
    while len(order) < n:
        order = np.concatenate([2 * order, 2 * order + 1])
    flat = np.ascontiguousarray(x).reshape(x.size // (2 * n), n, 2)
    twiddles = (np.ascontiguousarray(a) for a in (lam, gam, quadrant))
    return rows(flat, order, *twiddles, *eighth_turn(s), s).reshape(x.shape)


@spread
def _forward(x, order, lam, gam, quadrant, eighth_lam, eighth_gam, s):
    y = np.empty_like(x)
    n = len(order)
    for row in prange(len(x)):
        z = x[row][order].astype(np.int64)
        half = 1
        while half < n:
            for i in range(n // 2):
                k = i % half
                a = 2 * (i - k) + k
                b, w = a + half, k * (n // (2 * half))
                re, im = turn(z[b, 0], z[b, 1], lam[w], gam[w], quadrant[w], s, FORWARD)
                z[a, 0], re = shears(z[a, 0], re, eighth_lam, eighth_gam, s, FORWARD)
                z[a, 1], im = shears(z[a, 1], im, eighth_lam, eighth_gam, s, FORWARD)
                z[b, 0], z[b, 1] = -re, -im
            half *= 2
        y[row] = z
    return y


@spread
def _inverse(x, order, lam, gam, quadrant, eighth_lam, eighth_gam, s):
    y = np.empty_like(x)
    n = len(order)
    for row in prange(len(x)):
        z = x[row].astype(np.int64)
        half = n // 2
        while half >= 1:
            for i in range(n // 2):
                k = i % half
                a = 2 * (i - k) + k
                b, w = a + half, k * (n // (2 * half))
                z[a, 0], re = shears(z[a, 0], -z[b, 0], eighth_lam, eighth_gam, s, INVERSE)
                z[a, 1], im = shears(z[a, 1], -z[b, 1], eighth_lam, eighth_gam, s, INVERSE)
                z[b, 0], z[b, 1] = turn(re, im, lam[w], gam[w], quadrant[w], s, INVERSE)
            half //= 2
        y[row] = z[order]
    return y


__all__ = ["dyadic_transform", "dyadic_transform_inverse"]
