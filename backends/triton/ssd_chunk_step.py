"""Triton version of `ssd_chunk_scan_step`: one kernel, a program for a few channels of a head.

A step reads the state and the open chunk. It computes a new state only where its position is a chunk's last; elsewhere
it copies the state, or, in place, leaves it alone.
"""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import ssd_chunk as definition

from . import integers
from .launch import aligned, ceil_div, launch
from .ssd_chunk import LEAST_TILE
from .ssd_chunk_factors import (
    DECAY_HALF,
    FRACTION_BITS,
    LARGEST_ROW_EXPONENT,
    POSITIONS,
    added_state,
    exponent_sums,
    fraction_power,
    gains,
    input_weights,
    next_state,
    round_by,
    rounded_power,
    row_exponent,
    seen_state,
    weighed_limbs,
)

FEW_CHANNELS, CHANNELS = 16, 32  # of a program
FEWEST_PROGRAMS = 512  # of so few channels as keep every processor busy
LOADED = 8192  # bytes of b at once
WARPS = 4


@triton.jit
def taken(opened, new, fill, q):
    """Return an open chunk (time, anything) with the call's position at its place, and zeros after it."""
    return tl.where((q < fill)[:, None], opened, tl.where((q == fill)[:, None], new[None, :], 0))


@triton.jit
def output_sum(scores, before, inputs, column, weight, last, carried_bits):
    """Return the sum of a position's output without its skip: of the open chunk's inputs, and of the state."""
    lag = tl.minimum((-column + (last >> FRACTION_BITS)).to(tl.uint32), 31).to(tl.int32)
    mixed = (scores * weight) >> lag
    e = row_exponent(tl.max(tl.abs(mixed), 0))
    within = tl.sum(round_by(mixed, tl.zeros_like(mixed) + e)[:, None] * inputs, 0)
    power_of_fraction = fraction_power(last)
    total = within.to(tl.int64) * round_by(power_of_fraction, -e + LARGEST_ROW_EXPONENT)
    return total + before.to(tl.int64) * rounded_power(power_of_fraction, last, carried_bits)


@triton.jit(do_not_specialize=["heads", "Q", "s_h", "shift", "unit", "weight_bits", "carried_bits", *POSITIONS])
def chunk_step_kernel(
    y_pointer,
    end_pointer,
    rest_x_pointer,
    rest_d_pointer,
    rest_b_pointer,
    rest_pointer,
    x_pointer,
    d_pointer,
    b_pointer,
    c_pointer,
    skip_pointer,
    h_pointer,
    open_x_pointer,
    open_d_pointer,
    open_b_pointer,
    fill_pointer,
    heads,
    width,
    states,
    Q,
    s_h,
    shift,
    unit,
    weight_bits,
    carried_bits,
    IN_PLACE: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    program = tl.program_id(0)
    blocks, most_heads = tl.maximum(tl.cdiv(width, CHANNELS), 1), tl.maximum(heads, 1)
    block, head, row = program % blocks, program // blocks % most_heads, (program // blocks // most_heads).to(tl.int64)
    q, p = tl.arange(0, TILE), block * CHANNELS + tl.arange(0, CHANNELS)
    fill = tl.load(fill_pointer + row)
    closes = fill == Q - 1
    # Without heads a program has neither channels nor exponents; the first of a row's writes its b and its fill.
    channels = tl.where(head < heads, width, 0)
    channel = p < channels
    inside, of_head = q < Q, q < tl.where(head < heads, Q, 0)
    first = program % (blocks * most_heads) == 0
    # In place, only the position's own slot changes: other programs may still read the rest.
    left = (q == fill) & (q < Q - 1) if IN_PLACE else inside
    one, slot = row * heads + head, row * Q + q
    slot_of_head = slot * heads + head

    d = tl.load(open_d_pointer + slot_of_head, mask=of_head, other=0).to(tl.int32)
    d = tl.where(q < fill, d, 0) + tl.load(d_pointer + one + q * 0, mask=of_head & (q == fill), other=0)
    tl.store(
        rest_d_pointer + slot_of_head, tl.where(closes, 0, d), mask=left & (q < tl.where(block == 0, Q, 0)) & of_head
    )
    opened_x = slot_of_head[:, None] * width + p[None, :]
    new_x = tl.load(x_pointer + one * width + p, mask=channel, other=0)
    x = tl.load(open_x_pointer + opened_x, mask=inside[:, None] & channel[None, :], other=0)
    x = taken(x, new_x, fill, q)
    tl.store(rest_x_pointer + opened_x, tl.where(closes, 0, x).to(tl.int8), mask=left[:, None] & channel[None, :])
    if first:
        tl.store(rest_pointer + row, tl.where(closes, 0, fill + 1))

    scores, before = tl.zeros([TILE], tl.int32), tl.zeros([CHANNELS], tl.int32)
    for start in range(0, states, STATES):
        s = start + tl.arange(0, STATES)
        known = s < states
        place = (one * width + p)[:, None] * states + s[None, :]
        state = tl.load(h_pointer + place, mask=channel[:, None] & known[None, :], other=0)
        opened = slot[:, None] * states + s[None, :]
        keys = tl.load(open_b_pointer + opened, mask=inside[:, None] & known[None, :], other=0)
        keys = taken(keys, tl.load(b_pointer + row * states + s, mask=known, other=0), fill, q)
        c = tl.load(c_pointer + row * states + s, mask=known, other=0).to(tl.int32)
        scores += tl.sum(keys.to(tl.int32) * c[None, :], 1)
        before += tl.sum(seen_state(state, s_h) * c[None, :], 1)
        elements = (s < tl.where(first, states, 0))[None, :]
        tl.store(rest_b_pointer + opened, tl.where(closes, 0, keys).to(tl.int8), mask=left[:, None] & elements)
        if not IN_PLACE:
            unchanged = (p < tl.where(closes, 0, channels))[:, None] & known[None, :]
            tl.store(end_pointer + place, state, mask=unchanged)

    sums = exponent_sums(d, q)
    last = tl.max(sums, 0)  # the position's own: sums never fall, and stay the same after it
    _, column, weight = gains(sums, d, weight_bits)
    total = output_sum(scores, before, x, column, weight, last, carried_bits)
    skip = tl.load(skip_pointer + head + p * 0, mask=channel, other=0).to(tl.int32)
    total += (new_x.to(tl.int32) * skip).to(tl.int64) * unit
    y = integers.saturate(integers.shift_round(total, shift.to(tl.int64)), 16).to(tl.int16)
    tl.store(y_pointer + one * width + p, y, mask=channel)

    if closes:
        weights, r, kept = input_weights(sums, d, closes)
        high, low = weighed_limbs(x, weights[:, None], r)
        tl.debug_barrier()  # in place, every thread has read its part of the state
        for start in range(0, states, STATES):
            s = start + tl.arange(0, STATES)
            known = s < states
            place = (one * width + p)[:, None] * states + s[None, :]
            state = tl.load(h_pointer + place, mask=channel[:, None] & known[None, :], other=0)
            opened = slot[:, None] * states + s[None, :]
            keys = tl.load(open_b_pointer + opened, mask=inside[:, None] & known[None, :], other=0)
            keys = taken(keys, tl.load(b_pointer + row * states + s, mask=known, other=0), fill, q).to(tl.int8)
            state = next_state(state, added_state(high, low, keys), 4 << r, kept, DECAY_HALF)
            tl.store(end_pointer + place, state, mask=channel[:, None] & known[None, :])


def launch_step(results, inputs, in_place, s_h, s_y):
    """Run a step: the results and inputs of the op, in its order; in place, results may be the arrays of the state."""
    batch, heads, width, states = inputs[5].shape
    chunk = inputs[6].shape[1]
    tile, bits = max(chunk, LEAST_TILE), definition.sum_bits(states)
    few = batch * heads * ceil_div(width, CHANNELS) < FEWEST_PROGRAMS
    channels = FEW_CHANNELS if few else CHANNELS
    launch(
        chunk_step_kernel,
        batch * max(heads, 1) * max(ceil_div(width, channels), 1),
        results,
        inputs,
        *(heads, width, states, chunk, s_h, bits + s_y, 1 << bits),
        *(definition.weight_bits(states), definition.carried_bits(states, s_h)),
        IN_PLACE=in_place,
        TILE=tile,
        CHANNELS=channels,
        STATES=min(max(triton.next_power_of_2(states), LEAST_TILE), LOADED // tile),
        num_warps=WARPS,
    )


@implements(ops.ssd_chunk_scan_step)
def ssd_chunk_scan_step(x, d, b, c, skip, *state, s_h, s_y):
    x, b, c = map(aligned, (x, b, c))
    state = [aligned(array) if array.ndim > 1 else array for array in state]
    y = torch.empty(x.shape, dtype=torch.int16, device=x.device)
    results = y, *(torch.empty(a.shape, dtype=a.dtype, device=a.device) for a in state)
    launch_step(results, (x, d, b, c, skip, *state), False, s_h, s_y)
    return results


def step_in_place(x, d, b, c, skip, *state, s_h, s_y):
    """Run `ssd_chunk_scan_step` on dense arrays; write the state where it stands, and return y and the next fill.

    An open chunk stays as it was at and beyond its fill. The next fill is a new array: layers share one.
    """
    h, open_x, open_d, open_b, fill = state
    y = torch.empty(x.shape, dtype=torch.int16, device=x.device)
    rest = torch.empty(fill.shape, dtype=torch.int32, device=x.device)
    launch_step((y, h, open_x, open_d, open_b, rest), (x, d, b, c, skip, *state), True, s_h, s_y)
    return y, rest


__all__ = ["ssd_chunk_scan_step"]
