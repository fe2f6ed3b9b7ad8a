"""Triton version of ``spec.ops.ssd_chunk_backward``.

After the walks of `ssd_chunk_boundaries` a program for each chunk and head computes dx and dd, and the slopes that db
and dc need; then a program for each chunk adds up what the heads give to them. Errors of 16 bits are two limbs of which
the low one has 128 taken off, since a signed one would not fit.
"""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import ssd_chunk as definition
from mamba_integer.spec.ops import ssd_chunk_backward as backward

from . import integers
from .launch import ceil_div, launch
from .ssd_chunk import LEAST_TILE, mix
from .ssd_chunk_boundaries import (
    CARRIED,
    CHUNK_PLANES,
    COLUMN,
    DOWN,
    GAIN,
    KEPT,
    PLANES,
    QUERY_SHIFT,
    RATIO,
    SLOPE_EXPONENT,
    SLOPE_SHIFT,
    WEIGHT,
    WHOLE,
    factors_kernel,
    layout_kernel,
    limb_exponent,
    limbs,
    rescale,
    slopes_kernel,
    states_kernel,
)
from .ssd_chunk_factors import DECAY_BITS, DECAY_HALF, lags, row_exponent

WALKED_CHANNELS = 32  # of a program that walks forwards
SHARED_STATES = 64  # of a program that adds up heads
MOST_TILE_OF_FOUR_WARPS = 64

ENERGY_BITS = tl.constexpr(backward.ENERGY_BITS)
STATE_BITS = tl.constexpr(definition.STATE_BITS)
GATED_LIMIT = tl.constexpr((1 << (backward.GATED_BITS - 1)) - 1)
LN2 = tl.constexpr(backward.LN2)


@triton.jit
def joined(high, low):
    return (high << 8) + low


@triton.jit
def bytes_of(dy):
    """Return the high byte of int16 errors, and the low one less 128."""
    wide = dy.to(tl.int32)
    return (wide >> 8).to(tl.int8), ((wide & 255) - 128).to(tl.int8)


@triton.jit
def mix_wide(products, whole, column, gain):
    """Return the row exponents and factors as `mix` does, of products that need 64 bits with a gain."""
    mixed = (products.to(tl.int64) * gain[None, :]) >> lags(whole, column)
    e = row_exponent(tl.max(tl.abs(mixed), 1)).to(tl.int32)
    # Rounded after narrowing: a shift and an addition of 32 bits.
    return e, (((mixed >> (e - 1)[:, None]).to(tl.int32) + 1) >> 1).to(tl.int8)


@triton.jit
def aligned(product, s):
    """Return int32 products, below 2**31, over 2**s, rounded, s of either sign: the result has two limbs."""
    down = tl.minimum(tl.maximum(s, 0), 31)
    half = (((tl.zeros_like(s) + 1).to(tl.uint32) << down.to(tl.uint32)) >> 1).to(tl.int32)
    return ((product << tl.maximum(-s, 0)) + half) >> down


@triton.jit
def rescale_short(x, s):
    """Return int32 x, at most 2**30, over 2**s as int64, rounded, for a scalar s of either sign and at most 17."""
    down = tl.maximum(s, 0)
    return ((x + ((1 << down) >> 1)) >> down).to(tl.int64) << tl.maximum(-s, 0).to(tl.int64)


@triton.jit
def put(total, s):
    return integers.saturate(integers.shift_round(total, s.to(tl.int64)), 32).to(tl.int32)


@triton.jit(do_not_specialize=["s_g", "s_x", "s_d"])
def chunk_kernel(
    dx_pointer,
    dd_pointer,
    dskip_pointer,
    slopes_pointer,
    sums_pointer,
    planes_pointer,
    chunks_pointer,
    dy_pointer,
    x_pointer,
    skip_pointer,
    seen_high_pointer,
    seen_low_pointer,
    slope_high_pointer,
    slope_low_pointer,
    keys_pointer,
    queries_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    plane,
    chunk_plane,
    s_g,
    s_x,
    s_d,
    s_h: tl.constexpr,
    WEIGHT_BITS: tl.constexpr,
    CARRIED_SHIFT: tl.constexpr,
    GRADIENT_BITS: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Compute dx, dd and dskip of a chunk of a head, and the slopes that its db and dc need."""
    program, plane = tl.program_id(0).to(tl.int64), tl.cast(plane, tl.int64)
    head, n, row = program % heads, program // heads % chunks, program // heads // chunks
    q, s, p = tl.arange(0, TILE), tl.arange(0, STATES), tl.arange(0, CHANNELS)
    channel = p < width
    known = channel[:, None] & (s < states)[None, :]
    at = (row * heads + head) * chunks + n
    time = n * Q + q
    there = (q < Q) & (time < length)
    inside = there[:, None] & channel[None, :]
    across = ((row * length + time)[:, None] * heads + head) * width + p[None, :]
    dy = tl.load(dy_pointer + across, mask=inside, other=0).to(tl.int32)
    x = tl.load(x_pointer + across, mask=inside, other=0)
    tile = (row * chunks + n) * TILE * STATES + q[:, None] * STATES + s[None, :]
    keys, queries = tl.load(keys_pointer + tile), tl.load(queries_pointer + tile)
    planes_pointer += at * TILE + q
    chunks_pointer += at
    whole, column = tl.load(planes_pointer + WHOLE * plane), tl.load(planes_pointer + COLUMN * plane)
    gain, down = tl.load(planes_pointer + GAIN * plane), tl.load(planes_pointer + DOWN * plane)
    past_or_now = q[:, None] >= q[None, :]
    wide_x = x.to(tl.int32)
    passed = tl.sum(tl.sum(dy * wide_x, 1).to(tl.int64), 0)
    tl.atomic_add(dskip_pointer + head, passed, sem="relaxed")

    # The gradient of scores, cut as the scores are.
    high, low = bytes_of(dy)
    turned = tl.trans(x)
    products = joined(tl.dot(high, turned, out_dtype=tl.int32), tl.dot(low, turned, out_dtype=tl.int32))
    products += (tl.sum(wide_x, 1) * 128)[None, :]
    e, slopes = mix_wide(tl.where(past_or_now, products, 0), whole, column, gain)
    tl.store(slopes_pointer + at * TILE * TILE + q[:, None] * TILE + q[None, :], slopes)
    tl.store(planes_pointer + SLOPE_EXPONENT * plane, e)
    largest = tl.max(down.to(tl.int64) << e, 0)
    tl.store(chunks_pointer + QUERY_SHIFT * chunk_plane, tl.maximum(integers.bit_length(largest) - 8, 0).to(tl.int32))

    # Inside the chunk: errors, aligned along time, through the forward factors and back.
    scores = tl.dot(queries, tl.trans(keys), out_dtype=tl.int32)
    e, mixed = mix(tl.where(past_or_now, scores, 0), whole, column, gain)
    r = limb_exponent(tl.max((tl.max(tl.abs(dy), 1) * down).to(tl.int64) << e, 0))
    errors = aligned(dy * down[:, None], (-e + r)[:, None])
    arriving = tl.sum(tl.dot(mixed, x, out_dtype=tl.int32).to(tl.int64) * errors, 1)
    high, low = limbs(errors)
    back = tl.trans(mixed)
    through = joined(tl.dot(back, high, out_dtype=tl.int32), tl.dot(back, low, out_dtype=tl.int32))
    leaving = tl.sum(through.to(tl.int64) * wide_x, 1)
    dx = rescale_short(through, -r + 17) + dy.to(tl.int64) * (
        tl.load(skip_pointer + head).to(tl.int32) << GRADIENT_BITS
    )

    # From the state before the chunk, and through the one after: the weights of a chunk that isn't whole are 0.
    place = at * width * states + p[:, None] * states + s[None, :]
    high = tl.load(seen_high_pointer + place, mask=known, other=0)
    low = tl.load(seen_low_pointer + place, mask=known, other=0)
    seen = joined(high.to(tl.int32), low.to(tl.int32))
    tl.store(sums_pointer + at * STATES + s, tl.sum(seen, 0))
    before = joined(
        tl.dot(queries, tl.trans(high), out_dtype=tl.int32), tl.dot(queries, tl.trans(low), out_dtype=tl.int32)
    )
    carried = (tl.sum(before.to(tl.int64) * dy, 1) + DECAY_HALF) >> DECAY_BITS
    carried = carried * tl.load(planes_pointer + CARRIED * plane)
    carried = integers.shift_round(carried, CARRIED_SHIFT)
    high = tl.load(slope_high_pointer + place, mask=known, other=0)
    low = tl.load(slope_low_pointer + place, mask=known, other=0)
    k = tl.load(chunks_pointer + SLOPE_SHIFT * chunk_plane) + s_g
    into = joined(tl.dot(keys, tl.trans(high), out_dtype=tl.int32), tl.dot(keys, tl.trans(low), out_dtype=tl.int32))
    weight = tl.load(planes_pointer + WEIGHT * plane)
    stored = tl.sum(into.to(tl.int64) * wide_x, 1) * weight
    stored = rescale(stored, -k + (2 * DECAY_BITS + ENERGY_BITS))
    past = tl.sum(tl.sum((joined(high.to(tl.int32), low.to(tl.int32)) * seen).to(tl.int64), 1), 0)
    kept = tl.where(n * Q + Q <= length, tl.load(chunks_pointer + KEPT * chunk_plane), 0)
    past = ((past + DECAY_HALF) >> DECAY_BITS) * kept
    past = rescale(past, -k + (STATE_BITS + DECAY_BITS + ENERGY_BITS - s_h))
    dx += rescale(into.to(tl.int64) * weight[:, None], -k + (2 * DECAY_BITS - GRADIENT_BITS))
    tl.store(dx_pointer + across, put(dx, s_x), mask=inside)

    # What crosses the decay of a position, and what its gate lets through.
    inner = -r + (WEIGHT_BITS + 14 + ENERGY_BITS)
    flow, stream = leaving - arriving, stored - carried
    crossing = rescale(tl.cumsum(flow, 0) - flow, inner) + tl.cumsum(stream, 0) - stream
    crossing += past + tl.sum(carried, 0)
    gated = tl.minimum(tl.maximum(rescale(leaving, inner) + stored, -GATED_LIMIT), GATED_LIMIT)
    dd = ((gated * tl.load(planes_pointer + RATIO * plane) + DECAY_HALF) >> DECAY_BITS) - crossing
    dd = ((put(dd, s_d).to(tl.int64) * LN2 + DECAY_HALF) >> DECAY_BITS).to(tl.int32)
    tl.store(dd_pointer + (row * length + time) * heads + head, dd, mask=there)


@triton.jit(do_not_specialize=["s_g", "s_b"])
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
    s_g,
    s_b,
    PADDED: tl.constexpr,
    GRADIENT_BITS: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Add up the heads' parts of a chunk's db for some states."""
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
        total += rescale_short(part, -cut + 17)
        part = tl.dot(x, slope_high, out_dtype=tl.int32) << 8
        part = tl.dot(x, slope_low, part, out_dtype=tl.int32)
        weight = tl.load(planes_pointer + WEIGHT * plane + at * TILE + q)
        k = tl.load(chunks_pointer + SLOPE_SHIFT * chunk_plane + at) + s_g
        total += rescale(part.to(tl.int64) * weight[:, None], -k + (2 * DECAY_BITS - GRADIENT_BITS))
    tl.store(
        db_pointer + (row * length + time)[:, None] * states + s[None, :], put(total, s_b), mask=there[:, None] & known
    )


@triton.jit(do_not_specialize=["s_c"])
def queries_kernel(
    dc_pointer,
    dy_pointer,
    slopes_pointer,
    seen_high_pointer,
    seen_low_pointer,
    sums_pointer,
    turned_keys_pointer,
    planes_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    plane,
    s_c,
    PADDED: tl.constexpr,
    FACTOR_BITS: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Add up the heads' parts of a chunk's dc for some states."""
    program, plane = tl.program_id(0).to(tl.int64), tl.cast(plane, tl.int64)
    blocks = tl.cdiv(states, STATES)
    block, n, row = program % blocks, program // blocks % chunks, program // blocks // chunks
    q, s, p = tl.arange(0, TILE), block * STATES + tl.arange(0, STATES), tl.arange(0, CHANNELS)
    time = n * Q + q
    there, channel, known = (q < Q) & (time < length), p < width, (s < states)[None, :]
    turned = tl.load(turned_keys_pointer + (row * chunks + n) * TILE * PADDED + s[:, None] * TILE + q[None, :])
    total = tl.zeros([TILE, STATES], tl.int64)
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
        total += rescale(part.to(tl.int64) * down[:, None], (-e + 17)[:, None])
        # Every sum of the high limbs' products fits 32 bits, with 8 bits more too.
        part = tl.dot(high, seen_high, out_dtype=tl.int32) << 8
        part = tl.dot(high, seen_low, part, out_dtype=tl.int32)
        part = tl.dot(low, seen_high, part, out_dtype=tl.int32)
        last = tl.dot(low, seen_low, out_dtype=tl.int32)
        out = (part.to(tl.int64) << 8) + last
        out += (tl.load(sums_pointer + at * PADDED + s).to(tl.int64) * 128)[None, :]
        total += integers.shift_round(out * tl.load(of_position + CARRIED * plane)[:, None], FACTOR_BITS)
    tl.store(
        dc_pointer + (row * length + time)[:, None] * states + s[None, :], put(total, s_c), mask=there[:, None] & known
    )


@implements(ops.ssd_chunk_scan_backward)
def ssd_chunk_scan_backward(dy, x, d, b, c, skip, h, dh, *, q, s_h, s_g, s_x, s_d, s_b, s_c):
    batch, length, heads, width = x.shape
    states, chunk, device = h.shape[-1], 1 << q, x.device
    dskip = torch.zeros(heads, dtype=torch.int64, device=device)
    if not x.numel():
        db, dc = (torch.zeros(a.shape, dtype=torch.int32, device=device) for a in (b, c))
        return torch.empty_like(x, dtype=torch.int32), torch.zeros_like(d, dtype=torch.int32), db, dc, dskip, dh.clone()

    def empty(*shape, dtype=torch.int32):
        return torch.empty(shape, dtype=dtype, device=device)

    dx, dd, db, dc = (empty(*a.shape) for a in (x, d, b, c))
    chunks = ceil_div(length, chunk)
    tile, padded = max(chunk, LEAST_TILE), max(triton.next_power_of_2(states), LEAST_TILE)
    channels, block = max(triton.next_power_of_2(width), LEAST_TILE), min(padded, SHARED_STATES)
    count = batch * heads * chunks
    planes, scalars = empty(PLANES, count * tile), empty(CHUNK_PLANES, count)
    keys, turned_keys, queries, turned_queries = empty(4, batch * chunks, tile * padded, dtype=torch.int8)
    seen_high, seen_low, slope_high, slope_low = empty(4, count, width * states, dtype=torch.int8)
    slopes, sums = empty(count, tile * tile, dtype=torch.int8), empty(count, padded)
    start = empty(*dh.shape)
    sizes, strides = (length, heads, width, states, chunks), (planes.shape[1], scalars.shape[1])
    bits, grid = backward.gradient_bits(states), dict(Q=chunk, TILE=tile)
    warps = 4 if tile <= MOST_TILE_OF_FOUR_WARPS else 8
    launch(
        factors_kernel,
        count,
        (planes, scalars),
        (d, dy),
        *(length, heads, width, chunks, *strides),
        WEIGHT_BITS=definition.weight_bits(states),
        CARRIED_BITS=definition.carried_bits(states, s_h),
        CHANNELS=LEAST_TILE,
        **grid,
    )
    launch(
        layout_kernel,
        batch * chunks,
        (keys, turned_keys, queries, turned_queries),
        (b, c),
        *(length, chunks, states),
        STATES=padded,
        **grid,
    )
    launch(
        states_kernel,
        batch * heads * ceil_div(width, WALKED_CHANNELS),
        (seen_high, seen_low),
        (x, turned_keys, planes, scalars, h),
        *(*sizes, *strides, 1 << (definition.DECAY_BITS - 1)),
        s_h=s_h,
        CHANNELS=WALKED_CHANNELS,
        STATES=padded,
        **grid,
    )
    launch(
        slopes_kernel,
        batch * heads,
        (slope_high, slope_low, start),
        (dy, turned_queries, planes, scalars, dh),
        *(*sizes, *strides, s_g),
        CHANNELS=channels,
        STATES=padded,
        **grid,
    )
    launch(
        chunk_kernel,
        count,
        (dx, dd, dskip, slopes, sums, planes, scalars),
        (dy, x, skip, seen_high, seen_low, slope_high, slope_low, keys, queries),
        *(*sizes, *strides, s_g, s_x, s_d),
        s_h=s_h,
        WEIGHT_BITS=definition.weight_bits(states),
        CARRIED_SHIFT=definition.sum_bits(states) - definition.DECAY_BITS + backward.ENERGY_BITS,
        GRADIENT_BITS=bits,
        CHANNELS=channels,
        STATES=padded,
        num_warps=warps,
        num_stages=1,
        **grid,
    )
    shape = dict(PADDED=padded, CHANNELS=channels, STATES=block, num_warps=warps, **grid)
    programs = batch * chunks * ceil_div(states, block)
    launch(
        keys_kernel,
        programs,
        (db,),
        (x, slopes, slope_high, slope_low, turned_queries, planes, scalars),
        *(*sizes, *strides, s_g, s_b),
        GRADIENT_BITS=bits,
        **shape,
    )
    launch(
        queries_kernel,
        programs,
        (dc,),
        (dy, slopes, seen_high, seen_low, sums, turned_keys, planes),
        *(*sizes, strides[0], s_c),
        FACTOR_BITS=definition.sum_bits(states) - bits,
        **shape,
    )
    return dx, dd, db, dc, dskip, start


__all__ = ["ssd_chunk_scan_backward"]
