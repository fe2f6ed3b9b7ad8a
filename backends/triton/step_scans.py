"""A step of each kind of scan with the ops around it, one kernel each; the state moves on in place."""

import triton
import triton.language as tl

from mamba_integer.spec.ops import ssd_chunk as definition

from . import integers
from .activation import silu_gated
from .overlap import start_next, wait_for_inputs
from .recurrence import advance, input_of, modulate
from .rotation import turn
from .ssd_chunk_factors import (
    DECAY_BITS,
    FRACTION_BITS,
    LARGEST_ROW_EXPONENT,
    LARGEST_TWO_LIMBS,
    exponent_sums,
    fraction_power,
    gains,
    input_weights,
    round_by,
    rounded_power,
)
from .step_products import columns_of, loaded, product, quantised, weights_of
from .ternary_product import scale_sum

DECAY_HALF = tl.constexpr(1 << (definition.DECAY_BITS - 1))


@triton.jit
def requantised(x, shift: tl.constexpr):
    return integers.saturate(integers.shift_round(x.to(tl.int32), shift), 8)


@triton.jit
def row_exponent(largest):
    """Return the least e >= 1 with which a row's largest magnitude is rounded to at most 127."""
    e = tl.maximum(integers.bit_length(largest) - 7, 1)
    return e + (round_by(largest, e) > 127).to(e.dtype)


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
    states,
    DEPTH: tl.constexpr,
    num: tl.constexpr,
    shift: tl.constexpr,
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
):
    """Quantise and project the modulation, requantise b and c, step `selective_scan`, gate."""
    start_next()
    row, channel = columns_of(channels, COLUMNS)
    state, known = tl.arange(0, STATES), channel < channels
    inside = known[:, None] & (state < states)[None, :]
    w = weights_of(w_pointer, channel, channels, words, WORDS)
    base = tl.load(base_pointer + channel[:, None] * states + state[None, :], mask=inside, other=0).to(tl.int32)
    skip = tl.load(skip_pointer + channel, mask=known, other=0).to(tl.int32)
    wait_for_inputs()
    place = h_pointer + (row.to(tl.int64) * channels + channel)[:, None] * states + state[None, :]
    h = tl.load(place, mask=inside, other=0)
    x_place = xz_pointer + row * 2 * channels + channel
    x = tl.load(x_place, mask=known, other=0).to(tl.int32)
    z = tl.load(x_place + channels, mask=known, other=0).to(tl.int32)
    projected_pointer += row * (DEPTH + 2 * states)
    mixture = projected_pointer + DEPTH + state
    b = requantised(tl.load(mixture, mask=state < states, other=0), mixture_shift)
    c = requantised(tl.load(mixture + states, mask=state < states, other=0), mixture_shift)
    e, q = quantised(loaded(projected_pointer, DEPTH, WORDS))
    modulation = scale_sum(product(q, w, WORDS), e, num, shift, (1 << shift) >> 1).to(tl.int32)
    n = modulate(base, modulation[:, None], n_max)
    h = advance(h, n, input_of(x[:, None], b[None, :], s_v), k, convex)
    total = (x * skip).to(tl.int64) + tl.sum((h >> s_h).to(tl.int64) * c[None, :], 1)
    y = integers.saturate(integers.shift_round(total, s_y), 16).to(tl.int32)
    tl.debug_barrier()  # what is written in place, every thread has read
    tl.store(place, h, mask=inside)
    tl.store(y_pointer + row * channels + channel, silu_gated(y, z, f).to(tl.int16), mask=known)


@triton.jit
def mixture_of(
    projected_pointer,
    turns_pointers,
    place,
    states,
    s: tl.constexpr,
    shift: tl.constexpr,
    ROTATES: tl.constexpr,
    STATES: tl.constexpr,
):
    """Return b or c of a position, turned by it and requantised, (STATES,) in int32."""
    pair = tl.arange(0, STATES // 2)
    state = 2 * pair[:, None] + tl.arange(0, 2)[None, :]
    values = tl.load(projected_pointer + state, mask=state < states, other=0).to(tl.int32)
    if ROTATES:
        lam_pointer, gam_pointer, quadrant_pointer = turns_pointers
        inside, place = 2 * pair < states, place * (states // 2) + pair
        lam = tl.load(lam_pointer + place, mask=inside, other=0)
        gam = tl.load(gam_pointer + place, mask=inside, other=0)
        quadrant = tl.load(quadrant_pointer + place, mask=inside, other=0).to(tl.int32)
        even, odd = tl.split(values)
        even, odd = turn(even, odd, lam, gam, quadrant, s, 1)
        values = tl.join(even, odd)
    return tl.reshape(requantised(values, shift), [STATES])


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
):
    """Turn and requantise b and c, modulate the decay, step `ssd_chunk_scan`, gate."""
    start_next()
    program, blocks = tl.program_id(0), tl.cdiv(width, CHANNELS)
    block, head, row = program % blocks, program // blocks % heads, (program // blocks // heads).to(tl.int64)
    q, p, state = tl.arange(0, TILE), block * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, STATES)
    channel, known = p < width, state < states
    base, skip = tl.load(base_pointer + head).to(tl.int32), tl.load(skip_pointer + head).to(tl.int32)
    wait_for_inputs()
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

    x_place = xz_pointer + row * 2 * heads * width + head * width + p
    x = requantised(tl.load(x_place, mask=channel, other=0), input_shift)
    z = tl.load(x_place + heads * width, mask=channel, other=0).to(tl.int32)
    projected_pointer += row * (heads + 2 * states)
    turns = lam_pointer, gam_pointer, quadrant_pointer
    at = tl.load(count_pointer) * batch + row if ROTATES else row
    b = mixture_of(projected_pointer + heads, turns, at, states, rotation_bits, mixture_shift, ROTATES, STATES)
    c = mixture_of(projected_pointer + heads + states, turns, at, states, rotation_bits, mixture_shift, ROTATES, STATES)
    modulation = tl.load(projected_pointer + head).to(tl.int32)
    new_d = modulate(base, modulation, n_max)

    tl.store(d_place, new_d + q * 0, mask=here & (q < tl.where(block == 0, Q, 0)))
    tl.store(inputs_place, x.to(tl.int8)[None, :] + tl.zeros_like(inputs), mask=here[:, None] & channel[None, :])
    first = tl.where((head == 0) & (block == 0), states, 0)  # of a row's programs: the one that keeps its b
    tl.store(keys_place, b.to(tl.int8)[None, :] + tl.zeros_like(keys), mask=here[:, None] & (state < first)[None, :])
    d = tl.where(here, new_d, d)
    inputs = tl.where(here[:, None], x[None, :], inputs.to(tl.int32))
    keys = tl.where(here[:, None], b[None, :], keys.to(tl.int32))

    scores = tl.sum(keys * c[None, :], 1)
    seen = (h + (1 << (s_h - 1))) >> s_h
    before = tl.sum(tl.minimum(tl.maximum(seen, -LARGEST_TWO_LIMBS), LARGEST_TWO_LIMBS) * c[None, :], 1)
    sums = exponent_sums(d, q)
    last = tl.max(sums, 0)  # that of the position: sums never fall, and stay after it
    _, column, weight = gains(sums, d, WEIGHT_BITS)
    lag = tl.minimum((-column + (last >> FRACTION_BITS)).to(tl.uint32), 31).to(tl.int32)
    mixed = (scores * weight) >> lag
    e = row_exponent(tl.max(tl.abs(mixed), 0))
    within = tl.sum(round_by(mixed, tl.zeros_like(mixed) + e)[:, None] * inputs, 0)
    power_of_fraction = fraction_power(last)
    total = within.to(tl.int64) * round_by(power_of_fraction, -e + LARGEST_ROW_EXPONENT)
    total += before.to(tl.int64) * rounded_power(power_of_fraction, last, CARRIED_BITS)
    total += (x * skip).to(tl.int64) << SUM_BITS
    y = integers.saturate(integers.shift_round(total, SUM_BITS + s_y), 16).to(tl.int32)
    tl.store(y_pointer + one * width + p, silu_gated(y, z, f).to(tl.int16), mask=channel)

    if fill == Q - 1:
        weights, r, kept = input_weights(sums, d, True)
        weighed = inputs * weights[:, None] + ((1 << r) >> 1)
        mixtures = keys.to(tl.int8)
        added = tl.dot(tl.trans(((weighed + (128 << r)) >> (r + 8)).to(tl.int8)), mixtures, out_dtype=tl.int32) << 8
        added = tl.dot(tl.trans((weighed >> r).to(tl.int8)), mixtures, added, out_dtype=tl.int32)
        h = ((h.to(tl.int64) * kept + DECAY_HALF) >> DECAY_BITS).to(tl.int32) + added * (4 << r)
        tl.debug_barrier()  # what is written in place, every thread has read
        tl.store(place, h, mask=channel[:, None] & known[None, :])


def chunk_bits(states: int, s_h: int) -> dict[str, int]:
    """Return the bits of a chunk's factors."""
    return {
        "WEIGHT_BITS": definition.weight_bits(states),
        "CARRIED_BITS": definition.carried_bits(states, s_h),
        "SUM_BITS": definition.sum_bits(states),
    }
