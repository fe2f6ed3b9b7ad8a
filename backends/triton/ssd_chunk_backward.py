"""Triton versions of ``spec.ops.ssd_chunk_backward``.

The forward op's small kernels lay positions out on the grid. One kernel keeps the states at the boundaries; then a
program for each head walks back through the chunks, and adds what it gives to db and dc, which heads share, with
integer atomics: their order is none that shows. Errors of 16 bits are two limbs of which the low one has 128 taken off,
since a signed one would not fit.
"""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import ssd_chunk as definition
from mamba_integer.spec.ops import ssd_chunk_backward as backward

from . import integers
from .launch import elementwise
from .ssd_chunk import LEAST_TILE, mix, seen_limbs
from .ssd_chunk_factors import (
    DECAY_BITS,
    DECAY_HALF,
    LARGEST_TWO_LIMBS,
    POWER_BITS,
    exponent_sums,
    fraction_power,
    gains,
    input_weights,
    next_state,
    power,
    rounded_power,
    weighed_limbs,
)

PLANES = 6  # of integers for each position and head
WARPS = 4

ENERGY_BITS = tl.constexpr(backward.ENERGY_BITS)
STATE_BITS = tl.constexpr(definition.STATE_BITS)
GATED_LIMIT = tl.constexpr((1 << (backward.GATED_BITS - 1)) - 1)
LN2 = tl.constexpr(backward.LN2)
POWER_ONE = tl.constexpr(1 << definition.POWER_BITS)


@triton.jit
def rescale(x, s):
    """Return x / 2**s, rounded, for int64 x and a tensor s of either sign."""
    s = s.to(tl.int64)
    down = tl.maximum(s, 0)
    return ((x << tl.maximum(-s, 0)) + (((tl.zeros_like(s) + 1) << down) >> 1)) >> down


@triton.jit
def limb_exponent(largest):
    e = tl.maximum(integers.bit_length(largest) - 15, 0)
    return e + (rescale(largest, e) > LARGEST_TWO_LIMBS).to(e.dtype)


@triton.jit
def cut(values):
    """Return the exponent of an int64 tile, the tile as numbers of two limbs, and the high and the low limbs."""
    e = limb_exponent(tl.max(tl.max(tl.abs(values), 1), 0))
    short = rescale(values, e).to(tl.int32)
    return e, short, ((short + 128) >> 8).to(tl.int8), short.to(tl.int8)


@triton.jit
def joined(high, low):
    return (high << 8) + low


@triton.jit
def exponents_kernel(
    planes_pointer,
    chunks_pointer,
    d_pointer,
    open_pointer,
    fill_pointer,
    length,
    heads,
    chunks,
    plane,
    chunk_plane,
    WEIGHT_BITS: tl.constexpr,
    CARRIED_BITS: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
):
    """Compute a chunk's powers of two for one head; a chunk that isn't whole leaves the state as it is."""
    program, plane = tl.program_id(0), tl.cast(plane, tl.int64)
    n, head, row = program % chunks, program // chunks % heads, (program // chunks // heads).to(tl.int64)
    q = tl.arange(0, TILE)
    fill = tl.load(fill_pointer + row)
    position = n * Q + q
    inside = (q < Q) & (position < fill + length)
    before = tl.load(open_pointer + (row * Q + q) * heads + head, mask=inside & (position < fill), other=0).to(tl.int32)
    place = (row * length + position - fill) * heads + head
    d = before + tl.load(d_pointer + place, mask=inside & (position >= fill), other=0)
    sums = exponent_sums(d)
    power_of_fraction = fraction_power(sums)
    exponent, column, gain = gains(sums, d, WEIGHT_BITS)
    weight, r, kept = input_weights(sums, d, n * Q + Q <= fill + length)

    planes_pointer += program.to(tl.int64) * TILE + q
    tl.store(planes_pointer, exponent)
    tl.store(planes_pointer + plane, column)
    tl.store(planes_pointer + 2 * plane, gain)
    tl.store(planes_pointer + 3 * plane, power_of_fraction)
    tl.store(planes_pointer + 4 * plane, rounded_power(power_of_fraction, sums, CARRIED_BITS))
    tl.store(planes_pointer + 5 * plane, weight)
    tl.store(chunks_pointer + program, kept)
    tl.store(chunks_pointer + chunk_plane + program, r)


@triton.jit
def mixtures_kernel(
    keys_pointer,
    turned_pointer,
    queries_pointer,
    b_pointer,
    c_pointer,
    open_pointer,
    fill_pointer,
    length,
    chunks,
    states,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    STATES: tl.constexpr,
):
    """Lay a chunk's b out on the grid, (time, state) and (state, time), and its c, (time, state)."""
    program = tl.program_id(0)
    n, row = program % chunks, (program // chunks).to(tl.int64)
    q, s = tl.arange(0, TILE), tl.arange(0, STATES)
    fill = tl.load(fill_pointer + row)
    position = n * Q + q
    inside = (q < Q) & (position < fill + length)
    old, new = inside & (position < fill), inside & (position >= fill)
    known = (s < states)[None, :]
    place = (row * length + position - fill)[:, None] * states + s[None, :]
    b = tl.load(open_pointer + (row * Q + q)[:, None] * states + s[None, :], mask=old[:, None] & known, other=0)
    b += tl.load(b_pointer + place, mask=new[:, None] & known, other=0)
    c = tl.load(c_pointer + place, mask=new[:, None] & known, other=0)
    tile = program.to(tl.int64) * TILE * STATES
    tl.store(keys_pointer + tile + q[:, None] * STATES + s[None, :], b)
    tl.store(queries_pointer + tile + q[:, None] * STATES + s[None, :], c)
    tl.store(turned_pointer + tile + s[:, None] * TILE + q[None, :], tl.trans(b))


@triton.jit
def states_kernel(
    states_pointer,
    x_pointer,
    turned_pointer,
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
    half_h,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Keep the state at the start of each chunk."""
    program, plane = tl.program_id(0), tl.cast(plane, tl.int64)
    head, row = program % heads, (program // heads).to(tl.int64)
    q, s, p = tl.arange(0, TILE), tl.arange(0, STATES), tl.arange(0, CHANNELS)
    channel = p < width
    known = channel[:, None] & (s < states)[None, :]
    place = p[:, None] * states + s[None, :]
    first = row * heads + head
    state = tl.load(h_pointer + first * width * states + place, mask=known, other=0)
    for n in range(0, chunks):
        tl.store(states_pointer + (first * chunks + n) * width * states + place, state, mask=known)
        time = n * Q + q
        inside = ((q < Q) & (time < length))[:, None] & channel[None, :]
        x = tl.load(x_pointer + ((row * length + time)[:, None] * heads + head) * width + p[None, :], inside, other=0)
        turned = tl.load(turned_pointer + (row * chunks + n) * TILE * STATES + s[:, None] * TILE + q[None, :])
        factor = tl.load(planes_pointer + (first * chunks + n) * TILE + 5 * plane + q)
        r = tl.load(chunks_pointer + chunk_plane + first * chunks + n)
        kept = tl.load(chunks_pointer + first * chunks + n)
        high, low = weighed_limbs(x, factor[:, None], r)
        added = tl.dot(tl.trans(low), tl.trans(turned), out_dtype=tl.int32)
        added += tl.dot(tl.trans(high), tl.trans(turned), out_dtype=tl.int32) << 8
        state = next_state(state, added, r, kept, half_h)


# Training changes some shifts from step to step: constants would be compiled anew each time.
@triton.jit(do_not_specialize=["s_g", "s_x", "s_d"])
def back_kernel(
    dx_pointer,
    dd_pointer,
    db_pointer,
    dc_pointer,
    dskip_pointer,
    start_pointer,
    dy_pointer,
    x_pointer,
    d_pointer,
    skip_pointer,
    dh_pointer,
    states_pointer,
    keys_pointer,
    queries_pointer,
    planes_pointer,
    chunks_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    plane,
    s_g,
    s_x,
    s_d,
    s_h: tl.constexpr,
    WEIGHT_BITS: tl.constexpr,
    SUM_BITS: tl.constexpr,
    GRADIENT_BITS: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    program, plane = tl.program_id(0), tl.cast(plane, tl.int64)
    head, row = program % heads, (program // heads).to(tl.int64)
    q, s, p = tl.arange(0, TILE), tl.arange(0, STATES), tl.arange(0, CHANNELS)
    channel, mixture = p < width, s < states
    known = channel[:, None] & mixture[None, :]
    place = p[:, None] * states + s[None, :]
    first = row * heads + head
    skip = tl.load(skip_pointer + head).to(tl.int64)
    lam = tl.load(dh_pointer + first * width * states + place, mask=known, other=0).to(tl.int64)
    passed = tl.zeros([CHANNELS], tl.int64)
    past_or_now = q[:, None] >= q[None, :]
    for m in range(0, chunks):
        n = chunks - 1 - m
        time = n * Q + q
        there = (q < Q) & (time < length)
        inside = there[:, None] & channel[None, :]
        across = ((row * length + time)[:, None] * heads + head) * width + p[None, :]
        dy = tl.load(dy_pointer + across, mask=inside, other=0).to(tl.int32)
        bytes_x = tl.load(x_pointer + across, mask=inside, other=0)
        x = bytes_x.to(tl.int64)
        d = tl.load(d_pointer + (row * length + time) * heads + head, mask=there, other=0).to(tl.int32)
        tile = (row * chunks + n) * TILE * STATES + q[:, None] * STATES + s[None, :]
        keys, queries = tl.load(keys_pointer + tile), tl.load(queries_pointer + tile)
        at = planes_pointer + (first * chunks + n) * TILE + q
        whole, column, weight = tl.load(at), tl.load(at + plane), tl.load(at + 2 * plane)
        power_of_fraction, before_factor = tl.load(at + 3 * plane).to(tl.int64), tl.load(at + 4 * plane).to(tl.int64)
        stored_weight = tl.load(at + 5 * plane).to(tl.int64)
        kept = tl.load(chunks_pointer + first * chunks + n).to(tl.int64)
        down = (power_of_fraction + DECAY_HALF) >> DECAY_BITS
        decay = rescale(power_of_fraction, tl.minimum(whole, 32) + (POWER_BITS - DECAY_BITS))
        state = tl.load(states_pointer + (first * chunks + n) * width * states + place, mask=known, other=0)
        seen_high, seen_low = seen_limbs(state, s_h)
        seen = joined(seen_high.to(tl.int32), seen_low.to(tl.int32))
        dy_high, dy_low = (dy >> 8).to(tl.int8), ((dy & 255) - 128).to(tl.int8)
        passed += tl.sum(dy.to(tl.int64) * x, 0)

        # Inside the chunk: errors, aligned along time, through the forward factors and back.
        scores = tl.dot(queries, tl.trans(keys), out_dtype=tl.int32)
        e, mixed = mix(tl.where(past_or_now, scores, 0), whole, column, weight)
        r, errors, high, low = cut(dy.to(tl.int64) * (down << e)[:, None])
        forth = tl.dot(mixed, bytes_x, out_dtype=tl.int32).to(tl.int64)
        back = tl.trans(mixed)
        through = joined(tl.dot(back, high, out_dtype=tl.int32), tl.dot(back, low, out_dtype=tl.int32)).to(tl.int64)
        leaving, arriving = tl.sum(through * x, 1), tl.sum(forth * errors, 1)
        turned_x = tl.trans(bytes_x)
        products = joined(tl.dot(dy_high, turned_x, out_dtype=tl.int32), tl.dot(dy_low, turned_x, out_dtype=tl.int32))
        products += (tl.sum(bytes_x.to(tl.int32), 1) * 128)[None, :]
        e, slopes = mix(tl.where(past_or_now, products, 0).to(tl.int64), whole, column, weight.to(tl.int64))
        factor = down << e
        cut_by = tl.maximum(integers.bit_length(tl.max(factor, 0)) - 8, 0)
        short = rescale(queries.to(tl.int64) * factor[:, None], cut_by).to(tl.int32)
        high, low = ((short + 128) >> 8).to(tl.int8), short.to(tl.int8)
        dc = rescale(tl.dot(slopes, keys, out_dtype=tl.int32).to(tl.int64) * down[:, None], (-e + 17)[:, None])
        back = tl.trans(slopes)
        db = joined(tl.dot(back, high, out_dtype=tl.int32), tl.dot(back, low, out_dtype=tl.int32))
        db = rescale(db.to(tl.int64), -cut_by + 17)

        # From the state before the chunk.
        middle = tl.dot(dy_high, seen_low, out_dtype=tl.int32) + tl.dot(dy_low, seen_high, out_dtype=tl.int32)
        out = tl.dot(dy_high, seen_high, out_dtype=tl.int32).to(tl.int64) << 16
        out += (middle.to(tl.int64) << 8) + tl.dot(dy_low, seen_low, out_dtype=tl.int32)
        out += (tl.sum(seen, 0).to(tl.int64) * 128)[None, :]
        dc += integers.shift_round(out * before_factor[:, None], SUM_BITS - GRADIENT_BITS)
        before = joined(
            tl.dot(queries, tl.trans(seen_high), out_dtype=tl.int32),
            tl.dot(queries, tl.trans(seen_low), out_dtype=tl.int32),
        )
        carried = (tl.sum(before.to(tl.int64) * dy, 1) + DECAY_HALF) >> DECAY_BITS
        carried = rescale(carried * before_factor, tl.zeros_like(whole) + (SUM_BITS + (ENERGY_BITS - DECAY_BITS)))
        w, errors, high, low = cut(dy.to(tl.int64) * decay[:, None])
        added = joined(
            tl.dot(tl.trans(high), queries, out_dtype=tl.int32), tl.dot(tl.trans(low), queries, out_dtype=tl.int32)
        ).to(tl.int64)

        # Through the state after the chunk: the weights of a chunk that isn't whole are 0.
        k, slope, high, low = cut(lam)
        k += s_g
        into = joined(tl.dot(keys, tl.trans(high), out_dtype=tl.int32), tl.dot(keys, tl.trans(low), out_dtype=tl.int32))
        into = into.to(tl.int64) * stored_weight[:, None]
        stored = rescale(tl.sum(into * x, 1), -k + (2 * DECAY_BITS + ENERGY_BITS))
        past = tl.sum(tl.sum(slope.to(tl.int64) * seen, 1), 0)
        past = ((past + DECAY_HALF) >> DECAY_BITS) * tl.where(n * Q + Q <= length, kept, 0)
        past = rescale(past, -k + (STATE_BITS + DECAY_BITS + ENERGY_BITS - s_h))

        # What crosses the decay of a position, and what its gate lets through.
        inner = -r + (WEIGHT_BITS + 14 + ENERGY_BITS)
        flow, stream = leaving - arriving, stored - carried
        crossing = rescale(tl.cumsum(flow, 0) - flow, inner) + tl.cumsum(stream, 0) - stream
        crossing += past + tl.sum(carried, 0)
        gate = power(d, POWER_BITS).to(tl.int64)
        ratio = tl.where(d > 0, (gate << DECAY_BITS) // tl.maximum(-gate + POWER_ONE, 1), 0)
        gated = tl.minimum(tl.maximum(rescale(leaving, inner) + stored, -GATED_LIMIT), GATED_LIMIT)
        dd = ((gated * ratio + DECAY_HALF) >> DECAY_BITS) - crossing
        dd = integers.saturate(integers.shift_round(dd, s_d.to(tl.int64)), 32)
        dd = ((dd * LN2 + DECAY_HALF) >> DECAY_BITS).to(tl.int32)
        tl.store(dd_pointer + (row * length + time) * heads + head, dd, mask=there)

        scale = -k + (2 * DECAY_BITS - GRADIENT_BITS)
        dx = rescale(through, -r + 17) + rescale(into, scale) + ((dy.to(tl.int64) * skip) << GRADIENT_BITS)
        dx = integers.saturate(integers.shift_round(dx, s_x.to(tl.int64)), 32).to(tl.int32)
        tl.store(dx_pointer + across, dx, mask=inside)
        moved = joined(tl.dot(bytes_x, high, out_dtype=tl.int32), tl.dot(bytes_x, low, out_dtype=tl.int32))
        db += rescale(moved.to(tl.int64) * stored_weight[:, None], scale)
        shared = (row * length + time)[:, None] * states + s[None, :]
        tl.atomic_add(db_pointer + shared, db, mask=there[:, None] & mixture[None, :], sem="relaxed")
        tl.atomic_add(dc_pointer + shared, dc, mask=there[:, None] & mixture[None, :], sem="relaxed")
        lam = ((lam * kept + DECAY_HALF) >> DECAY_BITS) + rescale(added, -w + s_g)
        lam = integers.saturate(lam, 32)
    tl.store(start_pointer + first * width * states + place, lam.to(tl.int32), mask=known)
    tl.atomic_add(dskip_pointer + head, tl.sum(passed, 0), sem="relaxed")


@triton.jit(do_not_specialize=["s"])
def put_kernel(result_pointer, total_pointer, size, s, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(total_pointer + offset, mask=offset < size, other=0)
    result = integers.saturate(integers.shift_round(total, s.to(tl.int64)), 32).to(tl.int32)
    tl.store(result_pointer + offset, result, mask=offset < size)


@implements(ops.ssd_chunk_scan_backward)
def ssd_chunk_scan_backward(dy, x, d, b, c, skip, h, dh, *, q, s_h, s_g, s_x, s_d, s_b, s_c):
    dy, x, d, b, c, skip, h, dh = (a.contiguous() for a in (dy, x, d, b, c, skip, h, dh))
    batch, length, heads, width = x.shape
    states, chunk, device = h.shape[-1], 1 << q, x.device
    dx, dd = torch.zeros_like(x, dtype=torch.int32), torch.zeros_like(d, dtype=torch.int32)
    db, dc = torch.zeros_like(b, dtype=torch.int64), torch.zeros_like(c, dtype=torch.int64)
    dskip, start = torch.zeros_like(skip, dtype=torch.int64), dh.clone()
    if batch * length * heads:
        chunks = triton.cdiv(length, chunk)
        tile, padded = max(chunk, LEAST_TILE), max(triton.next_power_of_2(states), LEAST_TILE)
        channels = max(triton.next_power_of_2(width), LEAST_TILE)
        bits = dict(WEIGHT_BITS=definition.weight_bits(states), Q=chunk, TILE=tile)
        fill = torch.zeros(batch, dtype=torch.int32, device=device)
        planes = torch.empty(PLANES, batch * heads * chunks * tile, dtype=torch.int32, device=device)
        factors = torch.empty(2, batch * heads * chunks, dtype=torch.int32, device=device)
        keys, turned, queries = torch.empty(3, batch * chunks, tile * padded, dtype=torch.int8, device=device)
        kept = torch.empty((batch, heads, chunks, width, states), dtype=torch.int32, device=device)
        strides = planes.shape[1], factors.shape[1]
        exponents_kernel[(factors.shape[1],)](
            *(planes, factors, d, d, fill, length, heads, chunks, *strides),
            CARRIED_BITS=definition.carried_bits(states, s_h),
            **bits,
        )
        mixtures_kernel[(batch * chunks,)](
            *(keys, turned, queries, b, c, b, fill, length, chunks, states), Q=chunk, TILE=tile, STATES=padded
        )
        shape = dict(Q=chunk, TILE=tile, CHANNELS=channels, STATES=padded, num_warps=WARPS)
        sizes = length, heads, width, states, chunks
        states_kernel[(batch * heads,)](
            *(kept, x, turned, planes, factors, h, *sizes, *strides, 1 << (definition.DECAY_BITS - 1)), **shape
        )
        back_kernel[(batch * heads,)](
            *(dx, dd, db, dc, dskip, start, dy, x, d, skip, dh, kept, keys, queries, planes, factors),
            *(*sizes, strides[0], s_g, s_x, s_d),
            **dict(s_h=s_h, WEIGHT_BITS=bits["WEIGHT_BITS"]),
            SUM_BITS=definition.sum_bits(states),
            GRADIENT_BITS=backward.gradient_bits(states),
            **shape,
            num_stages=1,
        )
    shared = (
        elementwise(put_kernel, torch.empty_like(total, dtype=torch.int32), total, s=s)
        for total, s in ((db, s_b), (dc, s_c))
    )
    return dx, dd, *shared, dskip, start


__all__ = ["ssd_chunk_scan_backward"]
