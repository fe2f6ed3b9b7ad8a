"""The number system on Python's unbounded integers: nothing can wrap, each function is its postcondition."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np


def shift_round(x: int, s: int) -> int:
    return (2 * x + 2**s) // 2 ** (s + 1)


def shift_even(x: int, s: int) -> int:
    return round(Fraction(x, 2**s))


def round_div(a: int, b: int) -> int:
    return (2 * a + b) // (2 * b)


def saturate(x: int, bits: int) -> int:
    limit = 2 ** (bits - 1) - 1
    return sorted((-limit, x, limit))[1]


def isqrt(v: int) -> int:
    return math.isqrt(v)


def elementwise(function: Callable[..., int], dtype: str, *arrays: np.ndarray) -> np.ndarray:
    """Apply a function of Python integers to each element; the result must fit the dtype, or NumPy raises."""
    result = np.empty(arrays[0].shape, dtype)
    for index in np.ndindex(result.shape):
        result[index] = function(*(int(a[index]) for a in arrays))
    return result
