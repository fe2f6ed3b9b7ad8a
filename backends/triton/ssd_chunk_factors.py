"""The factors of a chunk in kernels: ``spec.ops.ssd_chunk``, C1 to C3, the exponents of C4 and the weights of C7."""

import triton
import triton.language as tl

from mamba_integer.spec.ops import ssd_chunk as definition

from . import integers
from .instructions import has_ptx

DECAY_BITS = tl.constexpr(definition.DECAY_BITS)
DECAY_ONE = tl.constexpr(1 << definition.DECAY_BITS)
DECAY_HALF = tl.constexpr(1 << (definition.DECAY_BITS - 1))
FRACTION_BITS = tl.constexpr(definition.FRACTION_BITS)
LARGEST_EXPONENT = tl.constexpr(definition.LARGEST_EXPONENT)
LARGEST_ROW_EXPONENT = tl.constexpr(definition.LARGEST_ROW_EXPONENT)
LARGEST_TWO_LIMBS = tl.constexpr(definition.LARGEST_TWO_LIMBS)
ONE = tl.constexpr(definition.ONE)
POWER_BITS = tl.constexpr(definition.POWER_BITS)
# Integers and arrays that Triton need not know more of, for no load is wider by them: each fact is another kernel.
SIZES = "length", "heads", "chunks", "Q"
POSITIONS = "d_pointer", "open_d_pointer", "fill_pointer", "skip_pointer"
C0, C1, C2, C3, C4, C5, C6 = (tl.constexpr(c) for c in definition.POWER)


@triton.jit
def round_by(x, s):
    """Return shift_round(x, s) for int32 x and a tensor s."""
    half = ((tl.zeros_like(s) + 1) << s) >> 1
    return (x + half) >> s


@triton.jit
def row_exponent(largest):
    """Return the least e >= 1 with which a row's largest magnitude is rounded to at most 127."""
    e = tl.maximum(bit_length_of(largest) - 7, 1)
    return e + (round_by(largest, e.to(largest.dtype)) > 127).to(e.dtype)


@triton.jit
def bit_length_of(x):
    """Return the bit length of int32 or int64 x >= 0."""
    if has_ptx() and x.dtype.primitive_bitwidth == 32:
        zeros = tl.inline_asm_elementwise("clz.b32 $0, $1;", "=r,r", [x], dtype=tl.int32, is_pure=True, pack=1)
        return 32 - zeros
    elif has_ptx():
        zeros = tl.inline_asm_elementwise("clz.b64 $0, $1;", "=r,l", [x], dtype=tl.int32, is_pure=True, pack=1)
        return 64 - zeros
    else:
        return integers.bit_length(x)


@triton.jit
def times_fraction(p, f):
    """Return (p * f) >> 12: narrowed at once, it is one product and one shift."""
    return ((p.to(tl.int64) * f) >> FRACTION_BITS).to(tl.int32)


@triton.jit
def fraction_power(z):
    """Return 2**(-f / 4096) in Q.30 for the fraction f of z: every step of the polynomial fits int32."""
    f = (z & (ONE - 1)).to(tl.int64)
    p = times_fraction(tl.zeros_like(z) + C6, f) + C5
    p = times_fraction(p, f) + C4
    p = times_fraction(p, f) + C3
    p = times_fraction(p, f) + C2
    p = times_fraction(p, f) + C1
    return times_fraction(p, f) + C0


@triton.jit
def rounded_power(p, z, bits):
    """Return 2**(-z / 4096) in Q.bits of p, the power of its fraction: at most 2**30, so a shift by 32 leaves 0."""
    s = tl.minimum(z >> FRACTION_BITS, 32) + (-bits + POWER_BITS)
    shift = tl.minimum(s, 31).to(tl.uint32)
    half = ((tl.zeros_like(shift) + 1) << shift) >> 1
    return tl.where(s < 32, ((p.to(tl.uint32) + half) >> shift).to(tl.int32), 0)


@triton.jit
def power(z, bits):
    return rounded_power(fraction_power(z), z, bits)


@triton.jit
def larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def forgotten(sums, d, position):
    """Return the fraction of the sum at a position that forgets, below the position's number; 0 at others."""
    return tl.where(d == LARGEST_EXPONENT, ((position + 1) << FRACTION_BITS) + (sums & (ONE - 1)), 0)


@triton.jit
def exponent_sums(d, position):
    """Return the sums of a chunk's exponents: less the fraction that the last position which forgets had."""
    sums = tl.cumsum(d, 0)
    return sums - (tl.associative_scan(forgotten(sums, d, position), 0, larger) & (ONE - 1))


@triton.jit
def gains(sums, d, bits):
    """Return the integer parts of the sums, those of columns with the gains' lengths added, and the weights."""
    rest = -(sums & (ONE - 1)) + ONE
    gain = power(rest, POWER_BITS) - power(rest + d, POWER_BITS)
    length = bit_length_of(gain)
    s = tl.maximum(length - bits, 0)
    weight = (gain + (((tl.zeros_like(s) + 1) << s) >> 1)) >> s
    whole = sums >> FRACTION_BITS
    return whole, whole + length - POWER_BITS, weight


@triton.jit
def lags(whole, column):
    """Return by how much the product of row and column is shifted."""
    # Below 0 above the diagonal alone: unsigned, such a lag is a large one.
    return tl.minimum((whole[:, None] - column[None, :]).to(tl.uint32), 31).to(tl.int32)


@triton.jit
def input_weights(sums, d, whole):
    """Return the weights of a chunk's inputs, their exponent r and the decay; a chunk not whole changes no state."""
    last = tl.max(sums, 0)
    left = last - sums
    weight = power(left, DECAY_BITS) - power(left + d, DECAY_BITS)
    weight = tl.where(whole, weight, 0)
    r = tl.maximum(bit_length_of(tl.max(weight, 0)) - 8, 0)
    return weight, r, tl.where(whole, power(last, DECAY_BITS), DECAY_ONE)


@triton.jit
def time_order(q, TILE: tl.constexpr):
    """Return where sums over time have position q of a chunk: those of one thread of a tensor core side by side."""
    return q // 2 % 4 * (TILE // 4) + q // 8 * 2 + q % 2


UPPER_BYTES = tl.constexpr(
    "{ .reg .b32 a, b; prmt.b32 a, $1, $2, 0x0073; prmt.b32 b, $3, $4, 0x0073; prmt.b32 $0, a, b, 0x5410; }"
)
NEXT_BYTES = tl.constexpr(
    "{ .reg .b32 a, b; prmt.b32 a, $1, $2, 0x0062; prmt.b32 b, $3, $4, 0x0062; prmt.b32 a, a, b, 0x5410;"
    " xor.b32 $0, a, 0x80808080; }"
)


@triton.jit
def upper_limbs(z):
    """Return the high and the low signed byte of int32 z in units of 2**16, rounded down; z has 2**23 added."""
    if has_ptx():
        high = tl.inline_asm_elementwise(UPPER_BYTES, "=r,r,r,r,r", [z], dtype=tl.int8, is_pure=True, pack=4)
        low = tl.inline_asm_elementwise(NEXT_BYTES, "=r,r,r,r,r", [z], dtype=tl.int8, is_pure=True, pack=4)
        return high, low
    else:
        return (z >> 24).to(tl.int8), ((z >> 16) ^ 128).to(tl.int8)


@triton.jit
def shifted_limbs(x, weights):
    """Return the high and the low limb of x times its weights over 2**16, rounded: the weights are shifted to that."""
    return upper_limbs(x.to(tl.int32) * weights + ((1 << 15) + (128 << 16)))


@triton.jit
def weighed_limbs(x, weights, r):
    """Return the high and the low limb of x times its weights over 2**r, rounded: both straight from the product."""
    product = x.to(tl.int32) * weights + ((1 << r) >> 1)
    return ((product + (128 << r)) >> (r + 8)).to(tl.int8), (product >> r).to(tl.int8)


@triton.jit
def plus_product(total, a, b):
    """Return int64 total plus the product of int32 a and b: one instruction, which LLVM makes several of."""
    if has_ptx():
        code: tl.constexpr = "mad.wide.s32 $0, $2, $3, $1;"
        return tl.inline_asm_elementwise(code, "=l,l,r,r", [total, a, b], dtype=tl.int64, is_pure=True, pack=1)
    else:
        return a.to(tl.int64) * b + total


@triton.jit
def seen_state(state, s_h):
    """Return a state as outputs see it: rounded by s_h bits and saturated to two limbs."""
    seen = (state + ((1 << s_h) >> 1)) >> s_h
    return tl.minimum(tl.maximum(seen, -LARGEST_TWO_LIMBS), LARGEST_TWO_LIMBS)


@triton.jit
def added_state(high, low, keys):
    """Return the sum over a chunk of weighed inputs, which come as two limbs, times int8 keys."""
    added = tl.dot(tl.trans(high), keys, out_dtype=tl.int32) << 8
    return added + tl.dot(tl.trans(low), keys, out_dtype=tl.int32)


@triton.jit
def next_state(state, added, unit, kept, half):
    """Return the state after a chunk that adds ``added * unit``, its weighed inputs by b; int64 half a decay."""
    whole = tl.zeros_like(state)
    kept_state = plus_product(whole.to(tl.int64) + half, state, kept + whole)
    return (kept_state >> DECAY_BITS).to(tl.int32) + added * unit
