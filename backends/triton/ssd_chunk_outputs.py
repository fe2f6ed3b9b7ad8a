"""A chunk's outputs from the state before it, in two limbs, and its own inputs: `spec.ops.ssd_chunk`, C5 and C6."""

import triton
import triton.language as tl

from . import halves, integers
from .ssd_chunk_factors import LARGEST_TWO_LIMBS, plus_product, upper_limbs
from .ssd_chunk_limbs import both_joined


@triton.jit
def in_state_order(tile, STATES: tl.constexpr, CHANNELS: tl.constexpr):
    """Return a tile (state, channel) in that order."""
    if STATES >= 64:
        parts = tl.reshape(tile, [STATES // 64, 4, 2, 8, CHANNELS])
        tile = tl.reshape(tl.permute(parts, [1, 3, 0, 2, 4]), [STATES, CHANNELS])
    return tile


@triton.jit
def seen_units(state, s_h, HALVES: tl.constexpr):
    """Return a state as the output sees it, with 128 added, in the upper half of a word: for `upper_limbs`.

    With HALVES s_h is 16: nothing is clamped, and the sum still fits.
    """
    if HALVES:
        return state + ((1 << 15) + (128 << 16))
    else:
        seen = (state + ((1 << s_h) >> 1)) >> s_h
        return (tl.minimum(tl.maximum(seen, -LARGEST_TWO_LIMBS), LARGEST_TWO_LIMBS) + 128) << 16


@triton.jit
def seen_limbs(state, s_h, HALVES: tl.constexpr):
    """Return the high and the low signed byte of a state as the output sees it."""
    return upper_limbs(seen_units(state, s_h, HALVES))


@triton.jit
def from_time_order(inputs, TILE: tl.constexpr, CHANNELS: tl.constexpr):
    """Return a tile (channel, time), which is in `time_order`, as (time, channel) in the order of time."""
    parts = tl.reshape(inputs, [CHANNELS, 4, TILE // 8, 2])
    return tl.reshape(tl.permute(parts, [2, 1, 3, 0]), [TILE, CHANNELS])


@triton.jit
def saturated(total, shift, WIDE: tl.constexpr):
    """Return int64 sums over 2**shift, rounded down and saturated to int16."""
    if tl.int32 == WIDE:
        return halves.saturated((total >> shift).to(tl.int32))
    else:
        return integers.saturate((total >> shift).to(WIDE), 16).to(tl.int16)


@triton.jit
def outputs(
    queries,
    seen,
    mixed,
    inputs,
    inner,
    carried,
    skip,
    rounding,
    unit,
    shift,
    WIDE: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Return a chunk's outputs (time, channel); of the state before it, high limbs come before low ones."""
    before = both_joined(tl.dot(queries, tl.trans(seen), out_dtype=tl.int32), TILE, CHANNELS)
    within = tl.dot(mixed, tl.trans(inputs), out_dtype=tl.int32)
    x = from_time_order(inputs, TILE, CHANNELS).to(tl.int32)
    # Half the unit of y comes with the skip, which is in half units of the sum.
    total = within.to(tl.int64) * inner[:, None]
    total = plus_product(total, before, carried[:, None] + tl.zeros_like(before))
    total = plus_product(total, x * (2 * skip) + rounding, unit)
    return saturated(total, shift, WIDE)
