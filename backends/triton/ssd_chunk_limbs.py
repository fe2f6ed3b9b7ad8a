"""Numbers of two limbs, their shifts, and sums of their products in kernels: ``spec.ops.ssd_chunk_backward``, C2.

Where a shift has either sign, its left part goes where 32 bits have room: 64-bit shifts take three instructions.
"""

import triton
import triton.language as tl

from . import integers
from .instructions import has_ptx, limb_bytes
from .ssd_chunk_factors import LARGEST_TWO_LIMBS, bit_length_of, plus_product

LARGEST_WORD = tl.constexpr((1 << 31) - 1)
# The sum of four products of numbers of two limbs, which is the first of four results; the others are 0.
LIMBS_PRODUCT = tl.constexpr(
    "{ .reg .s32 t, u; .reg .s64 w; mov.b32 t, 0; mov.b32 u, 0; dp4a.s32.s32 t, $4, $6, t; shl.b32 t, t, 8;"
    " dp4a.s32.s32 t, $4, $7, t; dp4a.s32.s32 t, $5, $6, t; dp4a.s32.s32 u, $5, $7, u;"
    " cvt.s64.s32 w, u; mul.wide.s32 $0, t, 256; add.s64 $0, $0, w; mov.b64 $1, 0; mov.b64 $2, 0; mov.b64 $3, 0; }"
)
LIMBS_CONSTRAINTS = tl.constexpr("=l,=l,=l,=l,r,r,r,r")


@triton.jit
def factor(x):
    """Return int8 or int16 as int32 of which LLVM knows no more.

    It makes six instructions, not one, of a product in 64 bits with a number that it knows to be short.
    """
    wide = x.to(tl.int32)
    if has_ptx():
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [wide], dtype=tl.int32, is_pure=True, pack=1)
    else:
        return wide


@triton.jit
def rescale(x, s):
    """Return x / 2**s, rounded, for int64 x and a tensor s of either sign."""
    s = s.to(tl.int64)
    down = tl.maximum(s, 0)
    return ((x << tl.maximum(-s, 0)) + (((tl.zeros_like(s) + 1) << down) >> 1)) >> down


@triton.jit
def plus_rescaled(total, x, s):
    """Return int64 total plus int32 x, at most 2**30, over 2**s, rounded, for a scalar s of -30 to 17."""
    down = tl.maximum(s, 0)
    shifted = (x + ((1 << down) >> 1)) >> down
    return plus_product(total, shifted, tl.zeros_like(shifted) + (1 << tl.maximum(-s, 0)))


@triton.jit
def word(x):
    """Return int64 x saturated to 32 bits, as int32: by its high word, which a number of 32 bits only fills."""
    low, high = x.to(tl.int32), (x >> 32).to(tl.int32)
    return tl.maximum(tl.where(high == low >> 31, low, (high >> 31) ^ LARGEST_WORD), -LARGEST_WORD)


@triton.jit
def limb_exponent(largest):
    """Return the least e >= 0 with which a magnitude is rounded to two limbs."""
    largest = largest.to(tl.int64)
    e = tl.maximum(bit_length_of(largest) - 15, 0)
    return (e + (rescale(largest, e) > LARGEST_TWO_LIMBS).to(e.dtype)).to(tl.int32)


@triton.jit
def limbs(short):
    """Return the high and the low signed byte of a number of two limbs."""
    return ((short + 128) >> 8).to(tl.int8), short.to(tl.int8)


@triton.jit
def joined(high, low):
    return (high << 8) + low


@triton.jit
def bytes_of(dy):
    """Return the high byte of int16 errors, and the low one less 128."""
    if has_ptx():
        code: tl.constexpr = limb_bytes()
        return tl.inline_asm_elementwise(code, "=r,=r,r,r", [dy], dtype=(tl.int8, tl.int8), is_pure=True, pack=4)
    else:
        wide = dy.to(tl.int32)
        return (wide >> 8).to(tl.int8), ((wide & 255) - 128).to(tl.int8)


@triton.jit
def alignment(weight, s):
    """Return the weights and the shift with which products are taken over 2**s, s of either sign.

    A left shift is the weights'. The bits that leave their upper end are lost from products with 0 alone.
    """
    return weight << tl.maximum(-s, 0), tl.minimum(tl.maximum(s, 0), 31)


@triton.jit
def aligned(x, weight, shift):
    """Return int32 x times its `alignment`, rounded: a number of two limbs."""
    half = (((tl.zeros_like(shift) + 1).to(tl.uint32) << shift.to(tl.uint32)) >> 1).to(tl.int32)
    return (x * weight + half) >> shift


@triton.jit
def rescale_product(x, weight, s):
    """Return x times weights over 2**s as int64, rounded, for int32 and s >= -15: a left shift is the weights'."""
    down = tl.maximum(s, 0).to(tl.int64)
    half = ((tl.zeros_like(down) + 1) << down) >> 1
    whole = tl.zeros_like(x)
    return plus_product(half + whole.to(tl.int64), x, (weight << tl.maximum(-s, 0)) + whole) >> down


@triton.jit
def put(total, s):
    return word(integers.shift_round(total, s.to(tl.int64)))


@triton.jit
def side_by_side(high, low, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the rows of two limbs, one below the other: one product then is of both."""
    return tl.reshape(tl.permute(tl.join(high, low), [2, 0, 1]), [2 * ROWS, COLUMNS])


@triton.jit
def both_joined(sums, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return 256 times the sums of the high limbs plus those of the low ones, which are side by side."""
    high, low = tl.split(tl.permute(tl.reshape(sums, [ROWS, 2, COLUMNS]), [0, 2, 1]))
    return high * 256 + low


@triton.jit
def limb_tiles(pointer, limb_plane, start, width, states, CHANNELS: tl.constexpr, STATES: tl.constexpr):
    """Return the tiles (channel, state) of the high and of the low limbs."""
    channel, s = start + tl.arange(0, CHANNELS), tl.arange(0, STATES)
    place, known = channel[:, None] * states + s[None, :], (channel < width)[:, None] & (s < states)[None, :]
    high = tl.load(pointer + place, mask=known, other=0)
    return high, tl.load(pointer + limb_plane + place, mask=known, other=0)


@triton.jit
def inner_product(high, low, other_high, other_low):
    """Return int64 sums of the products of two such tiles' numbers, which add up to that of all of them."""
    if has_ptx():
        tiles = [high, low, other_high, other_low]
        products = tl.inline_asm_elementwise(
            LIMBS_PRODUCT, LIMBS_CONSTRAINTS, tiles, dtype=tl.int64, is_pure=True, pack=4
        )
    else:
        number, other = joined(high.to(tl.int32), low.to(tl.int32)), joined(other_high.to(tl.int32), other_low)
        products = (number * other).to(tl.int64)
    return tl.sum(products, 1)


@triton.jit
def product_of_limbs(rows, high, low):
    """Return the product of int8 rows and the numbers of two tiles of limbs."""
    product = tl.dot(rows, high, out_dtype=tl.int32) << 8
    return tl.dot(rows, low, product, out_dtype=tl.int32)
