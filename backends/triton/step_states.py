"""The states of the chunked scans in a step, and what follows from them and is kept beside them.

A chunk's state stays as it is until the chunk ends, so that its outputs' view of it, in half the bytes, is made once.
A position's factors stay as they are from its step on. Both are made anew when a text is put into the buffers.
"""

import triton
import triton.language as tl

from mamba_integer.spec.ops import ssd_chunk as definition

from .overlap import wait_and_start_next
from .ssd_chunk_factors import (
    DECAY_HALF,
    ONE,
    added_state,
    exponent_sums,
    forgotten,
    gains,
    input_weights,
    larger,
    next_state,
    seen_state,
    weighed_limbs,
)

ARRAYS = tl.constexpr(5)  # of a layer, whose addresses a kernel gets


@triton.jit
def past_factors(d, q, WEIGHT_BITS: tl.constexpr):
    """Return of open chunks' exponents, along the first axis: columns, weights, the sums, and what they forget."""
    totals = tl.cumsum(d, 0)
    forgot = tl.associative_scan(forgotten(totals, d, q), 0, larger)
    _, column, weight = gains(totals - (forgot & (ONE - 1)), d, WEIGHT_BITS)
    return column, weight, totals, forgot


@triton.jit
def appended_factors(total, forgot, d, fill, WEIGHT_BITS: tl.constexpr):
    """Return what `past_factors` has of a position, from that of the one before it, and the position's own sum."""
    total += d
    forgot = tl.maximum(forgot, forgotten(total, d, fill))
    last = total - (forgot & (ONE - 1))
    _, column, weight = gains(last, d, WEIGHT_BITS)
    return (column, weight, total, forgot), last


@triton.jit
def factors_kernel(
    columns_pointer,
    weights_pointer,
    totals_pointer,
    forgot_pointer,
    layers_pointer,
    position_pointer,
    rows,
    heads: tl.constexpr,
    WEIGHT_BITS: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
):
    """Make the factors of the open chunks of some heads of a layer's row, side by side: few sums cross threads."""
    program, blocks = tl.program_id(0), (heads + HEADS - 1) // HEADS
    layer, row = program // blocks // rows, (program // blocks % rows).to(tl.int64)
    q, head = tl.arange(0, TILE), program % blocks * HEADS + tl.arange(0, HEADS)
    known, fill = head < heads, tl.load(position_pointer + row) % Q
    open_d_pointer = tl.load(layers_pointer + ARRAYS * layer + 1).to(tl.pointer_type(tl.int32))
    place = open_d_pointer + (row * Q + q)[:, None] * heads + head[None, :]
    d = tl.load(place, mask=(q < fill)[:, None] & known[None, :], other=0)
    column, weight, total, forgot = past_factors(d, q[:, None], WEIGHT_BITS)
    factor_place = ((layer * rows + row) * heads + head)[None, :] * TILE + q[:, None]
    tl.store(columns_pointer + factor_place, column, mask=known[None, :])
    tl.store(weights_pointer + factor_place, weight, mask=known[None, :])
    tl.store(totals_pointer + factor_place, total, mask=known[None, :])
    tl.store(forgot_pointer + factor_place, forgot, mask=known[None, :])


@triton.jit
def seen_kernel(seen_pointer, h_pointer, size, states, s_h: tl.constexpr, STATES: tl.constexpr, BLOCK: tl.constexpr):
    """Make the outputs' view of states; zeros follow up to STATES."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    state, inside = index % STATES, index < size
    h = tl.load(h_pointer + index // STATES * states + state, mask=inside & (state < states), other=0)
    tl.store(seen_pointer + index, seen_state(h, s_h).to(tl.int16), mask=inside)


@triton.jit
def move_on(
    h_pointer,
    seen_pointer,
    lane,
    channel,
    d,
    inputs,
    keys,
    states,
    s_h: tl.constexpr,
    TILE: tl.constexpr,
    STATES: tl.constexpr,
):
    """Move the state of some channels of a head on by a whole chunk, and the outputs' view of it."""
    q, state = tl.arange(0, TILE), tl.arange(0, STATES)
    inside = channel[:, None] & (state < states)[None, :]
    h = tl.load(h_pointer + lane[:, None] * states + state[None, :], mask=inside, other=0)
    weights, r, kept = input_weights(exponent_sums(d, q), d, True)
    high, low = weighed_limbs(inputs, weights[:, None], r)
    h = next_state(h, added_state(high, low, keys), 4 << r, kept, DECAY_HALF)
    tl.debug_barrier()  # what is written in place, every thread has read
    tl.store(h_pointer + lane[:, None] * states + state[None, :], h, mask=inside)
    tl.store(seen_pointer + lane[:, None] * STATES + state[None, :], seen_state(h, s_h).to(tl.int16), mask=inside)


@triton.jit
def close_kernel(
    layers_pointer,
    position_pointer,
    layers,
    rows: tl.constexpr,
    heads: tl.constexpr,
    width: tl.constexpr,
    states: tl.constexpr,
    s_h: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Move the states of all layers on, in place, for rows at the last position of a chunk.

    ``layers_pointer`` has the addresses of each layer's open x, exponents and b, its state and the outputs' view of it.
    """
    blocks: tl.constexpr = (width + CHANNELS - 1) // CHANNELS
    every = tl.arange(0, ROWS)
    closing = tl.load(position_pointer + every, mask=every < rows, other=0) % Q == Q - 1
    closes = tl.max(closing.to(tl.int32), 0)
    q, state = tl.arange(0, TILE), tl.arange(0, STATES)
    inside, known = q < Q, state < states
    wait_and_start_next()
    for item in range(tl.program_id(0), rows * heads * blocks * closes, tl.num_programs(0)):
        p = item % blocks * CHANNELS + tl.arange(0, CHANNELS)
        head, row = item // blocks % heads, tl.full([], item // blocks // heads, tl.int64)
        channel, slot = p < width, row * Q + q
        if tl.load(position_pointer + row) % Q == Q - 1:
            for layer in range(layers):
                addresses = layers_pointer + ARRAYS * layer
                open_x_pointer = tl.load(addresses).to(tl.pointer_type(tl.int8))
                open_d_pointer = tl.load(addresses + 1).to(tl.pointer_type(tl.int32))
                open_b_pointer = tl.load(addresses + 2).to(tl.pointer_type(tl.int8))
                h_pointer = tl.load(addresses + 3).to(tl.pointer_type(tl.int32))
                seen_pointer = tl.load(addresses + 4).to(tl.pointer_type(tl.int16))
                d = tl.load(open_d_pointer + slot * heads + head, mask=inside, other=0)
                inputs_place = open_x_pointer + (slot * heads + head)[:, None] * width + p[None, :]
                inputs = tl.load(inputs_place, mask=inside[:, None] & channel[None, :], other=0)
                keys_place = open_b_pointer + slot[:, None] * states + state[None, :]
                keys = tl.load(keys_place, mask=inside[:, None] & known[None, :], other=0)
                lane = (row * heads + head) * width + p
                move_on(h_pointer, seen_pointer, lane, channel, d, inputs, keys, states, s_h, TILE, STATES)


def chunk_bits(states: int, s_h: int) -> dict[str, int]:
    """Return the bits of a chunk's factors."""
    return {
        "WEIGHT_BITS": definition.weight_bits(states),
        "CARRIED_BITS": definition.carried_bits(states, s_h),
        "SUM_BITS": definition.sum_bits(states),
    }
