"""The scans of `step_row`, with the ops around them; the state moves on in place.

What doesn't depend on the rows of the phase before is loaded and computed before the wait, and for the next block of
channels while the present one is computed.
"""

import triton
import triton.language as tl

from . import integers
from .activation import silu_gated
from .recurrence import advance, input_of, modulate
from .rotation import turn
from .ssd_chunk_factors import (
    DECAY_HALF,
    FRACTION_BITS,
    LARGEST_ROW_EXPONENT,
    LARGEST_TWO_LIMBS,
    ONE,
    forgotten,
    fraction_power,
    gains,
    input_weights,
    larger,
    next_state,
    round_by,
    rounded_power,
    row_exponent,
    weighed_limbs,
)
from .step_exchange import hand_over, handed, wait_for
from .step_products import planes_of, quantised, sums_of_planes, weights_of
from .step_shape import DECAY, DT_PROJ, OPEN_B, OPEN_D, OPEN_X, SKIP, STATE, array, block_of, if_there
from .ternary_product import scale_sum


@triton.jit
def requantised(x, shift: tl.constexpr):
    return integers.saturate(integers.shift_round(x.to(tl.int32), shift), 8)


@triton.jit
def projected_row(row_pointer, COLUMNS: tl.constexpr, number, SHAPE: tl.constexpr):
    """Wait for the projection of a row's x."""
    column = tl.arange(0, triton.next_power_of_2(COLUMNS))
    return wait_for(row_pointer + SHAPE.projected_at, column, column < COLUMNS, number, SHAPE.warps)


@triton.jit
def part_of(row, START: tl.constexpr, COUNT: tl.constexpr, SIZE: tl.constexpr):
    """Return so many elements of a row from ``START`` on, and zeros after them."""
    at = tl.arange(0, SIZE)
    return tl.where(at < COUNT, tl.gather(row, tl.where(at < COUNT, START + at, 0), 0), 0)


@triton.jit
def channels_before(row_pointer, table, layer, member, j, row, there, SHAPE: tl.constexpr):
    """Return what a block of channels needs beside the projection of x: its place, state, weights, x and z."""
    STATES: tl.constexpr = triton.next_power_of_2(SHAPE.states1)
    words: tl.constexpr = (SHAPE.rank + 15) // 16
    head, p, known = block_of(member, j, 0, SHAPE.channels, SHAPE)
    channel, state = head * SHAPE.headdim + p, tl.arange(0, STATES)
    inside = known[:, None] & (state < SHAPE.states1)[None, :]
    place = (row * SHAPE.inner + channel)[:, None] * SHAPE.states1 + state[None, :]
    h = tl.load(array(table, layer, STATE, tl.int32) + place, mask=if_there(inside, there), other=0)
    base = array(table, layer, DECAY, tl.int16) + channel[:, None] * SHAPE.states1 + state[None, :]
    base = tl.load(base, mask=inside, other=0).to(tl.int32)
    column = tl.where(known, channel, SHAPE.inner)
    w = array(table, layer, DT_PROJ, tl.int32)
    w = weights_of(w, column, SHAPE.inner, words, triton.next_power_of_2(words))
    skip = tl.load(array(table, layer, SKIP, tl.int16) + channel, mask=known, other=0).to(tl.int32)
    x, z = handed(row_pointer + SHAPE.x_at, channel, known), handed(row_pointer + SHAPE.z_at, channel, known)
    return place, h, base, w, skip, x, z


@triton.jit
def scan_channels(words, number, table, layer, member, first_row, rows, SHAPE: tl.constexpr):
    """Quantise and project the modulation, requantise b and c, step `selective_scan`, gate."""
    STATES: tl.constexpr = triton.next_power_of_2(SHAPE.states1)
    WORDS: tl.constexpr = triton.next_power_of_2((SHAPE.rank + 15) // 16)
    state = tl.arange(0, STATES)
    for i in range(SHAPE.rows):
        there = first_row + i < rows
        row = tl.minimum(first_row + i, rows - 1).to(tl.int64)
        row_pointer = words + ((first_row + i).to(tl.int64) * SHAPE.layers + layer) * SHAPE.pitch
        place, h, base, w, skip, x, z = channels_before(row_pointer, table, layer, member, 0, row, there, SHAPE)
        mixed = projected_row(row_pointer, SHAPE.projected1, number, SHAPE)
        b = requantised(part_of(mixed, SHAPE.rank, SHAPE.states1, STATES), SHAPE.mixture_shift)
        c = requantised(part_of(mixed, SHAPE.rank + SHAPE.states1, SHAPE.states1, STATES), SHAPE.mixture_shift)
        e, q = quantised(tl.reshape(part_of(mixed, 0, SHAPE.rank, 16 * WORDS), [WORDS, 4, 4]))
        planes = planes_of(q, WORDS)
        for j in range(SHAPE.blocks):
            present = place, h, base, w, skip, x, z
            if SHAPE.blocks > 1:
                place, h, base, w, skip, x, z = channels_before(
                    row_pointer, table, layer, member, j + 1, row, there, SHAPE
                )
            step_channels(present, row_pointer, b, c, planes, e, number, table, layer, member, j, there, SHAPE)
    tl.debug_barrier()


@triton.jit
def step_channels(before, row_pointer, b, c, planes, e, number, table, layer, member, j, there, SHAPE: tl.constexpr):
    """Step and gate a block of channels."""
    place, h, base, w, skip, x, z = before
    head, p, known = block_of(member, j, 0, SHAPE.channels, SHAPE)
    inside = if_there(known[:, None] & (tl.arange(0, b.shape[0]) < SHAPE.states1)[None, :], there)
    sums = sums_of_planes(w, planes)
    modulation = scale_sum(sums, e, SHAPE.dt_num, SHAPE.dt_shift, (1 << SHAPE.dt_shift) >> 1).to(tl.int32)
    n = modulate(base, modulation[:, None], SHAPE.n_max)
    h = advance(h, n, input_of(x[:, None], b[None, :], SHAPE.s_v), SHAPE.k, SHAPE.convex)
    total = (x * skip).to(tl.int64) + tl.sum((h >> SHAPE.s_h).to(tl.int64) * c[None, :], 1)
    y = integers.saturate(integers.shift_round(total, SHAPE.s_y), 16).to(tl.int32)
    tl.debug_barrier()  # what is written in place, every thread has read
    tl.store(array(table, layer, STATE, tl.int32) + place, h, mask=inside)
    hand_over(row_pointer + SHAPE.y_at, head * SHAPE.headdim + p, silu_gated(y, z, SHAPE.f), known, number)


@triton.jit
def turned(values, coefficients, SHAPE: tl.constexpr, STATES: tl.constexpr):
    """Return b or c of a position, turned by it and requantised."""
    if SHAPE.rotates:
        even, odd = tl.split(tl.reshape(values, [STATES // 2, 2]))
        even, odd = turn(even, odd, coefficients[0], coefficients[1], coefficients[2], SHAPE.rotation_bits, 1)
        values = tl.reshape(tl.join(even, odd), [STATES])
    return requantised(values, SHAPE.mixture_shift)


@triton.jit
def coefficients_of(turns, place, SHAPE: tl.constexpr, STATES: tl.constexpr):
    """Return lam, gam and quadrant of a position's pairs."""
    pair = tl.arange(0, STATES // 2)
    inside, place = 2 * pair < SHAPE.states2, place * (SHAPE.states2 // 2) + pair
    lam = tl.load(turns[0] + place, mask=inside, other=0)
    gam = tl.load(turns[1] + place, mask=inside, other=0)
    return lam, gam, tl.load(turns[2] + place, mask=inside, other=0).to(tl.int32)


@triton.jit
def past_sums(d, q):
    """Return the sums of the exponents before a position, their end, and the last that forgets."""
    raw = tl.cumsum(d, 0)
    forgot = forgotten(raw, d, q)
    sums = raw - (tl.associative_scan(forgot, 0, larger) & (ONE - 1))
    return sums, tl.max(raw, 0), tl.max(forgot, 0)


@triton.jit
def state_of(table, layer, head, p, known, row, SHAPE: tl.constexpr, STATES: tl.constexpr):
    """Return the places of some channels' state, and which of them there are."""
    state = tl.arange(0, STATES)
    place = ((row * SHAPE.heads + head) * SHAPE.headdim + p)[:, None] * SHAPE.states2 + state[None, :]
    return array(table, layer, STATE, tl.int32) + place, known[:, None] & (state < SHAPE.states2)[None, :]


@triton.jit
def heads_before(row_pointer, table, layer, member, j, row, fill, SHAPE: tl.constexpr):
    """Return what a block of a head needs beside the projection of x: state, past exponents and inputs, x and z."""
    TILE: tl.constexpr = SHAPE.chunk_tile
    STATES: tl.constexpr = SHAPE.states2_tile
    head, p, known = block_of(member, j, 0, SHAPE.channels, SHAPE)
    q = tl.arange(0, TILE)
    past, slot = q < fill, (row * SHAPE.chunk + q) * SHAPE.heads + head
    place, inside = state_of(table, layer, head, p, known, row, SHAPE, STATES)
    h = tl.load(place, mask=inside, other=0)
    inputs = array(table, layer, OPEN_X, tl.int8) + slot[:, None] * SHAPE.headdim + p[None, :]
    inputs = tl.load(inputs, mask=past[:, None] & known[None, :], other=0)
    d = tl.load(array(table, layer, OPEN_D, tl.int32) + slot, mask=past, other=0)
    base = tl.load(array(table, layer, DECAY, tl.int16) + head).to(tl.int32)
    skip = tl.load(array(table, layer, SKIP, tl.int16) + head).to(tl.int32)
    channel = head * SHAPE.headdim + p
    x, z = handed(row_pointer + SHAPE.x_at, channel, known), handed(row_pointer + SHAPE.z_at, channel, known)
    sums, raw, forgot = past_sums(d, q)
    _, column, weight = gains(sums, d, SHAPE.weight_bits)
    seen = (h + (1 << (SHAPE.chunk_s_h - 1))) >> SHAPE.chunk_s_h
    seen = tl.minimum(tl.maximum(seen, -LARGEST_TWO_LIMBS), LARGEST_TWO_LIMBS)
    x = requantised(x, SHAPE.input_shift)
    return seen, inputs, d, sums, raw, forgot, column, weight, base, skip, x, z


@triton.jit
def scan_heads(words, number, table, layer, member, first_row, rows, position, count, turns, SHAPE: tl.constexpr):
    """Turn and requantise b and c, modulate the decay, step `ssd_chunk_scan`, gate."""
    TILE: tl.constexpr = SHAPE.chunk_tile
    STATES: tl.constexpr = SHAPE.states2_tile
    q, state = tl.arange(0, TILE), tl.arange(0, STATES)
    known = state < SHAPE.states2
    for i in range(SHAPE.rows):
        there = first_row + i < rows
        row = tl.minimum(first_row + i, rows - 1).to(tl.int64)
        row_pointer = words + ((first_row + i).to(tl.int64) * SHAPE.layers + layer) * SHAPE.pitch
        fill = tl.load(position + row) % SHAPE.chunk
        here = q == fill
        keys_place = array(table, layer, OPEN_B, tl.int8) + (row * SHAPE.chunk + q)[:, None] * SHAPE.states2
        keys_place += state[None, :]
        keys = tl.load(keys_place, mask=(q < fill)[:, None] & known[None, :], other=0)
        coefficients = turns
        if SHAPE.rotates:
            coefficients = coefficients_of(turns, tl.load(count) * rows + row, SHAPE, STATES)
        seen, inputs, d, sums, raw, forgot, column, weight, base, skip, x, z = heads_before(
            row_pointer, table, layer, member, 0, row, fill, SHAPE
        )
        mixed = projected_row(row_pointer, SHAPE.projected2, number, SHAPE)
        b = turned(part_of(mixed, SHAPE.heads, SHAPE.states2, STATES), coefficients, SHAPE, STATES)
        c = turned(part_of(mixed, SHAPE.heads + SHAPE.states2, SHAPE.states2, STATES), coefficients, SHAPE, STATES)
        kept = if_there(if_there(known, there), member == 0)  # of a group's programs, one keeps b
        tl.store(keys_place, b.to(tl.int8)[None, :] + tl.zeros_like(keys), mask=here[:, None] & kept[None, :])
        keys = tl.where(here[:, None], b.to(tl.int8)[None, :], keys)
        scores = tl.sum(keys.to(tl.int32) * c[None, :], 1)
        for j in range(SHAPE.blocks):
            present = seen, inputs, d, sums, raw, forgot, column, weight, base, skip, x, z
            if SHAPE.blocks > 1:
                seen, inputs, d, sums, raw, forgot, column, weight, base, skip, x, z = heads_before(
                    row_pointer, table, layer, member, j + 1, row, fill, SHAPE
                )
            step_head(
                present, row_pointer, mixed, keys, c, scores, fill, number, table, layer, member, j, row, there, SHAPE
            )
    tl.debug_barrier()


@triton.jit
def step_head(
    before, row_pointer, mixed, keys, c, scores, fill, number, table, layer, member, j, row, there, SHAPE: tl.constexpr
):
    """Step and gate a block of a head."""
    seen, inputs, d, sums, raw, forgot, column, weight, base, skip, x, z = before
    TILE: tl.constexpr = SHAPE.chunk_tile
    STATES: tl.constexpr = SHAPE.states2_tile
    head, p, known = block_of(member, j, 0, SHAPE.channels, SHAPE)
    q = tl.arange(0, TILE)
    here = q == fill
    modulation = tl.sum(tl.where(tl.arange(0, mixed.shape[0]) == head, mixed, 0), 0)
    new_d = modulate(base, modulation, SHAPE.chunk_n_max)
    slot = (row * SHAPE.chunk + q) * SHAPE.heads + head
    written = if_there(known, there)
    first = if_there(here, tl.sum(tl.where(p == 0, written.to(tl.int32), 0), 0) > 0)  # its head's first channel is here
    tl.store(array(table, layer, OPEN_D, tl.int32) + slot, new_d + q * 0, mask=first)
    inputs_place = array(table, layer, OPEN_X, tl.int8) + slot[:, None] * SHAPE.headdim + p[None, :]
    tl.store(inputs_place, x.to(tl.int8)[None, :] + tl.zeros_like(inputs), mask=here[:, None] & written[None, :])
    inputs = tl.where(here[:, None], x.to(tl.int8)[None, :], inputs)

    raw += new_d
    last = raw - (tl.maximum(forgot, forgotten(raw, new_d, fill)) & (ONE - 1))
    _, new_column, new_weight = gains(last, new_d, SHAPE.weight_bits)
    column, weight = tl.where(here, new_column, column), tl.where(here, new_weight, weight)
    lag = tl.minimum((-column + (last >> FRACTION_BITS)).to(tl.uint32), 31).to(tl.int32)
    mixtures = (scores * weight) >> lag
    e = row_exponent(tl.max(tl.abs(mixtures), 0))
    within = tl.sum(round_by(mixtures, tl.zeros_like(mixtures) + e)[:, None] * inputs.to(tl.int32), 0)
    power_of_fraction = fraction_power(last)
    total = within.to(tl.int64) * round_by(power_of_fraction, -e + LARGEST_ROW_EXPONENT)
    carried = tl.sum(seen * c[None, :], 1)
    total += carried.to(tl.int64) * rounded_power(power_of_fraction, last, SHAPE.carried_bits)
    total += (x * skip).to(tl.int64) << SHAPE.sum_bits
    y = integers.saturate(integers.shift_round(total, SHAPE.sum_bits + SHAPE.chunk_s_y), 16).to(tl.int32)
    hand_over(row_pointer + SHAPE.y_at, head * SHAPE.headdim + p, silu_gated(y, z, SHAPE.f), known, number)

    if fill == SHAPE.chunk - 1:
        d, sums = tl.where(here, new_d, d), tl.where(q < fill, sums, last)
        weights, r, kept = input_weights(sums, d, True)
        high, low = weighed_limbs(inputs, weights[:, None], r)
        added = tl.dot(tl.trans(high), keys, out_dtype=tl.int32) << 8
        added += tl.dot(tl.trans(low), keys, out_dtype=tl.int32)
        place, inside = state_of(table, layer, head, p, written, row, SHAPE, STATES)
        h = tl.load(place, mask=inside, other=0)
        tl.debug_barrier()  # what is written in place, every thread has read
        tl.store(place, next_state(h, added, r, kept, DECAY_HALF), mask=inside)
