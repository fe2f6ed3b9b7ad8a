"""A step of the chunked scan with the ops around it; the open chunk moves on in place, and then the state.

A program per row makes all that its heads share, and a program per head does the rest. They load what they can before
they wait, because no kernel in front of them writes it. The factors of all open chunks are made at the start of a step,
and the states of all layers move on at its end, if it is the last of a chunk: so the other kernels need no registers
for it. Scans whose programs each projected x for themselves took a fifth longer per step of ``base`` at one row: 246 us
beside 206 (H200).
"""

import triton
import triton.language as tl

from mamba_integer.spec.ops import ssd_chunk as definition

from . import integers
from .activation import silu_gated
from .overlap import start_next, wait_for_inputs
from .recurrence import modulate
from .rotation import turn
from .ssd_chunk_factors import (
    DECAY_HALF,
    FRACTION_BITS,
    LARGEST_ROW_EXPONENT,
    ONE,
    added_state,
    exponent_sums,
    forgotten,
    fraction_power,
    gains,
    input_weights,
    larger,
    next_state,
    round_by,
    rounded_power,
    row_exponent,
    seen_state,
    weighed_limbs,
)
from .step_norm import quantised
from .step_products import loaded, planes_of, sums_of_planes, weights_of
from .step_scans import requantised
from .ternary_product import scale_sum

SIDE_BY_SIDE = tl.constexpr(16)  # states that a few threads of a program have, each a load's width


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
def past_factors(d, q, WEIGHT_BITS: tl.constexpr):
    """Return of open chunks' exponents, along the first axis: columns, weights, the sums, and what they forget.

    They are 0 beyond a chunk's fill.
    """
    sums = tl.cumsum(d, 0)
    forgot, end = forgotten(sums, d, q), tl.max(sums, 0)
    sums -= tl.associative_scan(forgot, 0, larger) & (ONE - 1)
    _, column, weight = gains(sums, d, WEIGHT_BITS)
    return column, weight, end, tl.max(forgot, 0)


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
    new_d,
    fill,
    skip,
    s_y: tl.constexpr,
    f: tl.constexpr,
    WEIGHT_BITS: tl.constexpr,
    CARRIED_BITS: tl.constexpr,
    SUM_BITS: tl.constexpr,
):
    """Return the gated output of a position: of its chunk's past, which may be empty, of itself and of the state."""
    end = past[2] + new_d
    last = end - (tl.maximum(past[3], forgotten(end, new_d, fill)) & (ONE - 1))
    _, column, weight = gains(last, new_d, WEIGHT_BITS)
    mixed, new = mixed_scores(scores, past[0], past[1], last), mixed_scores(score, column, weight, last)
    e = row_exponent(tl.maximum(tl.max(tl.abs(mixed), 0), tl.abs(new)))
    within = tl.sum(round_by(mixed, tl.zeros_like(mixed) + e)[:, None] * inputs.to(tl.int32), 0)
    within += round_by(new, e) * x
    power_of_fraction = fraction_power(last)
    total = within.to(tl.int64) * round_by(power_of_fraction, -e + LARGEST_ROW_EXPONENT)
    total += before.to(tl.int64) * rounded_power(power_of_fraction, last, CARRIED_BITS)
    total += (x * skip).to(tl.int64) << SUM_BITS
    y = integers.saturate(integers.shift_round(total, SUM_BITS + s_y), 16).to(tl.int32)
    return silu_gated(y, z, f).to(tl.int16)


@triton.jit
def part(pointer, column, known, words, WORDS: tl.constexpr, PROJECTS: tl.constexpr):
    """Return the weights of some columns of the projection of x, or, where it is there already, the columns."""
    if PROJECTS:
        return weights_of(pointer, column, known, words, WORDS)
    else:
        return column


@triton.jit
def projection(pointer, row, part, known, num: tl.constexpr, shift: tl.constexpr, PROJECTS: tl.constexpr):
    """Return some columns of the projection of a row of x, which comes as its exponent and planes."""
    if PROJECTS:
        return scale_sum(sums_of_planes(row[1], part), row[0], num, shift, (1 << shift) >> 1).to(tl.int32)
    else:
        return tl.load(pointer + part, mask=known, other=0).to(tl.int32)


@triton.jit
def row_of(x_pointer, DEPTH: tl.constexpr, WORDS: tl.constexpr, PROJECTS: tl.constexpr):
    """Return the exponent and the planes of a row of x."""
    if PROJECTS:
        e, q = quantised(loaded(x_pointer, DEPTH, WORDS))
        return e, planes_of(q, WORDS)
    else:
        return ()


@triton.jit
def mixture_kernel(
    c_pointer,
    scores_pointer,
    modulation_pointer,
    open_b_pointer,
    xz_pointer,
    projected_pointer,
    lam_pointer,
    gam_pointer,
    quadrant_pointer,
    position_pointer,
    count_pointer,
    batch,
    heads: tl.constexpr,
    states: tl.constexpr,
    x_words: tl.constexpr,
    x_num: tl.constexpr,
    x_shift: tl.constexpr,
    mixture_shift: tl.constexpr,
    rotation_bits: tl.constexpr,
    ROTATES: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    STATES: tl.constexpr,
    HEADS: tl.constexpr,
    X_DEPTH: tl.constexpr,
    X_WORDS: tl.constexpr,
    PROJECTS: tl.constexpr,
):
    """Project x, turn and requantise b and c, and score a row's open chunk: all that its heads share.

    ``projected_pointer`` is the projection of x, or with PROJECTS the weights that project it.
    """
    start_next()
    row, q, state, head = tl.program_id(0).to(tl.int64), tl.arange(0, TILE), tl.arange(0, STATES), tl.arange(0, HEADS)
    known, fill = state < states, tl.load(position_pointer + row) % Q
    keys_place = open_b_pointer + (row * Q + q)[:, None] * states + state[None, :]
    keys = tl.load(keys_place, mask=(q < fill)[:, None] & known[None, :], other=0)
    at = tl.load(count_pointer) * batch + row if ROTATES else row
    turns = coefficients((lam_pointer, gam_pointer, quadrant_pointer), at, states, STATES, ROTATES)
    mixed, is_mixed = mixture_columns(heads, states, STATES)
    mixed_part = part(projected_pointer, mixed, is_mixed, x_words, X_WORDS, PROJECTS)
    head_part = part(projected_pointer, head, head < heads, x_words, X_WORDS, PROJECTS)
    wait_for_inputs()
    inputs = row_of(xz_pointer + row * 2 * X_DEPTH, X_DEPTH, X_WORDS, PROJECTS)
    projected_pointer += row * (heads + 2 * states)
    values = projection(projected_pointer, inputs, mixed_part, is_mixed, x_num, x_shift, PROJECTS)
    b, c = mixtures_of(values, turns, rotation_bits, mixture_shift, ROTATES, STATES)
    modulation = projection(projected_pointer, inputs, head_part, head < heads, x_num, x_shift, PROJECTS)
    scores = tl.where(q == fill, tl.sum(b * c), tl.sum(keys.to(tl.int32) * c[None, :], 1))
    tl.store(open_b_pointer + (row * Q + fill) * states + state, b.to(tl.int8), mask=known)
    tl.store(c_pointer + row * states + state, c.to(tl.int8), mask=known)
    tl.store(scores_pointer + row * TILE + q, scores)
    tl.store(modulation_pointer + row * heads + head, modulation, mask=head < heads)


@triton.jit
def factors_kernel(
    columns_pointer,
    weights_pointer,
    ends_pointer,
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
    start_next()
    program, blocks = tl.program_id(0), (heads + HEADS - 1) // HEADS
    layer, row = program // blocks // rows, (program // blocks % rows).to(tl.int64)
    q, head = tl.arange(0, TILE), program % blocks * HEADS + tl.arange(0, HEADS)
    known, fill = head < heads, tl.load(position_pointer + row) % Q
    open_d_pointer = tl.load(layers_pointer + 4 * layer + 1).to(tl.pointer_type(tl.int32))
    place = open_d_pointer + (row * Q + q)[:, None] * heads + head[None, :]
    d = tl.load(place, mask=(q < fill)[:, None] & known[None, :], other=0)
    column, weight, end, forgot = past_factors(d, q[:, None], WEIGHT_BITS)
    wait_for_inputs()
    one = (layer * rows + row) * heads + head
    factor_place = one[None, :] * TILE + q[:, None]
    tl.store(columns_pointer + factor_place, column, mask=known[None, :])
    tl.store(weights_pointer + factor_place, weight, mask=known[None, :])
    tl.store(ends_pointer + one, end, mask=known)
    tl.store(forgot_pointer + one, forgot, mask=known)


@triton.jit
def head_of_chunk_kernel(
    y_pointer,
    open_x_pointer,
    open_d_pointer,
    h_pointer,
    xz_pointer,
    c_pointer,
    scores_pointer,
    modulation_pointer,
    columns_pointer,
    weights_pointer,
    ends_pointer,
    forgot_pointer,
    base_pointer,
    skip_pointer,
    position_pointer,
    heads: tl.constexpr,
    width: tl.constexpr,
    states: tl.constexpr,
    n_max: tl.constexpr,
    input_shift: tl.constexpr,
    s_h: tl.constexpr,
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
    """Modulate the decay, give the output of `ssd_chunk_scan` from the scores, gate."""
    start_next()
    program, blocks = tl.program_id(0), (width + CHANNELS - 1) // CHANNELS
    block, head, row = program % blocks, program // blocks % heads, (program // blocks // heads).to(tl.int64)
    q, p = tl.arange(0, TILE), block * CHANNELS + tl.arange(0, CHANNELS)
    # Of a channel's states a thread has several, so that few of its sums cross threads.
    state = SIDE_BY_SIDE * tl.arange(0, STATES // SIDE_BY_SIDE)[:, None] + tl.arange(0, SIDE_BY_SIDE)[None, :]
    channel, known = p < width, state < states
    base, skip = tl.load(base_pointer + head).to(tl.int32), tl.load(skip_pointer + head).to(tl.int32)
    fill = tl.load(position_pointer + row) % Q
    past, one, slot = q < fill, row * heads + head, row * Q + q
    here = (row * Q + fill) * heads + head

    place = h_pointer + (one * width + p)[:, None, None] * states + state[None, :, :]
    h = tl.load(place, mask=channel[:, None, None] & known[None, :, :], other=0)
    # Four channels of a position per thread: more would leave the sums over positions to fewer threads.
    inputs_place = tl.max_contiguous(open_x_pointer + (slot * heads + head)[:, None] * width + p[None, :], [1, 4])
    inputs = tl.load(inputs_place, mask=past[:, None] & channel[None, :], other=0)

    wait_for_inputs()
    c = tl.load(c_pointer + row * states + state, mask=known, other=0).to(tl.int32)
    scores = tl.load(scores_pointer + row * TILE + q, mask=past, other=0)
    score = tl.load(scores_pointer + row * TILE + fill)
    column, weight = tl.load(columns_pointer + one * TILE + q), tl.load(weights_pointer + one * TILE + q)
    factors = column, weight, tl.load(ends_pointer + one), tl.load(forgot_pointer + one)
    new_d = modulate(base, tl.load(modulation_pointer + one), n_max)
    x_place = xz_pointer + (2 * row * heads + head) * width + p
    x = requantised(tl.load(x_place, mask=channel, other=0), input_shift)
    z = tl.load(x_place + heads * width, mask=channel, other=0).to(tl.int32)
    tl.store(open_d_pointer + here, new_d, mask=block == 0)
    tl.store(open_x_pointer + here * width + p, x.to(tl.int8), mask=channel)
    before = tl.sum(tl.sum(seen_state(h, s_h) * c[None, :, :], 1), 1)
    scales = s_y, f, WEIGHT_BITS, CARRIED_BITS, SUM_BITS
    y = gated_output(inputs, x, z, scores, score, before, factors, new_d, fill, skip, *scales)
    tl.store(y_pointer + one * width + p, y, mask=channel)


@triton.jit
def close_kernel(
    layers_pointer,
    position_pointer,
    layers,
    heads,
    width,
    states,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Move the states of all layers on, in place, for rows at the last position of a chunk.

    ``layers_pointer`` has the addresses of each layer's open x, exponents and b, and of its state.
    """
    start_next()
    program, blocks = tl.program_id(0), tl.cdiv(width, CHANNELS)
    block, head, row = program % blocks, program // blocks % heads, (program // blocks // heads).to(tl.int64)
    q, p, state = tl.arange(0, TILE), block * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, STATES)
    inside, channel, known = q < Q, p < width, state < states
    slot = row * Q + q
    fill = tl.load(position_pointer + row) % Q
    wait_for_inputs()
    if fill == Q - 1:
        for layer in range(layers):
            open_x_pointer = tl.load(layers_pointer + 4 * layer).to(tl.pointer_type(tl.int8))
            open_d_pointer = tl.load(layers_pointer + 4 * layer + 1).to(tl.pointer_type(tl.int32))
            open_b_pointer = tl.load(layers_pointer + 4 * layer + 2).to(tl.pointer_type(tl.int8))
            h_pointer = tl.load(layers_pointer + 4 * layer + 3).to(tl.pointer_type(tl.int32))
            d = tl.load(open_d_pointer + slot * heads + head, mask=inside, other=0)
            inputs_place = open_x_pointer + (slot * heads + head)[:, None] * width + p[None, :]
            inputs = tl.load(inputs_place, mask=inside[:, None] & channel[None, :], other=0)
            keys_place = open_b_pointer + slot[:, None] * states + state[None, :]
            keys = tl.load(keys_place, mask=inside[:, None] & known[None, :], other=0)
            place = h_pointer + ((row * heads + head) * width + p)[:, None] * states + state[None, :]
            h = tl.load(place, mask=channel[:, None] & known[None, :], other=0)
            weights, r, kept = input_weights(exponent_sums(d, q), d, True)
            high, low = weighed_limbs(inputs, weights[:, None], r)
            h = next_state(h, added_state(high, low, keys), r, kept, DECAY_HALF)
            tl.debug_barrier()  # what is written in place, every thread has read
            tl.store(place, h, mask=channel[:, None] & known[None, :])


def chunk_bits(states: int, s_h: int) -> dict[str, int]:
    """Return the bits of a chunk's factors."""
    return {
        "WEIGHT_BITS": definition.weight_bits(states),
        "CARRIED_BITS": definition.carried_bits(states, s_h),
        "SUM_BITS": definition.sum_bits(states),
    }
