"""Two int16 in a word at once, as NVIDIA GPUs take them since Hopper; others take the plain arithmetic.

All int16 here lie above -2**15.
"""

import triton
import triton.language as tl

from . import integers
from .instructions import compares_halves


def quantising(copies: int) -> str:
    """Return the instructions that quantise two words by two limits, half of 2**e and e: so many registers of each."""
    most, least, half, e = range(3, 3 + 4 * copies, copies)
    return (
        f"{{ .reg .b32 a, b; max.s16x2 a, $1, ${least}; max.s16x2 b, $2, ${least}; min.s16x2 a, a, ${most};"
        f" min.s16x2 b, b, ${most}; add.s16x2 a, a, ${half}; add.s16x2 b, b, ${half}; shr.u32 a, a, ${e};"
        f" shr.u32 b, b, ${e}; prmt.b32 $0, a, b, 0x6420; }}"
    )


# Saturated as the instruction does, and then to the least of ours.
SATURATED = tl.constexpr(
    "{ .reg .b32 t, least; mov.b32 least, 0x80018001; cvt.pack.sat.s16.s32 t, $2, $1; max.s16x2 $0, t, least; }"
)
WORD = tl.constexpr("mov.b32 $0, {$1, $2};")
ENDS = tl.constexpr("{ max.s16x2 $0, $2, $4; min.s16x2 $1, $3, $5; }")
ENDS_CONSTRAINTS = tl.constexpr("=&r,=r,r,r,r,r")  # the first is written before the last inputs are read
# Four int16 between the limits -127 * 2**e and 127 * 2**e: with half of 2**e they still fit, for e up to 8, and the
# eight bits from bit e of either half of a word are the rounded number, whatever the other half is.
QUANTISED = tl.constexpr(quantising(4))
QUANTISED_CONSTRAINTS = tl.constexpr("=r" + ",r" * 18)
QUANTISED_WORDS = tl.constexpr(quantising(1))
QUANTISED_WORDS_CONSTRAINTS = tl.constexpr("=r" + ",r" * 6)


@triton.jit
def saturated(x):
    """Return int32 saturated to int16."""
    if compares_halves():
        return tl.inline_asm_elementwise(SATURATED, "=r,r,r", [x], dtype=tl.int16, is_pure=True, pack=2)
    else:
        return integers.saturate(x, 16).to(tl.int16)


@triton.jit
def further_ends(most, least, other_most, other_least):
    """Return the larger halves of two words and the smaller halves of two others."""
    arguments = [most, least, other_most, other_least]
    return tl.inline_asm_elementwise(ENDS, ENDS_CONSTRAINTS, arguments, (tl.int32, tl.int32), is_pure=True, pack=1)


@triton.jit
def larger_half(word):
    """Return the larger magnitude of a word's halves."""
    return tl.maximum(tl.abs((word << 16) >> 16), tl.abs(word >> 16))


@triton.jit
def largest(y):
    """Return the largest magnitude of a row of int16, in int32."""
    if compares_halves() and y.shape[0] > 1:
        even, odd = tl.split(tl.reshape(y, [y.shape[0] // 2, 2]))
        word = tl.inline_asm_elementwise(WORD, "=r,h,h", [even, odd], dtype=tl.int32, is_pure=True, pack=1)
        most, least = tl.reduce((word, word), 0, further_ends)
        return tl.maximum(larger_half(most), larger_half(least))
    else:
        return tl.max(tl.abs(y.to(tl.int32)))


@triton.jit
def limits_of(e):
    """Return what `QUANTISED` takes of an exponent: both limits and half of 2**e, each twice in a word."""
    limit = 127 << e
    return limit * 0x10001, (-limit & 0xFFFF) * 0x10001, ((1 << e) >> 1) * 0x10001


@triton.jit
def quantised(y, e):
    """Return int16 y over 2**e, rounded and saturated to int8, with an exponent e of 0 to 8 for the row."""
    if compares_halves():
        most, least, half = limits_of(e)
        arguments = [y, most, least, half, e]
        return tl.inline_asm_elementwise(
            QUANTISED, QUANTISED_CONSTRAINTS, arguments, dtype=tl.int8, is_pure=True, pack=4
        )
    else:
        return integers.saturate(integers.shift_round(y.to(tl.int32), e), 8).to(tl.int8)


@triton.jit
def quantised_words(even, odd, e):
    """Return words of four int8, of two words of two int16 each, as `quantised` does; each has its exponent."""
    if compares_halves():
        most, least, half = limits_of(e)
        arguments = [even, odd, most, least, half, e]
        return tl.inline_asm_elementwise(
            QUANTISED_WORDS, QUANTISED_WORDS_CONSTRAINTS, arguments, dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        low = quantised_byte((even << 16) >> 16, e) | (quantised_byte(even >> 16, e) << 8)
        return low | (quantised_byte((odd << 16) >> 16, e) << 16) | (quantised_byte(odd >> 16, e) << 24)


@triton.jit
def quantised_byte(y, e):
    return integers.saturate(integers.shift_round(y, e), 8) & 255
