"""The number system inside kernels.

Triton's ``//`` truncates and a shift by the width or more is undefined, so each function says what it needs.
"""

import triton
import triton.language as tl

LARGEST_ROOT = tl.constexpr(46340)


@triton.jit
def shift_round(x, s):
    """Round x / 2**s to nearest, ties up; x must be wide enough for the added half."""
    return (x + ((1 << s) >> 1)) >> s


@triton.jit
def shift_even(x, s):
    """Round x / 2**s to nearest, ties to even; x must be wide enough for the added half."""
    return (x + (((1 << s) - 1) >> 1) + ((x >> s) & tl.minimum(s, 1))) >> s


@triton.jit
def product_shift_round(x, y, s):
    """Round x * y / 2**s to nearest, ties up, for int32 x, y and 0 < s < 32, where the result fits int32."""
    wide = x.to(tl.int64) * y + ((1 << s) >> 1)
    return ((wide >> 32).to(tl.int32) << (32 - s)) | (wide.to(tl.uint32) >> s).to(tl.int32)


@triton.jit
def rescale(x, s):
    """Round x / 2**s to nearest, s of either sign; x must be wide enough for the added half or the shift."""
    return shift_round(x << tl.maximum(-s, 0), tl.maximum(s, 0))


@triton.jit
def saturate(x, bits: tl.constexpr):
    return tl.minimum(tl.maximum(x, -((1 << (bits - 1)) - 1)), (1 << (bits - 1)) - 1)


@triton.jit
def floor_div(a, b):
    """Floor of a / b for b > 0 and a of any sign: the truncated quotient, less one where a remainder was negative."""
    quotient = a // b
    return tl.where(quotient * b > a, quotient - 1, quotient)


@triton.jit
def round_div(a, b):
    """Floor of a / b + 1/2 for b > 0 and a of any sign; a must be wide enough for the added half."""
    return floor_div(a + (b >> 1), b)


@triton.jit
def bit_length(x):
    """Smallest b with |x| < 2**b, for int32 or int64 x above its type's least: a binary search by comparisons."""
    magnitude = tl.abs(x)
    length = tl.zeros_like(x)
    for log_step in tl.static_range(6):
        step = 32 >> log_step
        if step < x.dtype.primitive_bitwidth:
            above = (magnitude >> step) > 0
            length = tl.where(above, length + step, length)
            magnitude = tl.where(above, magnitude >> step, magnitude)
    return length + tl.where(magnitude > 0, 1, 0)


@triton.jit
def isqrt(v):
    """Largest r with r*r <= v, for int32 v >= 0.

    The float32 root is within one of it: v and the root are each rounded once, by less than one part in 2**22 together,
    and the root is below 2**16. Its square, from a root of at most 46340, fits int32, and so does what is left of v.
    """
    r = tl.minimum(tl.sqrt(v.to(tl.float32)).to(tl.int32), LARGEST_ROOT)
    r = tl.where(r * r > v, r - 1, r)
    return tl.where(v - r * r > 2 * r, r + 1, r)


@triton.jit
def scalar(x):
    """Return an argument that is an integer, or a pointer to one (see `replay`)."""
    if x.dtype.is_ptr():
        x = tl.load(x)
    return x
