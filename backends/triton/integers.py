"""The number system inside kernels.

Triton's ``//`` truncates and a shift by the width or more is undefined, so each function says what it needs.
"""

import triton
import triton.language as tl

from mamba_integer.spec import integers as golden

RSQRT_OFFSET = tl.constexpr(golden.RSQRT_OFFSET)
RSQRT_SLOPE = tl.constexpr(golden.RSQRT_SLOPE)
RSQRT_ITERATIONS = tl.constexpr(golden.RSQRT_ITERATIONS)


@triton.jit
def shift_round(x, s):
    """Round x / 2**s to nearest, ties up; x must be wide enough for the added half."""
    return (x + ((1 << s) >> 1)) >> s


@triton.jit
def saturate(x, bits: tl.constexpr):
    return tl.minimum(tl.maximum(x, -((1 << (bits - 1)) - 1)), (1 << (bits - 1)) - 1)


@triton.jit
def floor_div(a, b):
    """Floor of a / b for b > 0 and a of any sign: the truncated quotient, less one where a remainder was negative."""
    quotient = a // b
    return tl.where(quotient * b > a, quotient - 1, quotient)


@triton.jit
def bit_length(x):
    """Smallest b with |x| < 2**b, for int32 x above -2**31: a binary search by comparisons."""
    magnitude = tl.abs(x)
    length = tl.zeros_like(x)
    for log_step in tl.static_range(5):
        step = 16 >> log_step
        above = (magnitude >> step) > 0
        length = tl.where(above, length + step, length)
        magnitude = tl.where(above, magnitude >> step, magnitude)
    return length + tl.where(magnitude > 0, 1, 0)


@triton.jit
def isqrt(v):
    """Largest r with r*r <= v, for int32 v >= 0; int64 products narrowed at once."""
    half = (bit_length(v) + 1) >> 1
    wide = v.to(tl.int64)
    u = ((wide << (32 - 2 * half).to(tl.int64)) >> 2).to(tl.int64)
    y = RSQRT_OFFSET - ((RSQRT_SLOPE * u) >> 30)
    for _ in tl.static_range(RSQRT_ITERATIONS):
        y = (y * ((3 << 24) - ((((y * y) >> 24) * u) >> 30))) >> 25
    r = ((u * y) >> 24) >> (30 - half).to(tl.int64)
    r = tl.where(r * r > wide, r - 1, r)
    return tl.where((r + 1) * (r + 1) <= wide, r + 1, r).to(tl.int32)
