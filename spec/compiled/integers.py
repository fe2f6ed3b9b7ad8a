"""The number system for compiled code: scalar twins of ``spec.integers``."""

from numba import njit

from ..integers import RSQRT_ITERATIONS, RSQRT_OFFSET, RSQRT_SLOPE


@njit(inline="always")
def shift_round(x, s):
    return (x + ((1 << s) >> 1)) >> s


@njit(inline="always")
def shift_even(x, s):
    return (x + (((1 << s) - 1) >> 1) + ((x >> s) & min(s, 1))) >> s


@njit(inline="always")
def saturate(x, bits):
    limit = (1 << (bits - 1)) - 1
    return min(max(x, -limit), limit)


@njit(inline="always")
def bit_length(x):
    length = 0
    magnitude = abs(x)
    while magnitude > 0:
        magnitude >>= 1
        length += 1
    return length


@njit(inline="always")
def isqrt(v):
    half = (bit_length(v) + 1) >> 1
    u = (v << (32 - 2 * half)) >> 2
    y = RSQRT_OFFSET - ((RSQRT_SLOPE * u) >> 30)
    for _ in range(RSQRT_ITERATIONS):
        y = (y * ((3 << 24) - ((((y * y) >> 24) * u) >> 30))) >> 25
    r = ((u * y) >> 24) >> (30 - half)
    if r * r > v:
        r -= 1
    if (r + 1) * (r + 1) <= v:
        r += 1
    return r


@njit(inline="always")
def round_div(a, b):
    """Floor of a / b + 1/2 for b > 0: Numba's ``//`` floors, as NumPy's."""
    return (a + (b >> 1)) // b
