"""The gradients that heads share: a program for each chunk, and for some states, adds up the heads' parts."""

import triton
import triton.language as tl

from . import integers
from .overlap import start_next
from .ssd_chunk_boundaries import (
    CARRIED,
    DOWN,
    FREE,
    QUERY_CUT,
    QUERY_SHIFT,
    QUERY_WEIGHT,
    SLOPE_EXPONENT,
    SLOPE_SHIFT,
    WEIGHT,
    bytes_of_states,
)
from .ssd_chunk_factors import DECAY_BITS, plus_product
from .ssd_chunk_limbs import aligned, bytes_of, limbs, plus_rescaled, product_of_limbs, put, rescale_product


@triton.jit
def dot(rows, columns, sums):
    return tl.dot(rows, columns, sums, out_dtype=tl.int32)


@triton.jit
def add_up_keys(
    program,
    db_pointer,
    x_pointer,
    turned_slopes_pointer,
    slope_high_pointer,
    slope_low_pointer,
    turned_queries_pointer,
    planes_pointer,
    chunks_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    plane,
    chunk_plane,
    Q,
    s_g,
    s_b,
    gradient_bits,
    PADDED: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Add up the heads' parts of a chunk's db for some states."""
    s_b = integers.scalar(s_b)
    program, plane = program.to(tl.int64), tl.cast(plane, tl.int64)
    blocks = tl.cdiv(states, STATES)
    block, n, row = program % blocks, program // blocks % chunks, program // blocks // chunks
    q, s, p = tl.arange(0, TILE), block * STATES + tl.arange(0, STATES), tl.arange(0, CHANNELS)
    time = n * Q + q
    there, channel, known = (q < Q) & (time < length), p < width, (s < states)[:, None] & (p < width)[None, :]
    turned = tl.load(turned_queries_pointer + (row * chunks + n) * TILE * PADDED + s[:, None] * TILE + q[None, :])
    turned = turned.to(tl.int32)
    total = tl.zeros([TILE, STATES], tl.int64)
    for head in range(0, heads):
        at = (row * heads + head) * chunks + n
        across = ((row * length + time)[:, None] * heads + head) * width + p[None, :]
        x = tl.load(x_pointer + across, mask=there[:, None] & channel[None, :], other=0)
        slopes = tl.load(turned_slopes_pointer + at * TILE * TILE + q[:, None] * TILE + q[None, :])
        place = at * states * CHANNELS + s[:, None] * CHANNELS + p[None, :]
        slope_high = tl.load(slope_high_pointer + place, mask=known, other=0)
        slope_low = tl.load(slope_low_pointer + place, mask=known, other=0)
        of_position = planes_pointer + at * TILE + q
        query_weight, shift = tl.load(of_position + QUERY_WEIGHT * plane), tl.load(of_position + QUERY_SHIFT * plane)
        cut = tl.load(chunks_pointer + QUERY_CUT * chunk_plane + at)
        high, low = limbs(aligned(turned, query_weight[None, :], shift[None, :]))
        part = product_of_limbs(slopes, tl.trans(high), tl.trans(low))
        total = plus_rescaled(total, part, -cut + 17)
        part = product_of_limbs(x, tl.trans(slope_high), tl.trans(slope_low))
        weight = tl.load(of_position + WEIGHT * plane)
        k = tl.load(chunks_pointer + SLOPE_SHIFT * chunk_plane + at) + s_g
        total += rescale_product(part, weight[:, None], -k + 2 * DECAY_BITS - gradient_bits)
    tl.store(
        db_pointer + (row * length + time)[:, None] * states + s[None, :],
        put(total, s_b),
        mask=there[:, None] & (s < states)[None, :],
    )


@triton.jit
def add_up_queries(
    program,
    dc_pointer,
    dy_pointer,
    slopes_pointer,
    seen_high_pointer,
    seen_low_pointer,
    b_pointer,
    planes_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    plane,
    Q,
    s_c,
    factor_bits,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Add up the heads' parts of a chunk's dc for some states."""
    s_c = integers.scalar(s_c)
    program, plane = program.to(tl.int64), tl.cast(plane, tl.int64)
    blocks = tl.cdiv(states, STATES)
    block, n, row = program % blocks, program // blocks % chunks, program // blocks // chunks
    q, s, p = tl.arange(0, TILE), block * STATES + tl.arange(0, STATES), tl.arange(0, CHANNELS)
    time = n * Q + q
    there, channel, known = (q < Q) & (time < length), p < width, (s < states)[:, None] & (p < width)[None, :]
    keys = bytes_of_states(b_pointer, row * length + time, there, s, states)
    half_byte = tl.full([TILE, CHANNELS], 64, tl.int8)
    total = tl.zeros([TILE, STATES], tl.int64)
    for head in range(0, heads):
        at = (row * heads + head) * chunks + n
        across = ((row * length + time)[:, None] * heads + head) * width + p[None, :]
        dy = tl.load(dy_pointer + across, mask=there[:, None] & channel[None, :], other=0)
        high, low = bytes_of(dy)
        slopes = tl.load(slopes_pointer + at * TILE * TILE + q[:, None] * TILE + q[None, :])
        place = at * states * CHANNELS + s[:, None] * CHANNELS + p[None, :]
        seen_high = tl.trans(tl.load(seen_high_pointer + place, mask=known, other=0))
        seen_low = tl.trans(tl.load(seen_low_pointer + place, mask=known, other=0))
        of_position = planes_pointer + at * TILE + q
        down, e = tl.load(of_position + DOWN * plane), tl.load(of_position + SLOPE_EXPONENT * plane)
        part = tl.dot(slopes, keys, out_dtype=tl.int32)
        # Of a left shift, which is at most by 23, the product of bytes has room for 8.
        up = tl.maximum(e - 17, 0)
        first_up = tl.minimum(up, 8)
        part = part << first_up[:, None]
        total += rescale_product(part, down[:, None], (-e + 17 + first_up)[:, None])
        # The low bytes have 128 less than they stand for.
        part = product_of_limbs(high, seen_high, seen_low)
        part = dot(low, seen_high, dot(half_byte, seen_high, dot(half_byte, seen_high, part)))
        last = dot(half_byte, seen_low, dot(half_byte, seen_low, tl.dot(low, seen_low, out_dtype=tl.int32)))
        # The factor has at most 17 bits and room for 8 more, so the two parts aren't joined before.
        carried = tl.load(of_position + CARRIED * plane)[:, None]
        zero, bits = tl.zeros_like(part), factor_bits.to(tl.int64)
        half = ((tl.zeros_like(bits) + 1) << bits) >> 1
        out = plus_product(half + zero.to(tl.int64), last, carried + zero)
        total += plus_product(out, part, (carried << 8) + zero) >> bits
    tl.store(
        dc_pointer + (row * length + time)[:, None] * states + s[None, :],
        put(total, s_c),
        mask=there[:, None] & (s < states)[None, :],
    )


@triton.jit(do_not_specialize=[*FREE, "s_g", "s_b", "s_c", "gradient_bits", "factor_bits", "programs"])
def heads_kernel(
    db_pointer,
    dc_pointer,
    x_pointer,
    dy_pointer,
    slopes_pointer,
    turned_slopes_pointer,
    seen_high_pointer,
    seen_low_pointer,
    slope_high_pointer,
    slope_low_pointer,
    turned_queries_pointer,
    b_pointer,
    planes_pointer,
    chunks_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    plane,
    chunk_plane,
    Q,
    s_g,
    s_b,
    s_c,
    gradient_bits,
    factor_bits,
    programs,
    PADDED: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Add up the heads' parts of db or of dc: programs of both together fill a device better than each alone."""
    start_next()
    program = tl.program_id(0)
    if program < programs:
        add_up_keys(
            program,
            db_pointer,
            x_pointer,
            turned_slopes_pointer,
            slope_high_pointer,
            slope_low_pointer,
            turned_queries_pointer,
            planes_pointer,
            chunks_pointer,
            length,
            heads,
            width,
            states,
            chunks,
            plane,
            chunk_plane,
            Q,
            s_g,
            s_b,
            gradient_bits,
            PADDED,
            TILE,
            CHANNELS,
            STATES,
        )
    else:
        add_up_queries(
            program - programs,
            dc_pointer,
            dy_pointer,
            slopes_pointer,
            seen_high_pointer,
            seen_low_pointer,
            b_pointer,
            planes_pointer,
            length,
            heads,
            width,
            states,
            chunks,
            plane,
            Q,
            s_c,
            factor_bits,
            TILE,
            CHANNELS,
            STATES,
        )
