"""``spec.ops.transform`` on unbounded integers: the transform as its recursion on even and odd points."""

import numpy as np

from mamba_integer.spec.tables import eighth_turn

from .observe import see


def shears(x, y, lam, gam, s, sign):
    def add(value, other, factor):
        return see("coordinate", value + sign * (see("product", other * factor) // 2**s))

    x = add(x, y, lam)
    y = add(y, x, gam)
    return add(x, y, lam), y


def twiddled(point, twiddle, s, sign):
    """Return the complex point turned by a twiddle (sign 1) or back (sign -1)."""
    re, im = point
    lam, gam, quadrant = twiddle
    if sign == 1:
        for _ in range(quadrant):
            re, im = -im, re
    re, im = shears(re, im, lam, gam, s, sign)
    if sign == -1:
        for _ in range(quadrant):
            re, im = im, -re
    return re, im


def combine(a, b, w, s):
    b = twiddled(b, w, s, 1)
    sums = [shears(u, v, *eighth_turn(s), s, 1) for u, v in zip(a, b, strict=True)]
    return [u for u, _ in sums], [-v for _, v in sums]


def part(a, b, w, s):
    parts = [shears(u, -v, *eighth_turn(s), s, -1) for u, v in zip(a, b, strict=True)]
    return [u for u, _ in parts], twiddled([v for _, v in parts], w, s, -1)


def forward(points, w, s):
    if len(points) == 1:
        return points
    even, odd = forward(points[::2], w[::2], s), forward(points[1::2], w[::2], s)
    pairs = [combine(a, b, w[k], s) for k, (a, b) in enumerate(zip(even, odd, strict=True))]
    return [a for a, _ in pairs] + [b for _, b in pairs]


def inverse(points, w, s):
    if len(points) == 1:
        return points
    half = len(points) // 2
    pairs = [part(points[k], points[k + half], w[k], s) for k in range(half)]
    even, odd = inverse([a for a, _ in pairs], w[::2], s), inverse([b for _, b in pairs], w[::2], s)
    return [point for pair in zip(even, odd, strict=True) for point in pair]


def over_rows(function, x, lam, gam, quadrant, s):
    y = np.empty(x.shape, "int32")
    w = list(zip(lam.tolist(), gam.tolist(), quadrant.tolist(), strict=True))
    for row in np.ndindex(x.shape[:-2]):
        y[row] = function(x[row].tolist(), w, s)
    return y


def dyadic_transform(x, lam, gam, quadrant, *, s):
    return over_rows(forward, x, lam, gam, quadrant, s)


def dyadic_transform_inverse(x, lam, gam, quadrant, *, s):
    return over_rows(inverse, x, lam, gam, quadrant, s)


__all__ = ["dyadic_transform", "dyadic_transform_inverse"]
