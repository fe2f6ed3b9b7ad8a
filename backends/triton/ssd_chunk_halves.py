"""Exact integer products of numbers of one byte in half precision, whose operands may lie in either order.

A tensor core takes bytes with the summed axis contiguous alone, so a turned tile of int8 is moved byte by byte. Halves
have no such rule. A half holds every byte, a product of two has 15 bits, and a sum of at most 2**22 in magnitude is
exact in float32.
"""

import triton
import triton.language as tl

from .instructions import has_ptx
from .ssd_chunk_limbs import limbs

# With 3 * 2**22 added, a number's bits are those of that sum plus the number: a conversion takes four times as long. It
# is no addition for Triton, which would let the product's sums start there; the assembler drops such a product.
WITH_START = tl.constexpr("{ .reg .f32 t; mov.b32 t, $1; add.rn.f32 t, t, 0f4B400000; mov.b32 $0, t; }")
START_BITS = tl.constexpr(0x4B400000)
# A byte with its sign bit turned over and 0x64 above it is the half of 1152 plus the signed byte.
BYTES = tl.constexpr(
    "{ .reg .b32 t, offset, tops; mov.b32 offset, 0xe480e480; mov.b32 tops, 0x64646464; xor.b32 t, $2, 0x80808080;"
    " prmt.b32 $0, t, tops, 0x4140; prmt.b32 $1, t, tops, 0x4342;"
    " add.f16x2 $0, $0, offset; add.f16x2 $1, $1, offset; }"
)
LOW_BYTES = tl.constexpr(
    "{ .reg .b32 t, offset; mov.b32 offset, 0xe480e480; prmt.b32 t, $1, $2, 0x4400;"
    " and.b32 t, t, 0x00ff00ff; xor.b32 t, t, 0x64806480; add.f16x2 $0, t, offset; }"
)
LIMBS = tl.constexpr(
    "{ .reg .b32 t, u, v, offset; mov.b32 offset, 0xe480e480; prmt.b32 t, $2, $3, 0x4400;"
    " and.b32 t, t, 0x00ff00ff; xor.b32 t, t, 0x64806480;"
    " add.s32 u, $2, 128; add.s32 v, $3, 128; prmt.b32 u, u, v, 0x5511;"
    " and.b32 u, u, 0x00ff00ff; xor.b32 u, u, 0x64806480; add.f16x2 $0, u, offset; add.f16x2 $1, t, offset; }"
)
# The high byte rounded down, and one more where the low one, as a signed byte, is below 0.
SHORT_LIMBS = tl.constexpr(
    "{ .reg .b32 t, u, v, offset, carry; mov.b32 offset, 0xe480e480; mov.b32 carry, 0xe400e400;"
    " and.b32 t, $2, 0x00ff00ff; xor.b32 t, t, 0x64806480;"
    " shr.u32 u, $2, 8; and.b32 u, u, 0x00ff00ff; xor.b32 u, u, 0x64806480; add.f16x2 u, u, offset;"
    " shr.u32 v, $2, 7; and.b32 v, v, 0x00010001; or.b32 v, v, 0x64006400; add.f16x2 v, v, carry;"
    " add.f16x2 $0, u, v; add.f16x2 $1, t, offset; }"
)


@triton.jit
def byte_halves(x):
    """Return int8 as halves."""
    if has_ptx():
        return tl.inline_asm_elementwise(BYTES, "=r,=r,r", [x], dtype=tl.float16, is_pure=True, pack=4)
    else:
        return x.to(tl.float16)


@triton.jit
def word_halves(x):
    """Return int32 numbers of one signed byte as halves."""
    if has_ptx():
        return tl.inline_asm_elementwise(LOW_BYTES, "=r,r,r", [x], dtype=tl.float16, is_pure=True, pack=2)
    else:
        return x.to(tl.float16)


@triton.jit
def limb_halves(number):
    """Return the high and the low limb of int32 numbers of two limbs as halves."""
    if has_ptx():
        return tl.inline_asm_elementwise(
            LIMBS, "=r,=r,r,r", [number], dtype=(tl.float16, tl.float16), is_pure=True, pack=2
        )
    else:
        high, low = limbs(number)
        return high.to(tl.float16), low.to(tl.float16)


@triton.jit
def short_halves(number):
    """Return the high and the low limb of any int16 as halves: the high one may be 128."""
    if has_ptx():
        return tl.inline_asm_elementwise(
            SHORT_LIMBS, "=r,=r,r", [number], dtype=(tl.float16, tl.float16), is_pure=True, pack=2
        )
    else:
        wide = number.to(tl.int32)
        return ((wide + 128) >> 8).to(tl.float16), wide.to(tl.int8).to(tl.float16)


@triton.jit
def whole(sums):
    """Return as int32 the float32 sums of products, of at most 2**22 in magnitude."""
    if has_ptx():
        bits = tl.inline_asm_elementwise(WITH_START, "=r,r", [sums], dtype=tl.int32, is_pure=True, pack=1)
        return bits - START_BITS
    else:
        return sums.to(tl.int32)


@triton.jit
def product_of_halves(rows, columns):
    """Return the int32 product of halves that hold bytes, of at most 128 terms."""
    return whole(tl.dot(rows, columns))


@triton.jit
def limb_product(rows, high, low):
    """Return the int32 product of halves that hold bytes and of the numbers of two limbs."""
    product = product_of_halves(rows, high) << 8
    return product + product_of_halves(rows, low)
