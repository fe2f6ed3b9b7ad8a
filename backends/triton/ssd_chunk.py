"""Triton version of `ssd_chunk_scan`: three kernels.

Two lay positions out on the grid, with every processor busy, and compute what no state changes: the factors of each
position, the int8 factors inside a chunk, x and b with time contiguous, and the open chunk that is left. The third
walks through the chunks of a head with its state in registers; each product is one of int8 on the tensor cores, states
and weighed inputs being two limbs.
"""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import ssd_chunk as definition

from . import integers
from .launch import ceil_div, launch
from .ssd_chunk_factors import (
    LARGEST_ROW_EXPONENT,
    LARGEST_TWO_LIMBS,
    exponent_sums,
    fraction_power,
    gains,
    input_weights,
    lags,
    next_state,
    round_by,
    rounded_power,
    row_exponent,
    weighed_limbs,
)

LEAST_TILE = 32  # of an int8 product
CHANNELS = 32  # of a program that walks: few, for more programs than processors balance them
FACTORS_WARPS = 1
GRID_CHANNELS, GROUP = 64, 4  # of a program that lays out: channels at once, and heads
FEW_CHANNELS = 16  # of a program that walks alone
FEWEST_WALKS, FEW_CHUNKS = 128, 16
STAGES = 2
# Rows of a chunk's factors: inside, before, of inputs, of the whole chunk, and what those inside are made of.
FACTORS = 8
ROWS = tl.constexpr(FACTORS)

MOST_SKIP_BITS = tl.constexpr(15)  # with which a skip of 16 bits still fits int32


@triton.jit
def mix(scores, whole, column, weight):
    """Return the row exponents and the int8 factors of a chunk, of scores that are 0 above the diagonal."""
    mixed = (scores * weight[None, :]) >> lags(whole, column)
    e = row_exponent(tl.max(tl.abs(mixed), 1))
    half = (tl.zeros_like(e) + 1) << (e - 1)
    return e, ((mixed + half[:, None]) >> e[:, None]).to(tl.int8)


@triton.jit
def state_order(s, STATES: tl.constexpr):
    """Return where the walk has state s in a sum over states: those of one thread of a tensor core side by side."""
    if STATES >= 64:
        s = (((s // 16) % 4 * 8 + s % 8) * (STATES // 64) + s // 64) * 2 + s // 8 % 2
    return s


@triton.jit
def in_state_order(tile, STATES: tl.constexpr, CHANNELS: tl.constexpr):
    """Return a tile (state, channel) in that order."""
    if STATES >= 64:
        parts = tl.reshape(tile, [STATES // 64, 4, 2, 8, CHANNELS])
        tile = tl.reshape(tl.permute(parts, [1, 3, 0, 2, 4]), [STATES, CHANNELS])
    return tile


@triton.jit
def factors_kernel(
    factors_pointer,
    rest_d_pointer,
    d_pointer,
    open_d_pointer,
    fill_pointer,
    length,
    heads,
    chunks,
    WEIGHT_BITS: tl.constexpr,
    CARRIED_BITS: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
):
    """Compute the powers of two of a chunk of one head; the chunk after the last whole one is the open one."""
    program = tl.program_id(0).to(tl.int64)
    n, head, row = program % chunks, program // chunks % heads, program // chunks // heads
    fill = tl.load(fill_pointer + row)
    stop = fill + length
    if n * Q <= stop:
        q = tl.arange(0, TILE)
        position = n * Q + q
        inside = (q < Q) & (position < stop)
        slot = (row * Q + q) * heads + head
        d = tl.load(open_d_pointer + slot, mask=inside & (position < fill), other=0).to(tl.int32)
        place = (row * length + (position - fill)) * heads + head
        d += tl.load(d_pointer + place, mask=inside & (position >= fill), other=0)
        tl.store(rest_d_pointer + slot, d, mask=q < tl.where(n == stop // Q, Q, 0))
        sums = exponent_sums(d)
        power_of_fraction = fraction_power(sums)
        whole, column, gain = gains(sums, d, WEIGHT_BITS)
        weights, r, kept = input_weights(sums, d, n * Q + Q <= stop)
        factors = factors_pointer + program * (ROWS * TILE)
        tl.store(factors + TILE + q, rounded_power(power_of_fraction, sums, CARRIED_BITS))
        tl.store(factors + 2 * TILE + q, weights)
        tl.store(factors + 3 * TILE, kept)
        tl.store(factors + 3 * TILE + 1, r)
        tl.store(factors + 4 * TILE + q, whole)
        tl.store(factors + 5 * TILE + q, column)
        tl.store(factors + 6 * TILE + q, gain)
        tl.store(factors + 7 * TILE + q, power_of_fraction)


@triton.jit
def grid_kernel(
    mixed_pointer,
    inputs_pointer,
    turned_pointer,
    queries_pointer,
    factors_pointer,
    rest_x_pointer,
    rest_b_pointer,
    rest_pointer,
    x_pointer,
    b_pointer,
    c_pointer,
    open_x_pointer,
    open_b_pointer,
    fill_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Lay a chunk out and compute its factors inside for a few heads."""
    program = tl.program_id(0)
    groups = tl.maximum(tl.cdiv(heads, GROUP), 1)
    group, n, row = program % groups, program // groups % chunks, (program // groups // chunks).to(tl.int64)
    fill = tl.load(fill_pointer + row)
    stop = fill + length
    if n * Q <= stop:
        q, s = tl.arange(0, TILE), tl.arange(0, STATES)
        position = n * Q + q
        inside = (q < Q) & (position < stop)
        old, new = inside & (position < fill), inside & (position >= fill)
        left = q < tl.where(n == stop // Q, Q, 0)
        time, slot = row * length + (position - fill), row * Q + q
        known = (s < states)[None, :]
        place = time[:, None] * states + s[None, :]
        opened = slot[:, None] * states + s[None, :]
        keys = tl.load(open_b_pointer + opened, mask=old[:, None] & known, other=0)
        keys += tl.load(b_pointer + place, mask=new[:, None] & known, other=0)
        queries = tl.load(c_pointer + place, mask=new[:, None] & known, other=0)
        tile = (row * chunks + n) * TILE * STATES
        if group == 0:
            tl.store(queries_pointer + tile + q[:, None] * STATES + state_order(s, STATES)[None, :], queries)
            tl.store(turned_pointer + tile + s[:, None] * TILE + q[None, :], tl.trans(keys))
            tl.store(rest_b_pointer + opened, keys, mask=left[:, None] & known)
            if n == 0:
                tl.store(rest_pointer + row, stop % Q)
        scores = tl.dot(queries, tl.trans(keys), out_dtype=tl.int32)
        scores = tl.where(q[:, None] >= q[None, :], scores, 0)
        for head in range(group * GROUP, tl.minimum(group * GROUP + GROUP, heads)):
            at = (row * heads + head) * chunks + n
            factors = factors_pointer + at * (ROWS * TILE) + q
            whole, column = tl.load(factors + 4 * TILE), tl.load(factors + 5 * TILE)
            gain, power_of_fraction = tl.load(factors + 6 * TILE), tl.load(factors + 7 * TILE)
            e, mixed = mix(scores, whole, column, gain)
            tl.store(mixed_pointer + at * (TILE * TILE) + q[:, None] * TILE + q[None, :], mixed)
            tl.store(factors, round_by(power_of_fraction, -e + LARGEST_ROW_EXPONENT))
            for block in range(0, tl.cdiv(width, CHANNELS)):
                p = block * CHANNELS + tl.arange(0, CHANNELS)
                channel = (p < width)[None, :]
                opened_x = (slot * heads + head)[:, None] * width + p[None, :]
                x = tl.load(open_x_pointer + opened_x, mask=old[:, None] & channel, other=0)
                place_x = (time * heads + head)[:, None] * width + p[None, :]
                x += tl.load(x_pointer + place_x, mask=new[:, None] & channel, other=0)
                turned = at * width * TILE + p[:, None].to(tl.int64) * TILE + q[None, :]
                tl.store(inputs_pointer + turned, tl.trans(x), mask=(p < width)[:, None])
                tl.store(rest_x_pointer + opened_x, x, mask=left[:, None] & channel)


@triton.jit
def seen_limbs(state, s_h: tl.constexpr):
    """Return the high and the low signed byte of what the output sees of a state.

    With s_h = 16 nothing is clamped, and both are bytes of the state with a constant added, which still fits.
    """
    low = (state + (1 << (s_h - 1))) >> s_h
    if s_h < 16:
        low = tl.minimum(tl.maximum(low, -LARGEST_TWO_LIMBS), LARGEST_TWO_LIMBS)
        high = (low + 128) >> 8
    else:
        high = (state + ((1 << (s_h - 1)) + (128 << s_h))) >> (s_h + 8)
    return high.to(tl.int8), low.to(tl.int8)


# The halves stay variables: the compiler adds constants last, which takes an addition of 64 bits from each product.
@triton.jit(do_not_specialize=["half_y", "half_h"])
def scan_kernel(
    y_pointer,
    end_pointer,
    seen_high_pointer,
    seen_low_pointer,
    x_pointer,
    mixed_pointer,
    inputs_pointer,
    turned_pointer,
    queries_pointer,
    factors_pointer,
    skip_pointer,
    h_pointer,
    fill_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    half_y,
    half_h,
    s_h: tl.constexpr,
    s_y: tl.constexpr,
    SUM_BITS: tl.constexpr,
    WIDE: tl.constexpr,
    WALKS: tl.constexpr,
    ANSWERS: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Walk through the chunks of a head; or keep the states that outputs see; or compute the outputs of one chunk."""
    program = tl.program_id(0)
    blocks = tl.cdiv(width, CHANNELS)
    number = program // blocks // heads % chunks
    if not WALKS:
        program = program // (blocks * heads * chunks) * (blocks * heads) + program % (blocks * heads)
    block, head, row = program % blocks, program // blocks % heads, (program // blocks // heads).to(tl.int64)
    q, s, p = tl.arange(0, TILE), tl.arange(0, STATES), block * CHANNELS + tl.arange(0, CHANNELS)
    fill = tl.load(fill_pointer + row)
    skip = tl.load(skip_pointer + head).to(tl.int32)
    channel = p < width
    place = ((row * heads + head) * width + p)[None, :] * states + s[:, None]
    known = channel[None, :] & (s < states)[:, None]
    if WALKS:
        state = tl.load(h_pointer + place, mask=known, other=0)
    across = ((row * length * heads + head) * width + p)[None, :]
    first, tile_of_inputs = (row * heads + head) * chunks, tl.cast(width, tl.int64) * TILE
    inputs_pointer += first * width * TILE + p[:, None].to(tl.int64) * TILE + q[None, :]
    mixed_pointer += first * (TILE * TILE) + q[:, None] * TILE + q[None, :]
    factors_pointer += first * (ROWS * TILE)
    tiles = row * chunks * TILE * STATES
    turned_pointer += tiles + s[:, None] * TILE + q[None, :]
    queries_pointer += tiles + q[:, None] * STATES + s[None, :]

    last = (fill + length + Q - 1) // Q
    for n in range(0 if WALKS else number, last if WALKS else tl.minimum(number + 1, last)):
        time = n * Q - fill + q
        inside = ((q < Q) & (time >= 0) & (time < length))[:, None] & channel[None, :]
        outputs = across + time[:, None].to(tl.int64) * (heads * width)
        inputs = tl.load(inputs_pointer + n * tile_of_inputs, mask=channel[:, None], other=0)
        factors = factors_pointer + n * (ROWS * TILE)
        seen = (first + n) * width * STATES
        if WALKS:
            high, low = seen_limbs(state, s_h)
            if ANSWERS:
                high, low = in_state_order(high, STATES, CHANNELS), in_state_order(low, STATES, CHANNELS)
            else:
                seen_place = seen + p[None, :].to(tl.int64) * STATES + state_order(s, STATES)[:, None]
                tl.store(seen_high_pointer + seen_place, high, mask=channel[None, :])
                tl.store(seen_low_pointer + seen_place, low, mask=channel[None, :])
        else:
            seen_place = seen + p[:, None].to(tl.int64) * STATES + s[None, :]
            high = tl.trans(tl.load(seen_high_pointer + seen_place, mask=channel[:, None], other=0))
            low = tl.trans(tl.load(seen_low_pointer + seen_place, mask=channel[:, None], other=0))
        if ANSWERS:
            x = tl.load(x_pointer + outputs, mask=inside, other=0)
            mixed = tl.load(mixed_pointer + n * (TILE * TILE))
            queries = tl.load(queries_pointer + n * (TILE * STATES))
            before = tl.dot(queries, high, out_dtype=tl.int32) << 8
            before = tl.dot(queries, low, before, out_dtype=tl.int32)
            within = tl.dot(mixed, tl.trans(inputs), out_dtype=tl.int32)
            total = half_y + within.to(tl.int64) * tl.load(factors + q)[:, None]
            total += before.to(tl.int64) * tl.load(factors + TILE + q)[:, None]
            if SUM_BITS > MOST_SKIP_BITS:
                total += (x.to(tl.int32) * skip).to(tl.int64) << SUM_BITS
            else:
                total += x.to(tl.int64) * (skip << SUM_BITS)
            y = integers.saturate((total >> (SUM_BITS + s_y)).to(WIDE), 16).to(tl.int16)
            tl.store(y_pointer + outputs, y, mask=inside)
        if WALKS:
            turned = tl.load(turned_pointer + n * (TILE * STATES))
            weights = tl.load(factors + 2 * TILE + q)
            kept, r = tl.load(factors + 3 * TILE), tl.load(factors + 3 * TILE + 1)
            high, low = weighed_limbs(inputs, weights[None, :], r)
            added = tl.dot(turned, tl.trans(high), out_dtype=tl.int32) << 8
            added = tl.dot(turned, tl.trans(low), added, out_dtype=tl.int32)
            state = next_state(state, added, r, kept, half_h)
    if WALKS:
        tl.store(end_pointer + place, state, mask=known)


@implements(ops.ssd_chunk_scan)
def ssd_chunk_scan(x, d, b, c, skip, h, open_x, open_d, open_b, fill, *, s_h, s_y):
    batch, length, heads, width = x.shape
    states, chunk = h.shape[-1], open_x.shape[1]
    chunks = (length + chunk - 1) // chunk + 1  # of the fullest row, and the empty one that it may leave
    tile, padded = max(chunk, LEAST_TILE), max(triton.next_power_of_2(states), LEAST_TILE)

    def empty(*shape, dtype=torch.int8):
        return torch.empty(shape, dtype=dtype, device=x.device)

    y, end, rest = (
        empty(*x.shape, dtype=torch.int16),
        empty(*h.shape, dtype=torch.int32),
        empty(batch, dtype=torch.int32),
    )
    opened = [empty(*a.shape, dtype=a.dtype) for a in (open_x, open_d, open_b)]
    mixed, inputs = empty(batch * heads * chunks, tile * tile), empty(batch * heads * chunks, width * tile)
    turned, queries = empty(batch * chunks, padded * tile), empty(batch * chunks, tile * padded)
    factors = empty(batch * heads * chunks, FACTORS * tile, dtype=torch.int32)
    sizes = length, heads, width, states, chunks
    tiles = dict(Q=chunk, TILE=tile, STATES=padded)
    rest_x, rest_d, rest_b = opened
    launch(
        factors_kernel,
        batch * heads * chunks,
        (factors, rest_d),
        (d, open_d, fill),
        *(length, heads, chunks),
        WEIGHT_BITS=definition.weight_bits(states),
        CARRIED_BITS=definition.carried_bits(states, s_h),
        Q=chunk,
        TILE=tile,
        num_warps=FACTORS_WARPS,
    )
    launch(
        grid_kernel,
        batch * chunks * max(ceil_div(heads, GROUP), 1),
        (mixed, inputs, turned, queries, factors, rest_x, rest_b, rest),
        (x, b, c, open_x, open_b, fill),
        *sizes,
        GROUP=GROUP,
        CHANNELS=GRID_CHANNELS,
        num_warps=max(tile // 16, 4),
        **tiles,
    )
    # The outputs of few and long rows come after the states, from every chunk at once.
    together = batch * heads * ceil_div(width, CHANNELS) >= FEWEST_WALKS or chunks <= FEW_CHUNKS
    seen = None if together else empty(2, batch * heads * chunks, width * padded)

    def walk(programs, channels, walks, answers):
        launch(
            scan_kernel,
            programs * ceil_div(width, channels),
            (y, end, *(seen if seen is not None else (None, None))),
            (x, mixed, inputs, turned, queries, factors, skip, h, fill),
            *sizes,
            (1 << (definition.sum_bits(states) + s_y)) >> 1,
            1 << (definition.DECAY_BITS - 1),
            s_h=s_h,
            s_y=s_y,
            SUM_BITS=definition.sum_bits(states),
            WIDE=tl.int32 if definition.rounded_sum(states, chunk, s_h, s_y).fits("int32") else tl.int64,
            WALKS=walks,
            ANSWERS=answers,
            CHANNELS=channels,
            num_stages=STAGES if tile <= 64 else 1,
            **tiles,
        )

    if together:
        walk(batch * heads, CHANNELS, True, True)
    else:
        walk(batch * heads, FEW_CHANNELS, True, False)
        walk(batch * heads * chunks, CHANNELS, False, True)
    return y, end, *opened, rest


__all__ = ["ssd_chunk_scan"]
