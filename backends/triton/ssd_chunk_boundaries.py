"""The factors and both boundaries of each chunk, from which the chunked scan's backward computes its gradients.

A chunk's gradients depend on the state before it and on the gradient of the state after it. Two kernels walk through
the chunks of a head, one forwards and one backwards, and keep both as two limbs; then every chunk is on its own.
"""

import triton
import triton.language as tl

from mamba_integer.spec.ops import ssd_chunk as definition

from .overlap import start_next
from .ssd_chunk_factors import (
    DECAY_BITS,
    DECAY_HALF,
    LARGEST_TWO_LIMBS,
    POWER_BITS,
    SIZES,
    exponent_sums,
    fraction_power,
    gains,
    input_weights,
    next_state,
    plus_product,
    power,
    round_by,
    rounded_power,
    weighed_limbs,
)
from .ssd_chunk_limbs import LARGEST_WORD, limb_exponent, limbs, plus_rescaled, word
from .ssd_chunk_outputs import seen_limbs

POWER_ONE = tl.constexpr(1 << definition.POWER_BITS)
# Planes of integers for each position and head, and of integers for each chunk and head.
WHOLE, COLUMN, GAIN, DOWN, CARRIED, WEIGHT, DECAY, RATIO, LARGEST = (tl.constexpr(i) for i in range(9))
SLOPE_EXPONENT, QUERY_WEIGHT, QUERY_SHIFT = (tl.constexpr(i) for i in range(9, 12))
PLANES = 12
KEPT, INPUT_SHIFT, ERROR_SHIFT, SLOPE_SHIFT, QUERY_CUT, ENERGY_SHIFT = (tl.constexpr(i) for i in range(6))
CHUNK_PLANES = 6
MOST_TWICE = tl.constexpr(1 << 13)  # numbers of a state, for two ways to add to it
FREE = *SIZES, "chunk_plane", "d_pointer", "skip_pointer"


@triton.jit(do_not_specialize=[*FREE, "weight_bits", "carried_bits"])
def powers_kernel(
    planes_pointer,
    chunks_pointer,
    d_pointer,
    dy_pointer,
    length,
    heads,
    width,
    chunks,
    plane,
    chunk_plane,
    Q,
    weight_bits,
    carried_bits,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute a chunk's powers of two for one head, its largest errors, and the shift of those that reach the state."""
    program, plane = tl.program_id(0).to(tl.int64), tl.cast(plane, tl.int64)
    n, head, row = program % chunks, program // chunks % heads, program // chunks // heads
    q = tl.arange(0, TILE)
    time = n * Q + q
    inside = (q < Q) & (time < length)
    place = (row * length + time) * heads + head
    d = tl.load(d_pointer + place, mask=inside, other=0).to(tl.int32)
    sums = exponent_sums(d, q)
    power_of_fraction = fraction_power(sums)
    whole, column, gain = gains(sums, d, weight_bits)
    weight, r, kept = input_weights(sums, d, n * Q + Q <= length)
    decay = rounded_power(power_of_fraction, sums, DECAY_BITS)
    # No power is above one, so the divisor is 1 where the gate passes nothing.
    gate = power(d, POWER_BITS).to(tl.int64)
    ratio = tl.where(d > 0, (gate << DECAY_BITS) // tl.maximum(-gate + POWER_ONE, 1), 0).to(tl.int32)

    largest = tl.zeros([TILE], tl.int32)
    for start in range(0, width, CHANNELS):
        p = start + tl.arange(0, CHANNELS)
        dy = tl.load(
            dy_pointer + place[:, None] * width + p[None, :], mask=inside[:, None] & (p < width)[None, :], other=0
        )
        largest = tl.maximum(largest, tl.max(tl.abs(dy.to(tl.int32)), 1))

    planes_pointer += program * TILE + q
    tl.store(planes_pointer + WHOLE * plane, whole)
    tl.store(planes_pointer + COLUMN * plane, column)
    tl.store(planes_pointer + GAIN * plane, gain)
    tl.store(planes_pointer + DOWN * plane, round_by(power_of_fraction, tl.zeros_like(q) + (POWER_BITS - DECAY_BITS)))
    tl.store(planes_pointer + CARRIED * plane, rounded_power(power_of_fraction, sums, carried_bits))
    tl.store(planes_pointer + WEIGHT * plane, weight)
    tl.store(planes_pointer + DECAY * plane, decay)
    tl.store(planes_pointer + RATIO * plane, ratio)
    tl.store(planes_pointer + LARGEST * plane, largest)
    chunks_pointer += program
    tl.store(chunks_pointer + KEPT * chunk_plane, kept)
    tl.store(chunks_pointer + INPUT_SHIFT * chunk_plane, r)
    tl.store(chunks_pointer + ERROR_SHIFT * chunk_plane, limb_exponent(tl.max(largest * decay, 0)))


@triton.jit
def bytes_of_states(pointer, position, there, s, states):
    """Return b or c of some positions: zeros where ``there`` is false."""
    mask = there[:, None] & (s < states)[None, :]
    return tl.load(pointer + position[:, None] * states + s[None, :], mask=mask, other=0)


@triton.jit(do_not_specialize=FREE)
def layout_kernel(
    turned_keys_pointer,
    turned_queries_pointer,
    b_pointer,
    c_pointer,
    length,
    chunks,
    states,
    Q,
    TILE: tl.constexpr,
    STATES: tl.constexpr,
):
    """Lay a chunk's b and c out on the grid, (state, time)."""
    program = tl.program_id(0).to(tl.int64)
    n, row = program % chunks, program // chunks
    q, s = tl.arange(0, TILE), tl.arange(0, STATES)
    time = n * Q + q
    position, there = row * length + time, (q < Q) & (time < length)
    turned = program * TILE * STATES + s[:, None] * TILE + q[None, :]
    tl.store(turned_keys_pointer + turned, tl.trans(bytes_of_states(b_pointer, position, there, s, states)))
    tl.store(turned_queries_pointer + turned, tl.trans(bytes_of_states(c_pointer, position, there, s, states)))


@triton.jit
def walk_forwards(
    program,
    high_pointer,
    low_pointer,
    turned_high_pointer,
    turned_low_pointer,
    x_pointer,
    turned_keys_pointer,
    planes_pointer,
    chunks_pointer,
    h_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    plane,
    chunk_plane,
    Q,
    s_h,
    HALVES: tl.constexpr,
    TILE: tl.constexpr,
    PITCH: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Walk through the chunks; keep the state at the start of each as the outputs see it."""
    plane = tl.cast(plane, tl.int64)
    blocks = tl.cdiv(width, CHANNELS)
    block, head, row = program % blocks, program // blocks % heads, (program // blocks // heads).to(tl.int64)
    q, s, p = tl.arange(0, TILE), tl.arange(0, STATES), block * CHANNELS + tl.arange(0, CHANNELS)
    channel = p < width
    known = channel[:, None] & (s < states)[None, :]
    place, turned_place = p[:, None] * states + s[None, :], s[:, None] * PITCH + p[None, :]
    first = row * heads + head
    state = tl.load(h_pointer + first * width * states + place, mask=known, other=0)
    for n in range(0, chunks):
        at = first * chunks + n
        time = n * Q + q
        inside = ((q < Q) & (time < length))[:, None] & channel[None, :]
        x = tl.load(x_pointer + ((row * length + time)[:, None] * heads + head) * width + p[None, :], inside, other=0)
        turned = tl.load(turned_keys_pointer + (row * chunks + n) * TILE * STATES + s[:, None] * TILE + q[None, :])
        weight = tl.load(planes_pointer + WEIGHT * plane + at * TILE + q)
        kept = tl.load(chunks_pointer + KEPT * chunk_plane + at)
        r = tl.load(chunks_pointer + INPUT_SHIFT * chunk_plane + at)
        high, low = seen_limbs(state, s_h, HALVES)
        tl.store(high_pointer + at * width * states + place, high, mask=known)
        tl.store(low_pointer + at * width * states + place, low, mask=known)
        tl.store(turned_high_pointer + at * states * PITCH + turned_place, tl.trans(high), mask=tl.trans(known))
        tl.store(turned_low_pointer + at * states * PITCH + turned_place, tl.trans(low), mask=tl.trans(known))
        high, low = weighed_limbs(x, weight[:, None], r)
        added = tl.dot(tl.trans(high), tl.trans(turned), out_dtype=tl.int32) << 8
        added = tl.dot(tl.trans(low), tl.trans(turned), added, out_dtype=tl.int32)
        state = next_state(state, added, 4 << r, kept, DECAY_HALF)


@triton.jit
def walk_backwards(
    program,
    high_pointer,
    low_pointer,
    turned_high_pointer,
    turned_low_pointer,
    start_pointer,
    dy_pointer,
    turned_queries_pointer,
    planes_pointer,
    chunks_pointer,
    dh_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    plane,
    chunk_plane,
    Q,
    s_g,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Walk back through the chunks; keep two limbs, and their shift, of the gradient of the state after each."""
    plane = tl.cast(plane, tl.int64)
    head, row = program % heads, (program // heads).to(tl.int64)
    q, s, p = tl.arange(0, TILE), tl.arange(0, STATES), tl.arange(0, CHANNELS)
    channel = p < width
    known = channel[:, None] & (s < states)[None, :]
    place, turned_place = p[:, None] * states + s[None, :], s[:, None] * CHANNELS + p[None, :]
    first = row * heads + head
    lam = tl.load(dh_pointer + first * width * states + place, mask=known, other=0)
    for m in range(0, chunks):
        n = chunks - 1 - m
        at = first * chunks + n
        time = n * Q + q
        inside = ((q < Q) & (time < length))[:, None] & channel[None, :]
        dy = tl.load(dy_pointer + ((row * length + time)[:, None] * heads + head) * width + p[None, :], inside, other=0)
        turned = tl.load(turned_queries_pointer + (row * chunks + n) * TILE * STATES + s[:, None] * TILE + q[None, :])
        decay = tl.load(planes_pointer + DECAY * plane + at * TILE + q)
        kept = tl.load(chunks_pointer + KEPT * chunk_plane + at)
        w = tl.load(chunks_pointer + ERROR_SHIFT * chunk_plane + at)
        high, low = limbs((dy.to(tl.int32) * decay[:, None] + ((1 << w) >> 1)) >> w)
        added = tl.dot(tl.trans(high), tl.trans(turned), out_dtype=tl.int32) << 8
        added = tl.dot(tl.trans(low), tl.trans(turned), added, out_dtype=tl.int32)
        # Rounded in two shifts, for the half may not fit.
        k = limb_exponent(tl.max(tl.max(tl.abs(lam), 1), 0))
        up = tl.minimum(k, 1)
        high, low = limbs(((lam >> (k - up)) + up) >> up)
        tl.store(high_pointer + at * width * states + place, high, mask=known)
        tl.store(low_pointer + at * width * states + place, low, mask=known)
        tl.store(turned_high_pointer + at * states * CHANNELS + turned_place, tl.trans(high), mask=tl.trans(known))
        tl.store(turned_low_pointer + at * states * CHANNELS + turned_place, tl.trans(low), mask=tl.trans(known))
        tl.store(chunks_pointer + SLOPE_SHIFT * chunk_plane + at, k)
        whole = tl.zeros_like(lam)
        kept_lam = plus_product(whole.to(tl.int64) + DECAY_HALF, lam, kept + whole) >> DECAY_BITS
        if CHANNELS * STATES <= MOST_TWICE:
            # Where the largest magnitudes say that the sum fits 32 bits, it needs no saturation.
            left, right = tl.maximum(w - s_g, 0), tl.maximum(s_g - w, 0)
            unit = tl.zeros_like(k).to(tl.int64) + 1
            largest_sum = (unit << left) * (127 * LARGEST_TWO_LIMBS * TILE) + (unit << k) * (LARGEST_TWO_LIMBS + 1)
            if largest_sum < LARGEST_WORD:
                lam = kept_lam.to(tl.int32) + (((added + ((1 << right) >> 1)) >> right) << left)
            else:
                lam = word(plus_rescaled(kept_lam, added, -w + s_g))
        else:
            lam = word(plus_rescaled(kept_lam, added, -w + s_g))
    tl.store(start_pointer + first * width * states + place, lam, mask=known)


# Training changes some shifts from step to step: constants would be compiled anew each time.
@triton.jit(do_not_specialize=[*FREE, "s_h", "s_g", "walks"])
def walks_kernel(
    seen_high_pointer,
    seen_low_pointer,
    slope_high_pointer,
    slope_low_pointer,
    turned_seen_high_pointer,
    turned_seen_low_pointer,
    turned_slope_high_pointer,
    turned_slope_low_pointer,
    start_pointer,
    x_pointer,
    dy_pointer,
    turned_keys_pointer,
    turned_queries_pointer,
    planes_pointer,
    chunks_pointer,
    h_pointer,
    dh_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    plane,
    chunk_plane,
    Q,
    s_h,
    s_g,
    walks,
    HALVES: tl.constexpr,
    TILE: tl.constexpr,
    FEW: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Walk a row's head backwards, or some of its channels forwards: neither walk fills a device, both run at once."""
    start_next()
    program = tl.program_id(0)
    if program < walks:
        walk_backwards(
            program,
            slope_high_pointer,
            slope_low_pointer,
            turned_slope_high_pointer,
            turned_slope_low_pointer,
            start_pointer,
            dy_pointer,
            turned_queries_pointer,
            planes_pointer,
            chunks_pointer,
            dh_pointer,
            length,
            heads,
            width,
            states,
            chunks,
            plane,
            chunk_plane,
            Q,
            s_g,
            TILE,
            CHANNELS,
            STATES,
        )
    else:
        walk_forwards(
            program - walks,
            seen_high_pointer,
            seen_low_pointer,
            turned_seen_high_pointer,
            turned_seen_low_pointer,
            x_pointer,
            turned_keys_pointer,
            planes_pointer,
            chunks_pointer,
            h_pointer,
            length,
            heads,
            width,
            states,
            chunks,
            plane,
            chunk_plane,
            Q,
            s_h,
            HALVES,
            TILE,
            CHANNELS,
            FEW,
            STATES,
        )
