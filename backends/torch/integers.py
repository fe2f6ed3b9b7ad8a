"""The number system on int64 (or wide enough) tensors."""

import torch

from mamba_integer.spec.integers import RSQRT_ITERATIONS, RSQRT_OFFSET, RSQRT_SLOPE


def shift_round(x, s):
    return (x + ((1 << s) >> 1)) >> s


def shift_even(x, s):
    return (x + (((1 << s) - 1) >> 1) + ((x >> s) & min(s, 1))) >> s


def rescale(x, s):
    return shift_round(x << max(0, -s), max(0, s))


def saturate(x, bits):
    limit = (1 << (bits - 1)) - 1
    return x.clamp(-limit, limit)


def bit_length(x):
    magnitude = x.abs()
    length = torch.zeros_like(x)
    for step in (32, 16, 8, 4, 2, 1):
        above = (magnitude >> step) > 0
        length = length + step * above
        magnitude = torch.where(above, magnitude >> step, magnitude)
    return length + (magnitude > 0)


def isqrt(v):
    half = (bit_length(v) + 1) >> 1
    u = (v << (32 - 2 * half)) >> 2
    y = RSQRT_OFFSET - ((RSQRT_SLOPE * u) >> 30)
    for _ in range(RSQRT_ITERATIONS):
        y = (y * ((3 << 24) - ((((y * y) >> 24) * u) >> 30))) >> 25
    r = ((u * y) >> 24) >> (30 - half)
    r = r - (r * r > v).long()
    return r + ((r + 1) * (r + 1) <= v).long()


def round_div(a, b):
    return torch.div(a + (b >> 1), b, rounding_mode="floor")
