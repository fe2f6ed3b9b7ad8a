"""A step of each kind of scan with the ops around it, one kernel each; the state moves on in place.

For few rows the kernel projects x too, each program for itself, which takes less time than to wait for a kernel that
does it once. It loads its state and the position before it waits, because no kernel in front of it writes them.
"""

import triton
import triton.language as tl

from mamba_integer.spec.ops import ssd_chunk as definition

from . import integers
from .activation import silu_gated
from .overlap import start_next, wait_for_inputs
from .recurrence import advance, input_of, modulate
from .rotation import turn
from .ssd_chunk_factors import (
    DECAY_HALF,
    ONE,
    added_state,
    forgotten,
    gains,
    input_weights,
    larger,
    next_state,
    seen_state,
    weighed_limbs,
)
from .ssd_chunk_step import output_sum
from .step_products import columns_of, loaded, planes_of, product, quantised, sums_of_planes, weights_of
from .ternary_product import scale_sum


@triton.jit
def requantised(x, shift: tl.constexpr):
    return integers.saturate(integers.shift_round(x.to(tl.int32), shift), 8)


@triton.jit
def part(pointer, words, FIRST, COUNT, SIZE: tl.constexpr, WORDS: tl.constexpr, PROJECTS: tl.constexpr):
    """Return the weights of some columns of the projection of x, or their places where it is there already."""
    at = tl.arange(0, SIZE)
    if PROJECTS:
        return weights_of(pointer + FIRST * words, at, COUNT, words, WORDS)
    else:
        return FIRST + at


@triton.jit
def projection(pointer, row, part, COUNT, num: tl.constexpr, shift: tl.constexpr, PROJECTS: tl.constexpr):
    """Return some columns of the projection of a row of x, which comes as its exponent and planes; zeros beyond."""
    if PROJECTS:
        return scale_sum(sums_of_planes(row[1], part), row[0], num, shift, (1 << shift) >> 1).to(tl.int32)
    else:
        at = tl.arange(0, part.shape[0])
        return tl.load(pointer + part, mask=at < COUNT, other=0).to(tl.int32)


@triton.jit
def row_of(x_pointer, DEPTH: tl.constexpr, WORDS: tl.constexpr, PROJECTS: tl.constexpr):
    """Return the exponent and the planes of a row of x."""
    if PROJECTS:
        e, q = quantised(loaded(x_pointer, DEPTH, WORDS))
        return e, planes_of(q, WORDS)
    else:
        return ()


@triton.jit
def selective_kernel(
    y_pointer,
    h_pointer,
    xz_pointer,
    projected_pointer,
    w_pointer,
    base_pointer,
    skip_pointer,
    channels,
    words,
    x_words,
    states,
    DEPTH: tl.constexpr,
    num: tl.constexpr,
    shift: tl.constexpr,
    x_num: tl.constexpr,
    x_shift: tl.constexpr,
    mixture_shift: tl.constexpr,
    k: tl.constexpr,
    n_max: tl.constexpr,
    s_v: tl.constexpr,
    s_h: tl.constexpr,
    s_y: tl.constexpr,
    convex: tl.constexpr,
    f: tl.constexpr,
    STATES: tl.constexpr,
    WORDS: tl.constexpr,
    COLUMNS: tl.constexpr,
    X_DEPTH: tl.constexpr,
    X_WORDS: tl.constexpr,
    PROJECTS: tl.constexpr,
):
    """Quantise and project the modulation, requantise b and c, step `selective_scan`, gate.

    ``projected_pointer`` is the projection of x, or with PROJECTS the weights that project it.
    """
    start_next()
    row, channel = columns_of(channels, COLUMNS)
    state, known = tl.arange(0, STATES), channel < channels
    inside = known[:, None] & (state < states)[None, :]
    w = weights_of(w_pointer, channel, channels, words, WORDS)
    base = tl.load(base_pointer + channel[:, None] * states + state[None, :], mask=inside, other=0).to(tl.int32)
    skip = tl.load(skip_pointer + channel, mask=known, other=0).to(tl.int32)
    place = h_pointer + (row.to(tl.int64) * channels + channel)[:, None] * states + state[None, :]
    h = tl.load(place, mask=inside, other=0)
    low_part = part(projected_pointer, x_words, 0, DEPTH, 16 * WORDS, X_WORDS, PROJECTS)
    b_part = part(projected_pointer, x_words, DEPTH, states, STATES, X_WORDS, PROJECTS)
    c_part = part(projected_pointer, x_words, DEPTH + states, states, STATES, X_WORDS, PROJECTS)
    wait_for_inputs()
    x_row = xz_pointer + row * 2 * channels
    x = tl.load(x_row + channel, mask=known, other=0).to(tl.int32)
    z = tl.load(x_row + channels + channel, mask=known, other=0).to(tl.int32)
    inputs = row_of(x_row, X_DEPTH, X_WORDS, PROJECTS)
    projected_pointer += row * (DEPTH + 2 * states)
    b = requantised(projection(projected_pointer, inputs, b_part, states, x_num, x_shift, PROJECTS), mixture_shift)
    c = requantised(projection(projected_pointer, inputs, c_part, states, x_num, x_shift, PROJECTS), mixture_shift)
    low = projection(projected_pointer, inputs, low_part, DEPTH, x_num, x_shift, PROJECTS)
    e, q = quantised(tl.reshape(low, [WORDS, 4, 4]))
    modulation = scale_sum(product(q, w, WORDS), e, num, shift, (1 << shift) >> 1).to(tl.int32)
    n = modulate(base, modulation[:, None], n_max)
    h = advance(h, n, input_of(x[:, None], b[None, :], s_v), k, convex)
    total = (x * skip).to(tl.int64) + tl.sum((h >> s_h).to(tl.int64) * c[None, :], 1)
    y = integers.saturate(integers.shift_round(total, s_y), 16).to(tl.int32)
    tl.debug_barrier()  # what is written in place, every thread has read
    tl.store(place, h, mask=inside)
    tl.store(y_pointer + row * channels + channel, silu_gated(y, z, f).to(tl.int16), mask=known)


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
def mixture_of(values, turns, s: tl.constexpr, shift: tl.constexpr, ROTATES: tl.constexpr, STATES: tl.constexpr):
    """Return b or c of a position, turned by it and requantised, (STATES,) in int32."""
    if ROTATES:
        even, odd = tl.split(tl.reshape(values, [STATES // 2, 2]))
        even, odd = turn(even, odd, turns[0], turns[1], turns[2], s, 1)
        values = tl.reshape(tl.join(even, odd), [STATES])
    return requantised(values, shift)


@triton.jit
def chunk_kernel(
    y_pointer,
    h_pointer,
    open_x_pointer,
    open_d_pointer,
    open_b_pointer,
    xz_pointer,
    projected_pointer,
    lam_pointer,
    gam_pointer,
    quadrant_pointer,
    base_pointer,
    skip_pointer,
    position_pointer,
    count_pointer,
    batch,
    heads,
    width,
    states,
    x_words,
    x_num: tl.constexpr,
    x_shift: tl.constexpr,
    n_max: tl.constexpr,
    mixture_shift: tl.constexpr,
    input_shift: tl.constexpr,
    rotation_bits: tl.constexpr,
    s_h: tl.constexpr,
    s_y: tl.constexpr,
    f: tl.constexpr,
    WEIGHT_BITS: tl.constexpr,
    CARRIED_BITS: tl.constexpr,
    SUM_BITS: tl.constexpr,
    ROTATES: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
    X_DEPTH: tl.constexpr,
    X_WORDS: tl.constexpr,
    PROJECTS: tl.constexpr,
):
    """Turn and requantise b and c, modulate the decay, step `ssd_chunk_scan`, gate.

    ``projected_pointer`` is the projection of x, or with PROJECTS the weights that project it.
    """
    start_next()
    program, blocks = tl.program_id(0), tl.cdiv(width, CHANNELS)
    block, head, row = program % blocks, program // blocks % heads, (program // blocks // heads).to(tl.int64)
    q, p, state = tl.arange(0, TILE), block * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, STATES)
    channel, known = p < width, state < states
    base, skip = tl.load(base_pointer + head).to(tl.int32), tl.load(skip_pointer + head).to(tl.int32)
    fill = tl.load(position_pointer + row) % Q
    past, here = q < fill, q == fill
    one, slot = row * heads + head, row * Q + q

    place = h_pointer + (one * width + p)[:, None] * states + state[None, :]
    h = tl.load(place, mask=channel[:, None] & known[None, :], other=0)
    keys_place = open_b_pointer + slot[:, None] * states + state[None, :]
    keys = tl.load(keys_place, mask=past[:, None] & known[None, :], other=0)
    inputs_place = open_x_pointer + (slot * heads + head)[:, None] * width + p[None, :]
    inputs = tl.load(inputs_place, mask=past[:, None] & channel[None, :], other=0)
    d_place = open_d_pointer + slot * heads + head
    d = tl.load(d_place, mask=past, other=0)
    at = tl.load(count_pointer) * batch + row if ROTATES else row
    turns = coefficients((lam_pointer, gam_pointer, quadrant_pointer), at, states, STATES, ROTATES)
    head_part = part(projected_pointer, x_words, head, 1, 1, X_WORDS, PROJECTS)
    b_part = part(projected_pointer, x_words, heads, states, STATES, X_WORDS, PROJECTS)
    c_part = part(projected_pointer, x_words, heads + states, states, STATES, X_WORDS, PROJECTS)
    sums = tl.cumsum(d, 0)
    forgot, end = forgotten(sums, d, q), tl.max(sums, 0)
    sums -= tl.associative_scan(forgot, 0, larger) & (ONE - 1)
    _, column, weight = gains(sums, d, WEIGHT_BITS)
    seen = seen_state(h, s_h)

    wait_for_inputs()
    x_row = xz_pointer + row * 2 * heads * width
    x_place = x_row + head * width + p
    x = requantised(tl.load(x_place, mask=channel, other=0), input_shift)
    z = tl.load(x_place + heads * width, mask=channel, other=0).to(tl.int32)
    x_inputs = row_of(x_row, X_DEPTH, X_WORDS, PROJECTS)
    projected_pointer += row * (heads + 2 * states)
    b = projection(projected_pointer, x_inputs, b_part, states, x_num, x_shift, PROJECTS)
    c = projection(projected_pointer, x_inputs, c_part, states, x_num, x_shift, PROJECTS)
    modulation = tl.max(projection(projected_pointer, x_inputs, head_part, 1, x_num, x_shift, PROJECTS), 0)
    b = mixture_of(b, turns, rotation_bits, mixture_shift, ROTATES, STATES)
    c = mixture_of(c, turns, rotation_bits, mixture_shift, ROTATES, STATES)
    new_d = modulate(base, modulation, n_max)

    tl.store(d_place, new_d + q * 0, mask=here & (q < tl.where(block == 0, Q, 0)))
    tl.store(inputs_place, x.to(tl.int8)[None, :] + tl.zeros_like(inputs), mask=here[:, None] & channel[None, :])
    first = tl.where((head == 0) & (block == 0), states, 0)  # of a row's programs: the one that keeps its b
    tl.store(keys_place, b.to(tl.int8)[None, :] + tl.zeros_like(keys), mask=here[:, None] & (state < first)[None, :])
    inputs = tl.where(here[:, None], x[None, :], inputs.to(tl.int32))
    keys = tl.where(here[:, None], b[None, :], keys.to(tl.int32))

    # Of what the past's exponents say, the position's own entry alone is missing.
    end += new_d
    last = end - (tl.maximum(tl.max(forgot, 0), forgotten(end, new_d, fill)) & (ONE - 1))
    _, new_column, new_weight = gains(last, new_d, WEIGHT_BITS)
    column, weight = tl.where(here, new_column, column), tl.where(here, new_weight, weight)
    scores, before = tl.sum(keys * c[None, :], 1), tl.sum(seen * c[None, :], 1)
    total = output_sum(scores, before, inputs, column, weight, last, CARRIED_BITS)
    total += (x * skip).to(tl.int64) << SUM_BITS
    y = integers.saturate(integers.shift_round(total, SUM_BITS + s_y), 16).to(tl.int32)
    tl.store(y_pointer + one * width + p, silu_gated(y, z, f).to(tl.int16), mask=channel)

    if fill == Q - 1:
        d, sums = tl.where(here, new_d, d), tl.where(past, sums, last)
        weights, r, kept = input_weights(sums, d, True)
        high, low = weighed_limbs(inputs, weights[:, None], r)
        added = added_state(high, low, keys.to(tl.int8))
        h = tl.load(place, mask=channel[:, None] & known[None, :], other=0)  # again: it took registers all the while
        tl.debug_barrier()  # what is written in place, every thread has read
        tl.store(place, next_state(h, added, r, kept, DECAY_HALF), mask=channel[:, None] & known[None, :])


def chunk_bits(states: int, s_h: int) -> dict[str, int]:
    """Return the bits of a chunk's factors."""
    return {
        "WEIGHT_BITS": definition.weight_bits(states),
        "CARRIED_BITS": definition.carried_bits(states, s_h),
        "SUM_BITS": definition.sum_bits(states),
    }
