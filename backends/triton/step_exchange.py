"""How the programs of one step hand rows to one another: a value stands in a word beside the number of its step.

A reader loads words until all have the number of its step, so that neither a fence nor a counter comes between. Each
word is written once per step, so one that isn't written yet has the number of the step before. Targets without PTX run
each phase as a launch of its own, so that all is written before anything is read.
"""

import triton
import triton.language as tl

from .instructions import has_ptx

NUMBER_BITS = tl.constexpr(8)  # beside a value of 24 bits, the widest that a row holds
NUMBER_MASK = tl.constexpr((1 << 8) - 1)
MOST_WAITED = 16  # words that a thread loads at once


@triton.constexpr_function
def waiting(count):
    """Return the instructions that load words until all have a number, and then take their values."""
    loads = "".join(f"ld.relaxed.gpu.global.b32 ${i}, [${count + i}]; " for i in range(count))
    tests = "".join(f"xor.b32 other, ${i}, ${2 * count}; or.b32 rest, rest, other; " for i in range(count))
    values = "".join(f"shr.s32 ${i}, ${i}, {NUMBER_BITS.value}; " for i in range(count))
    return (
        "{ .reg .pred missing; .reg .b32 other, rest; again: mov.b32 rest, 0; "
        f"{loads}{tests}and.b32 rest, rest, {NUMBER_MASK.value}; setp.ne.b32 missing, rest, 0; @missing bra again; "
        f"{values}}}"
    )


@triton.constexpr_function
def waiting_operands(count):
    return ",".join(["=&r"] * count + ["l"] * count + ["r"] * count)


@triton.constexpr_function
def waited(size, warps):
    """Return how many of a tensor's words a thread loads at once."""
    return max(1, min(MOST_WAITED, size // (32 * warps)))


@triton.jit
def hand_over(pointer, place, value, inside, number):
    word = (value.to(tl.int32) << NUMBER_BITS) | (number & NUMBER_MASK)
    tl.store(pointer + place, word, mask=inside)


@triton.jit
def wait_for(pointer, place, inside, number, WARPS: tl.constexpr):
    """Return the values of words, in int32, when all of them are written; 0 outside, where the first word is read."""
    if has_ptx():
        COUNT: tl.constexpr = waited(place.numel, WARPS)
        address = (pointer + tl.where(inside, place, 0)).to(tl.int64)
        marks = tl.zeros_like(place) + (number & NUMBER_MASK)
        value = tl.inline_asm_elementwise(
            waiting(COUNT), waiting_operands(COUNT), [address, marks], dtype=tl.int32, is_pure=False, pack=COUNT
        )
        return tl.where(inside, value, 0)
    else:
        return handed(pointer, place, inside)


@triton.jit
def handed(pointer, place, inside):
    """Return the values of words that this program has waited for or written."""
    return tl.load(pointer + place, mask=inside, other=0, volatile=True) >> NUMBER_BITS
