"""A step of the chunked scan with the ops around it; a kernel of its own moves all states on where a chunk ends.

For few rows, the last of the programs that project a row's x makes all that its heads share; for many rows a kernel
does. A program per head does the rest. They load what they can before they wait, because no kernel in front of them
writes it. Scans whose programs each projected x for themselves took a fifth longer per step of ``base`` at one row:
246 us beside 206 (H200).
"""

import triton
import triton.language as tl

from . import integers
from .activation import silu_gated
from .instructions import dot_halves
from .overlap import start_next_and_wait, wait_and_start_next
from .recurrence import modulate
from .rotation import turn
from .ssd_chunk_factors import (
    FRACTION_BITS,
    LARGEST_ROW_EXPONENT,
    fraction_power,
    round_by,
    rounded_power,
    row_exponent,
)
from .step_norm import arrives_last, keep_largest, quantised
from .step_products import columns_of, loaded, product, weights_of
from .step_scans import requantised
from .step_states import appended_factors
from .ternary_product import scale_sum

SIDE_BY_SIDE = tl.constexpr(8)  # words of states that a few threads of a program have, each a load's width


@triton.jit
def coefficients(turns_pointers, place, states, STATES: tl.constexpr, ROTATES: tl.constexpr):
    """Return lam, gam and quadrant of a position's pairs."""
    if ROTATES:
        lam_pointer, gam_pointer, quadrant_pointer = turns_pointers
        pair = tl.arange(0, STATES // 2)
        inside, place = 2 * pair < states, place * (states // 2) + pair
        lam = tl.load(lam_pointer + place, mask=inside, other=0)
        gam = tl.load(gam_pointer + place, mask=inside, other=0)
        return lam, gam, tl.load(quadrant_pointer + place, mask=inside, other=0).to(tl.int32)
    else:
        return ()


@triton.jit
def mixture_columns(heads, states, STATES: tl.constexpr):
    """Return the columns of b and c in the projection of x, and which there are.

    They come as (pair of states, b or c, state of the pair), so that both are turned and cross the threads as one.
    """
    place = tl.arange(0, 2 * STATES)
    state = place // 4 * 2 + place % 2
    return heads + place // 2 % 2 * states + state, state < states


@triton.jit
def mixtures_of(values, turns, s: tl.constexpr, shift: tl.constexpr, ROTATES: tl.constexpr, STATES: tl.constexpr):
    """Return b and c of a position, turned by it and requantised, each (STATES,) in int32."""
    values = tl.reshape(values, [STATES // 2, 2, 2])
    if ROTATES:
        even, odd = tl.split(values)
        even, odd = turn(even, odd, turns[0][:, None], turns[1][:, None], turns[2][:, None], s, 1)
        values = tl.join(even, odd)
    b, c = tl.split(tl.permute(requantised(values, shift), (0, 2, 1)))
    return tl.reshape(b, [STATES]), tl.reshape(c, [STATES])


@triton.jit
def mixed_scores(scores, column, weight, last):
    lag = tl.minimum((-column + (last >> FRACTION_BITS)).to(tl.uint32), 31).to(tl.int32)
    return (scores * weight) >> lag


@triton.jit
def gated_output(
    inputs,
    x,
    z,
    scores,
    score,
    before,
    past,
    new,
    last,
    skip,
    s_y: tl.constexpr,
    f: tl.constexpr,
    CARRIED_BITS: tl.constexpr,
    SUM_BITS: tl.constexpr,
):
    """Return the gated output of a position: of its chunk's past, which may be empty, of itself and of the state.

    ``past`` are columns and weights of the chunk's positions, ``new`` those of this one, and ``last`` is its sum.
    """
    mixed, new_mixed = mixed_scores(scores, past[0], past[1], last), mixed_scores(score, new[0], new[1], last)
    e = row_exponent(tl.maximum(tl.max(tl.abs(mixed), 0), tl.abs(new_mixed)))
    within = tl.sum(round_by(mixed, tl.zeros_like(mixed) + e)[:, None] * inputs.to(tl.int32), 0)
    within += round_by(new_mixed, e) * x
    power_of_fraction = fraction_power(last)
    total = within.to(tl.int64) * round_by(power_of_fraction, -e + LARGEST_ROW_EXPONENT)
    total += before.to(tl.int64) * rounded_power(power_of_fraction, last, CARRIED_BITS)
    total += (x * skip).to(tl.int64) << SUM_BITS
    y = integers.saturate(integers.shift_round(total, SUM_BITS + s_y), 16).to(tl.int32)
    return silu_gated(y, z, f)


@triton.jit
def open_chunk(
    open_b_pointer,
    turns_pointers,
    positions,
    row,
    batch,
    states: tl.constexpr,
    ROTATES: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    STATES: tl.constexpr,
):
    """Return how full a row's open chunk is, its keys, and the coefficients of the row's position."""
    q, state, fill = tl.arange(0, TILE), tl.arange(0, STATES), tl.load(positions[0] + row) % Q
    keys_place = open_b_pointer + (row * Q + q)[:, None] * states + state[None, :]
    keys = tl.load(keys_place, mask=(q < fill)[:, None] & (state < states)[None, :], other=0)
    at = tl.load(positions[1]) * batch + row if ROTATES else row
    return fill, keys, coefficients(turns_pointers, at, states, STATES, ROTATES)


@triton.jit
def mix(
    results,
    projected_pointer,
    row,
    chunk,
    heads: tl.constexpr,
    states: tl.constexpr,
    shifts: tl.constexpr,
    ROTATES: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    STATES: tl.constexpr,
):
    """Turn and requantise b and c of a row, whose projection is there, and score its open chunk."""
    c_pointer, scores_pointer, open_b_pointer = results
    fill, keys, turns = chunk
    q, state = tl.arange(0, TILE), tl.arange(0, STATES)
    mixed, is_mixed = mixture_columns(heads, states, STATES)
    values = tl.load(projected_pointer + row * (heads + 2 * states) + mixed, mask=is_mixed, other=0).to(tl.int32)
    b, c = mixtures_of(values, turns, shifts[1], shifts[0], ROTATES, STATES)
    scores = tl.where(q == fill, tl.sum(b * c), tl.sum(keys.to(tl.int32) * c[None, :], 1))
    tl.store(open_b_pointer + (row * Q + fill) * states + state, b.to(tl.int8), mask=state < states)
    tl.store(c_pointer + row * STATES + state, c.to(tl.int8))
    tl.store(scores_pointer + row * TILE + q, scores)


@triton.jit
def mix_kernel(
    c_pointer,
    scores_pointer,
    open_b_pointer,
    projected_pointer,
    lam_pointer,
    gam_pointer,
    quadrant_pointer,
    position_pointer,
    count_pointer,
    batch,
    heads: tl.constexpr,
    states: tl.constexpr,
    mixture_shift: tl.constexpr,
    rotation_bits: tl.constexpr,
    ROTATES: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    STATES: tl.constexpr,
):
    """Turn and requantise b and c of a row, and score its open chunk."""
    row, turns_pointers = tl.program_id(0).to(tl.int64), (lam_pointer, gam_pointer, quadrant_pointer)
    positions = position_pointer, count_pointer
    chunk = open_chunk(open_b_pointer, turns_pointers, positions, row, batch, states, ROTATES, Q, TILE, STATES)
    start_next_and_wait()
    results = c_pointer, scores_pointer, open_b_pointer
    shifts: tl.constexpr = (mixture_shift, rotation_bits)
    mix(results, projected_pointer, row, chunk, heads, states, shifts, ROTATES, Q, TILE, STATES)


@triton.jit
def mixture_kernel(
    projected_pointer,
    c_pointer,
    scores_pointer,
    open_b_pointer,
    arrived_pointer,
    xz_pointer,
    w_pointer,
    lam_pointer,
    gam_pointer,
    quadrant_pointer,
    position_pointer,
    count_pointer,
    batch,
    heads: tl.constexpr,
    states: tl.constexpr,
    mixture_shift: tl.constexpr,
    rotation_bits: tl.constexpr,
    ROTATES: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    STATES: tl.constexpr,
    columns: tl.constexpr,
    words: tl.constexpr,
    DEPTH: tl.constexpr,
    num: tl.constexpr,
    shift: tl.constexpr,
    WORDS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Project x; the last program of a row turns and requantises b and c, and scores the row's open chunk."""
    row, column = columns_of(columns, COLUMNS)
    row, turns_pointers = row.to(tl.int64), (lam_pointer, gam_pointer, quadrant_pointer)
    w = weights_of(w_pointer, column, column < columns, words, WORDS)
    positions = position_pointer, count_pointer
    chunk = open_chunk(open_b_pointer, turns_pointers, positions, row, batch, states, ROTATES, Q, TILE, STATES)
    wait_and_start_next()
    e, digits = quantised(loaded(xz_pointer + row * 2 * DEPTH, DEPTH, WORDS))
    y = scale_sum(product(digits, w, WORDS), e, num, shift, (1 << shift) >> 1)
    tl.store(projected_pointer + row * columns + column, y, mask=column < columns)
    if arrives_last(arrived_pointer + row, (columns + COLUMNS - 1) // COLUMNS):
        results = c_pointer, scores_pointer, open_b_pointer
        shifts: tl.constexpr = (mixture_shift, rotation_bits)
        mix(results, projected_pointer, row, chunk, heads, states, shifts, ROTATES, Q, TILE, STATES)


@triton.jit
def head_of_chunk_kernel(
    y_pointer,
    largest_pointer,
    open_x_pointer,
    open_d_pointer,
    columns_pointer,
    weights_pointer,
    totals_pointer,
    forgot_pointer,
    seen_pointer,
    xz_pointer,
    c_pointer,
    scores_pointer,
    projected_pointer,
    base_pointer,
    skip_pointer,
    position_pointer,
    heads: tl.constexpr,
    width: tl.constexpr,
    states: tl.constexpr,
    n_max: tl.constexpr,
    input_shift: tl.constexpr,
    s_y: tl.constexpr,
    f: tl.constexpr,
    WEIGHT_BITS: tl.constexpr,
    CARRIED_BITS: tl.constexpr,
    SUM_BITS: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Modulate the decay, give the output of `ssd_chunk_scan` from the scores, gate.

    The state comes as the outputs see it, two states per word, and c as words of four.
    """
    program, blocks = tl.program_id(0), (width + CHANNELS - 1) // CHANNELS
    block, head, row = program % blocks, program // blocks % heads, (program // blocks // heads).to(tl.int64)
    q, p, four = tl.arange(0, TILE), block * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, STATES // 4)
    # Of a channel's states a thread has several, so that few of its sums cross threads.
    word = SIDE_BY_SIDE * tl.arange(0, STATES // 2 // SIDE_BY_SIDE)[:, None] + tl.arange(0, SIDE_BY_SIDE)[None, :]
    channel = p < width
    base, skip = tl.load(base_pointer + head).to(tl.int32), tl.load(skip_pointer + head).to(tl.int32)
    fill = tl.load(position_pointer + row) % Q
    past, one, slot = q < fill, row * heads + head, row * Q + q
    here = (row * Q + fill) * heads + head

    place = seen_pointer + (one * width + p)[:, None, None] * (STATES // 2) + word[None, :, :]
    seen = tl.load(place, mask=channel[:, None, None], other=0)
    # Four channels of a position per thread: more would leave the sums over positions to fewer threads.
    inputs_place = tl.max_contiguous(open_x_pointer + (slot * heads + head)[:, None] * width + p[None, :], [1, 4])
    inputs = tl.load(inputs_place, mask=past[:, None] & channel[None, :], other=0)
    factors = tl.load(columns_pointer + one * TILE + q), tl.load(weights_pointer + one * TILE + q)
    before_here = one * TILE + fill - 1
    past_total = tl.load(totals_pointer + before_here, mask=fill > 0, other=0)
    past_forgot = tl.load(forgot_pointer + before_here, mask=fill > 0, other=0)

    wait_and_start_next()
    c = tl.load(c_pointer + row * (STATES // 4) + four)
    scores = tl.load(scores_pointer + row * TILE + q, mask=past, other=0)
    score = tl.load(scores_pointer + row * TILE + fill)
    new_d = modulate(base, tl.load(projected_pointer + row * (heads + 2 * states) + head).to(tl.int32), n_max)
    x_place = xz_pointer + (2 * row * heads + head) * width + p
    x = requantised(tl.load(x_place, mask=channel, other=0), input_shift)
    z = tl.load(x_place + heads * width, mask=channel, other=0).to(tl.int32)
    tl.store(open_d_pointer + here, new_d, mask=block == 0)
    tl.store(open_x_pointer + here * width + p, x.to(tl.int8), mask=channel)
    new, last = appended_factors(past_total, past_forgot, new_d, fill, WEIGHT_BITS)
    tl.store(columns_pointer + before_here + 1, new[0], mask=block == 0)
    tl.store(weights_pointer + before_here + 1, new[1], mask=block == 0)
    tl.store(totals_pointer + before_here + 1, new[2], mask=block == 0)
    tl.store(forgot_pointer + before_here + 1, new[3], mask=block == 0)
    low, high = tl.split(tl.reshape(seen, [CHANNELS, STATES // 4, 2]))
    c = c[None, :] + tl.zeros_like(low)
    before = tl.sum(dot_halves(high, c, 1, dot_halves(low, c, 0, tl.zeros_like(low))), 1)
    y = gated_output(inputs, x, z, scores, score, before, factors, new, last, skip, s_y, f, CARRIED_BITS, SUM_BITS)
    y = tl.where(channel, y, 0)
    tl.store(y_pointer + one * width + p, y.to(tl.int16), mask=channel)
    keep_largest(largest_pointer, row, y)
