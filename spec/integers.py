"""The number system: every rounding, saturation and root that the ops are made of.

All functions take Python integers or int64 arrays and return the same kind. Shifts are
arithmetic (toward minus infinity). A name says what happens at the edge: ``shift_floor``,
``shift_round``, ``saturate``; nothing here wraps as long as the stated domain holds.
"""

from dataclasses import dataclass

import numpy as np

# The residual stream: symmetric, held in int32.
RESIDUAL_BITS = 24


def shift_floor(x, s):
    """Return the largest integer q with ``q * 2**s <= x``."""
    return x >> s


def shift_round(x, s):
    """Return ``floor(x / 2**s + 1/2)``: nearest, ties toward plus infinity, one rounding.

    ``s = 0`` returns x: half of ``1 << 0`` is zero.
    """
    return (x + ((1 << s) >> 1)) >> s


def shift_even(x, s):
    """Return x / 2**s to the nearest integer, ties to the even one: with few bits to drop, ties are many.

    Toward plus infinity they would raise every mean by ``2**-(s+1)``; errors are averaged over whole batches.
    """
    odd = (x >> s) & min(s, 1)
    return (x + (((1 << s) - 1) >> 1) + odd) >> s


def rescale(x, s):
    """Return ``floor(x / 2**s + 1/2)`` for an s of either sign; with s < 0 that is x * 2**-s, nothing to round."""
    return shift_round(x << max(0, -s), max(0, s))


def saturate(x, bits):
    """Clamp x to ``[-(2**(bits-1) - 1), 2**(bits-1) - 1]``; ``-2**(bits-1)`` never appears."""
    limit = (1 << (bits - 1)) - 1
    return np.minimum(np.maximum(x, -limit), limit)


def bit_length(x):
    """Return the smallest b with ``abs(x) < 2**b``, for ``abs(x) < 2**63``."""
    size, length = np.abs(x), np.zeros_like(x)
    for half in (32, 16, 8, 4, 2, 1):  # of the bits that may be left
        large = size >= (1 << half)
        length = length + half * large
        size = np.where(large, size >> half, size)
    return length + size


def floor_div(a, b):
    """Return the largest integer q with ``q * b <= a``, for ``b > 0`` and a of any sign."""
    return a // b


def round_div(a, b):
    """Return ``floor(a / b + 1/2)``: nearest, ties toward plus infinity, for ``b > 0`` and a of any sign."""
    return floor_div(a + (b >> 1), b)


# The linear start of the Newton iteration, 2.13278 - 1.21873 u, has the least possible largest
# relative error (8.6 %) to 1/sqrt(u) on [1/4, 1]; both constants are in Q24.
RSQRT_OFFSET = 35782169
RSQRT_SLOPE = 20446954
RSQRT_ITERATIONS = 3


def isqrt(v):
    """Return the largest integer r with ``r * r <= v``, for ``0 <= v < 2**32``.

    Newton-Raphson for the reciprocal square root in Q24: v is scaled by an even power of two to
    ``u`` in [1/4, 1), ``y <- y (3 - u y^2) / 2`` runs three times (relative error 8.6e-2, 1.1e-2,
    1.9e-4, below 2**-22), and ``u * y`` is the root to within one, which a comparison settles.
    """
    half = (bit_length(v) + 1) >> 1
    u = (v << (32 - 2 * half)) >> 2
    y = RSQRT_OFFSET - ((RSQRT_SLOPE * u) >> 30)
    for _ in range(RSQRT_ITERATIONS):
        y = (y * ((3 << 24) - ((((y * y) >> 24) * u) >> 30))) >> 25
    r = ((u * y) >> 24) >> (30 - half)
    r = r - (r * r > v)
    return r + ((r + 1) * (r + 1) <= v)


@dataclass(frozen=True)
class Dyadic:
    """The rational ``num / 2**shift``."""

    num: int
    shift: int

    def apply(self, x):
        """Return x times this rational, rounded once: ``shift_round(x * num, shift)``."""
        return shift_round(x * self.num, self.shift)
