"""``spec.ops.norm`` on unbounded integers."""

import itertools
import math

import numpy as np

from .integers import saturate, shift_round
from .linear import quantize_rows
from .observe import see


def mantissa(S, D, k, b):
    """Return m from the exact integer root that the clause describes."""
    t = max(0, k - 8)
    cut = see("mean_square", S // 4**t)
    target = see("target", D * 4 ** (k - t + b + 1))
    M = 2 ** (b + 2) - 1
    if cut > 0:
        M = min(M, math.isqrt(target // cut))
    see("trial", see("root", M) ** 2 * cut)
    return (M + 1) // 2


def row_scale(x, b):
    """Return one row less its floored mean, and the scale's exponent and mantissa."""
    D = len(x)
    mean = see("mean", see("sum", sum(x)) // D)
    c = [see("centred", v - mean) for v in x]
    S = see("square_sum", sum(see("square", v * v) for v in c))
    k = see("k", next(k for k in itertools.count() if D * 4**k >= S))
    return c, k, see("m", mantissa(S, D, k, b) if b else 1)


def normalised(x, gamma, b, s):
    """Return one row, of Python integers."""
    c, k, m = row_scale(x, b)
    products = [see("product", see("scaled", v * m) * g) for v, g in zip(c, gamma, strict=True)]
    return [see("y", saturate(see("normalised", shift_round(product, k + b + s)), 16)) for product in products]


def bitshift_norm(x, gamma, *, b, s):
    rows = [normalised(row, gamma.tolist(), b, s) for row in x.reshape(-1, x.shape[-1]).tolist()]
    return np.array(rows, "int16").reshape(x.shape)


def norm_quantize(x, gamma, *, b, s):
    return quantize_rows(bitshift_norm(x, gamma, b=b, s=s))


__all__ = ["bitshift_norm", "norm_quantize"]
