"""Philox 4x32-10 on int64 tensors of words below 2**32."""

import torch

from mamba_integer.spec.philox import MASK, MULTIPLIER_0, MULTIPLIER_1, ROUNDING_DOMAIN, ROUNDS, WEYL_0, WEYL_1


def multiply(word, multiplier):
    """Return the high and the low word of the 64-bit product, in two steps of 16 bits: int64 would overflow."""
    upper = word * (multiplier >> 16)
    lower = word * (multiplier & 0xFFFF)
    return (upper + (lower >> 16)) >> 16, ((upper << 16) + lower) & MASK


def philox_words(c0, c1, c2, c3, key0, key1):
    """Return the four words of each counter; keys are Python integers."""
    for turn in range(ROUNDS):
        high0, low0 = multiply(c0, MULTIPLIER_0)
        high1, low1 = multiply(c2, MULTIPLIER_1)
        c0 = high1 ^ c1 ^ ((key0 + turn * WEYL_0) & MASK)
        c2 = high0 ^ c3 ^ ((key1 + turn * WEYL_1) & MASK)
        c1, c3 = low1, low0
    return c0, c1, c2, c3


def rounding_words(rows, columns, seed, step, stream, first, device):
    """Return the int64 words below 2**32 that ``spec.philox.rounding_words`` names."""
    blocks = -(-columns // 4)
    counter = first * blocks + torch.arange(rows * blocks, device=device)
    c1, c2, c3 = (torch.full_like(counter, word) for word in (step, stream, ROUNDING_DOMAIN))
    words = philox_words(counter, c1, c2, c3, seed & MASK, seed >> 32)
    return torch.stack(words, -1).reshape(rows, 4 * blocks)[:, :columns]
