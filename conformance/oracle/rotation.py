"""``spec.ops.rotation`` on unbounded integers: a point at a time, the inverse by undoing each step."""

import numpy as np

from .observe import see


def step(value, other, factor, s, sign, name, product):
    return see(name, value + sign * (see(product, other * factor) // 2**s))


def quarter_turn(x, y):
    return -y, x


def shears(x, y, lam, gam, s, sign):
    x = step(x, y, lam, s, sign, "x1", "product1")
    y = step(y, x, gam, s, sign, "y1", "product2")
    return step(x, y, lam, s, sign, "x2", "product3"), y


def rotate(x, y, lam, gam, quadrant, s):
    for _ in range(quadrant):
        x, y = quarter_turn(x, y)
    return shears(x, y, lam, gam, s, 1)


def rotate_back(x, y, lam, gam, quadrant, s):
    x, y = shears(x, y, lam, gam, s, -1)
    for _ in range(-quadrant % 4):
        x, y = quarter_turn(x, y)
    return x, y


def over_pairs(point, x, lam, gam, quadrant, s):
    y = np.empty(x.shape, "int32")
    for place in np.ndindex(x.shape[:-1]):
        i = place[-1]
        turn = (int(lam[i]), int(gam[i]), int(quadrant[i]))
        y[place] = point(int(x[place][0]), int(x[place][1]), *turn, s)
    return y


def over_channels(point, x, lam, gam, quadrant, s):
    y = np.empty(x.shape, "int32")
    for b, position, channel in np.ndindex(x.shape):
        i = channel // 2
        turn = (int(a[position, i]) for a in (lam, gam, quadrant))
        y[b, position, channel] = point(*(int(v) for v in x[b, position, 2 * i : 2 * i + 2]), *turn, s)[channel % 2]
    return y


def dyadic_rotate(x, lam, gam, quadrant, *, s):
    return over_pairs(rotate, x, lam, gam, quadrant, s)


def dyadic_rotate_inverse(x, lam, gam, quadrant, *, s):
    return over_pairs(rotate_back, x, lam, gam, quadrant, s)


def rope(x, lam, gam, quadrant, *, s):
    return over_channels(rotate, x, lam, gam, quadrant, s)


def rope_inverse(x, lam, gam, quadrant, *, s):
    return over_channels(rotate_back, x, lam, gam, quadrant, s)


__all__ = ["dyadic_rotate", "dyadic_rotate_inverse", "rope", "rope_inverse"]
