"""Pi, logarithm, exponential, sine and cosine on Python integers, and their correct rounding.

A real number r is held as an integer near ``r * 2**bits``. Each function works with GUARD more bits inside, which
drowns the truncations of its series, so its result is within one unit of the true value of its argument as given.
Functions of an argument take one integer or an object array of them.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

GUARD = 32


def nearest_integers(approximate: Callable, bits: int = 64):
    """Return the integers nearest to real numbers that are no ties, by Ziv's strategy.

    ``approximate(bits)`` returns the reals times ``2**bits``, each within ``2**8`` of the truth. An approximation
    is repeated with twice the bits until every real, wherever it lies in its error interval, rounds to one integer.
    """
    while True:
        value, half = approximate(bits), 1 << (bits - 1)
        low, high = (value - 256 + half) >> bits, (value + 256 + half) >> bits
        if np.all(low == high):
            return low
        bits *= 2


@lru_cache
def pi(bits: int) -> int:
    """Return pi, by Machin's formula ``16 atan(1/5) - 4 atan(1/239)``."""
    return (16 * _odd_powers(1, 5, -1, bits + GUARD) - 4 * _odd_powers(1, 239, -1, bits + GUARD)) >> GUARD


@lru_cache
def log(n: int, bits: int) -> int:
    """Return the natural logarithm of an integer n >= 1: ``e log 2 + log(n / 2**e)``, each by its area tangent."""
    inner = bits + GUARD
    exponent = n.bit_length() - 1
    log_two = 2 * _odd_powers(1, 3, 1, inner)
    return (exponent * log_two + 2 * _odd_powers(n - (1 << exponent), n + (1 << exponent), 1, inner)) >> GUARD


def _odd_powers(p: int, q: int, sign: int, bits: int) -> int:
    """Return ``u + sign u**3/3 + u**5/5 + sign u**7/7 ...`` for u = p/q <= 1/3: atan (sign -1) or atanh (sign 1)."""
    power, total, k = (p << bits) // q, 0, 0
    while power:
        total += sign**k * (power // (2 * k + 1))
        power, k = power * p * p // (q * q), k + 1
    return total


def exp(x, bits: int):
    """Return ``e**x`` for x <= 0: a power of two times the series on [0, log 2)."""
    inner = bits + GUARD
    wide, log_two = x << GUARD, log(2, inner)
    shift = wide // log_two
    return _taylor(wide - shift * log_two, 1, 1, inner) >> (GUARD - shift)


def sin_cos(x, bits: int):
    """Return the sine and the cosine of x, ``|x| <= 1``, by their series."""
    inner = bits + GUARD
    wide = x << GUARD
    sine = _taylor(wide, 2, -1, inner, odd=True)
    return sine >> GUARD, _taylor(wide, 2, -1, inner) >> GUARD


def _taylor(x, step: int, sign: int, bits: int, odd: bool = False):
    """Return ``sum x**n / n!`` over every ``step``-th n from 0 (or 1, if odd), the signs in turn 1 and ``sign``."""
    factor = x if step == 1 else sign * ((x * x) >> bits)
    term = x if odd else (x - x) + (1 << bits)
    total, n = term, int(odd)
    while np.any(np.abs(term) > 1):
        divisor = n + 1 if step == 1 else (n + 1) * (n + 2)
        term = ((term * factor) >> bits) // divisor
        total, n = total + term, n + step
    return total
