"""The gradients that heads share: a program for each chunk, and for some states, adds up the heads' parts."""

import triton
import triton.language as tl

from . import integers
from .ssd_chunk_boundaries import CARRIED, DOWN, FREE, QUERY_SHIFT, SLOPE_EXPONENT, SLOPE_SHIFT, WEIGHT
from .ssd_chunk_factors import DECAY_BITS, plus_product
from .ssd_chunk_limbs import aligned, bytes_of, limbs, plus_rescaled, put, rescale_product


@triton.jit(do_not_specialize=[*FREE, "s_g", "s_b", "gradient_bits"])
def keys_kernel(
    db_pointer,
    x_pointer,
    slopes_pointer,
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
    program, plane = tl.program_id(0).to(tl.int64), tl.cast(plane, tl.int64)
    blocks = tl.cdiv(states, STATES)
    block, n, row = program % blocks, program // blocks % chunks, program // blocks // chunks
    q, s, p = tl.arange(0, TILE), block * STATES + tl.arange(0, STATES), tl.arange(0, CHANNELS)
    time = n * Q + q
    there, channel, known = (q < Q) & (time < length), p < width, (s < states)[None, :]
    turned = tl.load(turned_queries_pointer + (row * chunks + n) * TILE * PADDED + s[:, None] * TILE + q[None, :])
    turned = turned.to(tl.int32)
    total = tl.zeros([TILE, STATES], tl.int64)
    for head in range(0, heads):
        at = (row * heads + head) * chunks + n
        across = ((row * length + time)[:, None] * heads + head) * width + p[None, :]
        x = tl.load(x_pointer + across, mask=there[:, None] & channel[None, :], other=0)
        slopes = tl.load(slopes_pointer + at * TILE * TILE + q[:, None] * TILE + q[None, :])
        place = at * width * states + p[:, None] * states + s[None, :]
        slope_high = tl.load(slope_high_pointer + place, mask=channel[:, None] & known, other=0)
        slope_low = tl.load(slope_low_pointer + place, mask=channel[:, None] & known, other=0)
        down, e = (
            tl.load(planes_pointer + DOWN * plane + at * TILE + q),
            tl.load(planes_pointer + SLOPE_EXPONENT * plane + at * TILE + q),
        )
        cut = tl.load(chunks_pointer + QUERY_SHIFT * chunk_plane + at)
        high, low = limbs(aligned(turned * down[None, :], (-e + cut)[None, :]))
        back = tl.trans(slopes)
        part = tl.dot(back, tl.trans(high), out_dtype=tl.int32) << 8
        part = tl.dot(back, tl.trans(low), part, out_dtype=tl.int32)
        total = plus_rescaled(total, part, -cut + 17)
        part = tl.dot(x, slope_high, out_dtype=tl.int32) << 8
        part = tl.dot(x, slope_low, part, out_dtype=tl.int32)
        weight = tl.load(planes_pointer + WEIGHT * plane + at * TILE + q)
        k = tl.load(chunks_pointer + SLOPE_SHIFT * chunk_plane + at) + s_g
        total += rescale_product(part, weight[:, None], -k + 2 * DECAY_BITS - gradient_bits)
    tl.store(
        db_pointer + (row * length + time)[:, None] * states + s[None, :], put(total, s_b), mask=there[:, None] & known
    )


@triton.jit(do_not_specialize=[*FREE, "s_c", "factor_bits"])
def queries_kernel(
    dc_pointer,
    dy_pointer,
    slopes_pointer,
    seen_high_pointer,
    seen_low_pointer,
    turned_keys_pointer,
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
    PADDED: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Add up the heads' parts of a chunk's dc for some states."""
    s_c = integers.scalar(s_c)
    program, plane = tl.program_id(0).to(tl.int64), tl.cast(plane, tl.int64)
    blocks = tl.cdiv(states, STATES)
    block, n, row = program % blocks, program // blocks % chunks, program // blocks // chunks
    q, s, p = tl.arange(0, TILE), block * STATES + tl.arange(0, STATES), tl.arange(0, CHANNELS)
    time = n * Q + q
    there, channel, known = (q < Q) & (time < length), p < width, (s < states)[None, :]
    turned = tl.load(turned_keys_pointer + (row * chunks + n) * TILE * PADDED + s[:, None] * TILE + q[None, :])
    total, halves = tl.zeros([TILE, STATES], tl.int64), tl.full([TILE, CHANNELS], 64, tl.int8)
    for head in range(0, heads):
        at = (row * heads + head) * chunks + n
        across = ((row * length + time)[:, None] * heads + head) * width + p[None, :]
        high, low = bytes_of(tl.load(dy_pointer + across, mask=there[:, None] & channel[None, :], other=0))
        slopes = tl.load(slopes_pointer + at * TILE * TILE + q[:, None] * TILE + q[None, :])
        place = at * width * states + p[:, None] * states + s[None, :]
        seen_high = tl.load(seen_high_pointer + place, mask=channel[:, None] & known, other=0)
        seen_low = tl.load(seen_low_pointer + place, mask=channel[:, None] & known, other=0)
        of_position = planes_pointer + at * TILE + q
        down, e = tl.load(of_position + DOWN * plane), tl.load(of_position + SLOPE_EXPONENT * plane)
        part = tl.dot(slopes, tl.trans(turned), out_dtype=tl.int32)
        # Of a left shift, which is at most by 23, the product of bytes has room for 8.
        up = tl.maximum(e - 17, 0)
        first_up = tl.minimum(up, 8)
        part = part << first_up[:, None]
        total += rescale_product(part, down[:, None], (-e + 17 + first_up)[:, None])
        # Every sum of the high limbs' products fits 32 bits, with 8 bits more too.
        part = tl.dot(high, seen_high, out_dtype=tl.int32) << 8
        part = tl.dot(high, seen_low, part, out_dtype=tl.int32)
        part = tl.dot(low, seen_high, part, out_dtype=tl.int32)
        last = tl.dot(low, seen_low, out_dtype=tl.int32)
        # The low bytes have 128 taken off, which is no byte: twice 64 comes back.
        for _ in tl.static_range(2):
            part = tl.dot(halves, seen_high, part, out_dtype=tl.int32)
            last = tl.dot(halves, seen_low, last, out_dtype=tl.int32)
        # The factor has at most 17 bits and room for 8 more, so the two parts aren't joined before.
        carried = tl.load(of_position + CARRIED * plane)[:, None]
        whole, bits = tl.zeros_like(part), factor_bits.to(tl.int64)
        half = ((tl.zeros_like(bits) + 1) << bits) >> 1
        out = plus_product(half + whole.to(tl.int64), last, carried + whole)
        total += plus_product(out, part, (carried << 8) + whole) >> bits
    tl.store(
        dc_pointer + (row * length + time)[:, None] * states + s[None, :], put(total, s_c), mask=there[:, None] & known
    )
