"""Philox 4x32-10 in kernels, on uint32 words."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import philox as golden

ROUNDS = tl.constexpr(golden.ROUNDS)
MULTIPLIER_0 = tl.constexpr(golden.MULTIPLIER_0)
MULTIPLIER_1 = tl.constexpr(golden.MULTIPLIER_1)
WEYL_0 = tl.constexpr(golden.WEYL_0)
WEYL_1 = tl.constexpr(golden.WEYL_1)


def key_pattern(word):
    """Return a key word as the int32 of its bits, which every key word is passed as; one in memory stays there."""
    return word if isinstance(word, torch.Tensor) else word - ((word >> 31) << 32)


@triton.jit
def multiply(word, multiplier: tl.constexpr):
    """High and low word of the 64-bit product."""
    product = word.to(tl.uint64) * multiplier
    return (product >> 32).to(tl.uint32), product.to(tl.uint32)


@triton.jit
def philox_words(c0, c1, c2, c3, key0, key1):
    """Return the four words of each counter; keys as int32 bit patterns."""
    key0 = key0.to(tl.uint32)
    key1 = key1.to(tl.uint32)
    for turn in tl.static_range(ROUNDS):
        high0, low0 = multiply(c0, MULTIPLIER_0)
        high1, low1 = multiply(c2, MULTIPLIER_1)
        c0 = high1 ^ c1 ^ (key0 + (turn * WEYL_0 & 0xFFFFFFFF)).to(tl.uint32)
        c2 = high0 ^ c3 ^ (key1 + (turn * WEYL_1 & 0xFFFFFFFF)).to(tl.uint32)
        c1 = low1
        c3 = low0
    return c0, c1, c2, c3
