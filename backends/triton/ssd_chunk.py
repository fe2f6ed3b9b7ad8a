"""Triton versions of ``spec.ops.ssd_chunk``.

Small kernels first lay positions out on the grid, in tiles of one chunk each: what depends on a position and head alone
is computed once for each, b is stored a second time with time contiguous, and slots that no position fills change
nothing. Then a program for each head walks through the chunks with its state in registers; each product is
one of int8 on the tensor cores, states and weighed inputs being two limbs.
"""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import ssd_chunk as definition

from . import integers

LEAST_TILE = 32  # of an int8 product
CHANNELS, ROWS = 64, 64
WIDE_STATES = 128  # above, a program has fewer channels
WARPS, STAGES = 4, 3
PLANES = 6  # of integers that the scan reads for each position and head

DECAY_BITS = tl.constexpr(definition.DECAY_BITS)
DECAY_ONE = tl.constexpr(1 << definition.DECAY_BITS)
MOST_SKIP_BITS = tl.constexpr(15)  # with which a skip of 16 bits still fits int32
FRACTION_BITS = tl.constexpr(definition.FRACTION_BITS)
LARGEST_EXPONENT = tl.constexpr(definition.LARGEST_EXPONENT)
LARGEST_ROW_EXPONENT = tl.constexpr(definition.LARGEST_ROW_EXPONENT)
LARGEST_TWO_LIMBS = tl.constexpr(definition.LARGEST_TWO_LIMBS)
ONE = tl.constexpr(definition.ONE)
POWER_BITS = tl.constexpr(definition.POWER_BITS)
C0, C1, C2, C3, C4, C5, C6 = (tl.constexpr(c) for c in definition.POWER)


@triton.jit
def fraction_power(f):
    """Return 2**(-f / 4096) in Q.30, int64, for a fraction."""
    f = f.to(tl.int64)
    p = ((f * C6) >> FRACTION_BITS) + C5
    p = ((p * f) >> FRACTION_BITS) + C4
    p = ((p * f) >> FRACTION_BITS) + C3
    p = ((p * f) >> FRACTION_BITS) + C2
    p = ((p * f) >> FRACTION_BITS) + C1
    return ((p * f) >> FRACTION_BITS) + C0


@triton.jit
def power(z, bits: tl.constexpr):
    s = (tl.minimum(z >> FRACTION_BITS, 32) + (POWER_BITS - bits)).to(tl.int64)
    p = fraction_power(z & (ONE - 1))
    half = ((tl.zeros_like(s) + 1) << s) >> 1
    return ((p + half) >> s).to(tl.int32)


@triton.jit
def exponent_sums(d, q):
    """Return the sums of a chunk's exponents: less the fraction that the last position which forgets had."""
    sums = tl.cumsum(d, 0)
    forgot = tl.where(d == LARGEST_EXPONENT, ((q + 1) << FRACTION_BITS) + (sums & (ONE - 1)), 0)
    latest = tl.max(tl.where(q[:, None] >= q[None, :], forgot[None, :], 0), 1)
    return sums - (latest & (ONE - 1))


@triton.jit
def round_by(x, s):
    """Return shift_round(x, s) for int32 x and a tensor s."""
    half = ((tl.zeros_like(s) + 1) << s) >> 1
    return (x + half) >> s


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
    d = tl.load(d_pointer + place, mask=inside & (position >= fill), other=0).to(tl.int32) + before
    sums = exponent_sums(d, q)
    last = tl.max(sums, 0)
    rest = -(sums & (ONE - 1)) + ONE
    gain = power(rest, POWER_BITS) - power(rest + d, POWER_BITS)
    bits = integers.bit_length(gain)
    whole = n * Q + Q <= fill + length
    weight = power(last - sums, DECAY_BITS) - power(last - sums + d, DECAY_BITS)
    weight = tl.where(whole, weight, 0)
    r = tl.maximum(integers.bit_length(tl.max(weight, 0)) - 8, 0)
    kept = tl.where(whole, power(last, DECAY_BITS), DECAY_ONE)

    planes_pointer += program.to(tl.int64) * TILE + q
    tl.store(planes_pointer, sums >> FRACTION_BITS)
    tl.store(planes_pointer + plane, (sums >> FRACTION_BITS) + bits - POWER_BITS)
    tl.store(planes_pointer + 2 * plane, round_by(gain, tl.maximum(bits - WEIGHT_BITS, 0)))
    tl.store(planes_pointer + 3 * plane, fraction_power(sums & (ONE - 1)).to(tl.int32))
    tl.store(planes_pointer + 4 * plane, power(sums, CARRIED_BITS))
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
def open_kernel(
    open_pointer,
    before_pointer,
    after_pointer,
    fill_pointer,
    length,
    width,
    Q: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write a position of the open chunk that the call leaves: of ``width`` elements, zeros beyond its fill."""
    blocks = tl.cdiv(width, BLOCK)
    program = tl.program_id(0)
    part, q, row = program % blocks, program // blocks % Q, (program // blocks // Q).to(tl.int64)
    fill = tl.load(fill_pointer + row)
    stop = fill + length
    position = stop // Q * Q + q
    i = part * BLOCK + tl.arange(0, BLOCK)
    old = i < tl.where(position < fill, width, 0)
    new = i < tl.where((position >= fill) & (position < stop), width, 0)
    value = tl.load(before_pointer + (row * Q + q) * width + i, mask=old, other=0)
    value += tl.load(after_pointer + (row * length + position - fill) * width + i, mask=new, other=0)
    tl.store(open_pointer + (row * Q + q) * width + i, value, mask=i < width)


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


@triton.jit
def mix(scores, whole, column, weight, i, q):
    """Return the row exponents and the int8 factors of a tile's rows i."""
    lag = tl.minimum(whole[:, None] - column[None, :], 31)
    mixed = tl.where(i[:, None] >= q[None, :], (scores * weight[None, :]) >> lag, 0)
    highest = tl.max(tl.abs(mixed), 1)
    e = tl.maximum(integers.bit_length(highest) - 7, 1)
    e += (round_by(highest, e) > 127).to(e.dtype)
    half = (tl.zeros_like(e) + 1) << (e - 1)
    return e, ((mixed + half[:, None]) >> e[:, None]).to(tl.int8)


@triton.jit
def next_state(state, x, factor, turned, r, kept, half):
    """Return the state after a chunk: x (time, channel), its weights, and b (state, time)."""
    # The high byte of the rounded product, and the low one, straight from the product.
    product = x.to(tl.int32) * factor[:, None] + ((1 << r) >> 1)
    low = (product >> r).to(tl.int8)
    high = ((product + (128 << r)) >> (r + 8)).to(tl.int8)
    added = tl.dot(tl.trans(low), tl.trans(turned), out_dtype=tl.int32)
    added += tl.dot(tl.trans(high), tl.trans(turned), out_dtype=tl.int32) << 8
    return ((half + state.to(tl.int64) * kept) >> DECAY_BITS).to(tl.int32) + added * (4 << r)


# The halves stay variables: the compiler adds constants last, which takes an addition of 64 bits from each product.
@triton.jit(do_not_specialize=["half_y", "half_h"])
def scan_kernel(
    y_pointer,
    end_pointer,
    x_pointer,
    open_pointer,
    keys_pointer,
    turned_pointer,
    queries_pointer,
    planes_pointer,
    chunks_pointer,
    skip_pointer,
    h_pointer,
    fill_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    plane,
    chunk_plane,
    half_y,
    half_h,
    s_h: tl.constexpr,
    s_y: tl.constexpr,
    SUM_BITS: tl.constexpr,
    WIDE: tl.constexpr,
    Q: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    program, plane = tl.program_id(0), tl.cast(plane, tl.int64)
    blocks = tl.cdiv(width, CHANNELS)
    block, head, row = program % blocks, program // blocks % heads, (program // blocks // heads).to(tl.int64)
    q, s, p = tl.arange(0, TILE), tl.arange(0, STATES), block * CHANNELS + tl.arange(0, CHANNELS)
    fill = tl.load(fill_pointer + row)
    skip = tl.load(skip_pointer + head).to(tl.int32)
    channel = p < width
    place = ((row * heads + head) * width + p)[:, None] * states + s[None, :]
    known = channel[:, None] & (s < states)[None, :]
    state = tl.load(h_pointer + place, mask=known, other=0)
    x_pointer += row * length * heads * width + head * width + p[None, :]
    y_pointer += row * length * heads * width + head * width + p[None, :]
    open_pointer += row * Q * heads * width + head * width + p[None, :]
    planes_pointer += (row * heads + head) * chunks * TILE
    chunks_pointer += (row * heads + head) * chunks
    tiles = row * chunks * TILE * STATES
    keys_pointer += tiles + q[:, None] * STATES + s[None, :]
    turned_pointer += tiles + s[:, None] * TILE + q[None, :]
    queries_pointer += tiles

    for n in range(0, (fill + length + Q - 1) // Q):
        first = n * Q - fill
        time = first + q
        inside = (q < Q) & (time >= 0) & (time < length)
        x = tl.load(
            x_pointer + time[:, None].to(tl.int64) * (heads * width), mask=inside[:, None] & channel[None, :], other=0
        )
        if n == 0:
            old = (q < fill)[:, None] & channel[None, :]
            x += tl.load(open_pointer + q[:, None] * (heads * width), mask=old, other=0)
        keys = tl.load(keys_pointer + n * (TILE * STATES))
        turned = tl.load(turned_pointer + n * (TILE * STATES))
        column = tl.load(planes_pointer + n * TILE + plane + q)
        weight = tl.load(planes_pointer + n * TILE + 2 * plane + q)
        high, low = seen_limbs(state, s_h)
        for part in tl.static_range(TILE // ROWS):
            i = part * ROWS + tl.arange(0, ROWS)
            at = planes_pointer + n * TILE + i
            queries = tl.load(queries_pointer + n * (TILE * STATES) + i[:, None] * STATES + s[None, :])
            scores = tl.dot(queries, tl.trans(keys), out_dtype=tl.int32)
            e, mixed = mix(scores, tl.load(at), column, weight, i, q)
            within = tl.dot(mixed, x, out_dtype=tl.int32)
            within_factor = round_by(tl.load(at + 3 * plane), -e + LARGEST_ROW_EXPONENT)
            before = tl.dot(queries, tl.trans(low), out_dtype=tl.int32)
            before += tl.dot(queries, tl.trans(high), out_dtype=tl.int32) << 8
            total = half_y + within.to(tl.int64) * within_factor[:, None]
            total += before.to(tl.int64) * tl.load(at + 4 * plane)[:, None]
            # Of several parts, each reads its rows of x again: a slice of registers is none that Triton has.
            if TILE == ROWS:
                own, stored = x, inside
            else:
                stored = (i < Q) & (first + i >= 0) & (first + i < length)
                own = tl.load(
                    x_pointer + (first + i)[:, None].to(tl.int64) * (heads * width),
                    mask=stored[:, None] & channel[None, :],
                    other=0,
                )
            if SUM_BITS > MOST_SKIP_BITS:
                total += (own.to(tl.int32) * skip).to(tl.int64) << SUM_BITS
            else:
                total += own.to(tl.int64) * (skip << SUM_BITS)
            y = integers.saturate((total >> (SUM_BITS + s_y)).to(WIDE), 16).to(tl.int16)
            tl.store(
                y_pointer + (first + i)[:, None].to(tl.int64) * (heads * width),
                y,
                mask=stored[:, None] & channel[None, :],
            )
        r = tl.load(chunks_pointer + chunk_plane + n)
        kept = tl.load(chunks_pointer + n)
        factor = tl.load(planes_pointer + n * TILE + 5 * plane + q)
        state = next_state(state, x, factor, turned, r, kept, half_h)
    tl.store(end_pointer + place, state, mask=known)


def open_chunk(before, after, fill, length):
    opened = torch.empty_like(before, memory_format=torch.contiguous_format)
    batch, chunk = before.shape[:2]
    width = before[0, 0].numel() if batch else 0
    if width:
        block = min(1024, triton.next_power_of_2(width))
        grid = (batch * chunk * triton.cdiv(width, block),)
        open_kernel[grid](opened, before, after, fill, length, width, Q=chunk, BLOCK=block)
    return opened


@implements(ops.ssd_chunk_scan)
def ssd_chunk_scan(x, d, b, c, skip, h, open_x, open_d, open_b, fill, *, s_h, s_y):
    x, d, b, c, skip, h, open_x, open_d, open_b, fill = (
        a.contiguous() for a in (x, d, b, c, skip, h, open_x, open_d, open_b, fill)
    )
    batch, length, heads, width = x.shape
    states, chunk = h.shape[-1], open_x.shape[1]
    opened = [open_chunk(*pair, fill, length) for pair in ((open_x, x), (open_d, d), (open_b, b))]
    y, end, rest = torch.empty_like(x, dtype=torch.int16), torch.empty_like(h), (fill + length) % chunk
    if 0 in x.shape:
        return y, h.clone(), *opened, rest
    chunks = triton.cdiv(length + chunk - 1, chunk)
    tile, padded = max(chunk, LEAST_TILE), max(triton.next_power_of_2(states), LEAST_TILE)

    def empty(*shape, dtype):
        return torch.empty(shape, dtype=dtype, device=x.device)

    planes = empty(PLANES, batch * heads * chunks * tile, dtype=torch.int32)
    factors = empty(2, batch * heads * chunks, dtype=torch.int32)
    keys, turned, queries = (empty(batch * chunks, tile * padded, dtype=torch.int8) for _ in range(3))
    bits = dict(
        WEIGHT_BITS=definition.weight_bits(states),
        CARRIED_BITS=definition.carried_bits(states, s_h),
        Q=chunk,
        TILE=tile,
    )
    strides = planes.shape[1], factors.shape[1]
    exponents_kernel[(factors.shape[1],)](planes, factors, d, open_d, fill, length, heads, chunks, *strides, **bits)
    mixtures_kernel[(len(keys),)](
        keys, turned, queries, b, c, open_b, fill, length, chunks, states, Q=chunk, TILE=tile, STATES=padded
    )
    block = CHANNELS if padded <= WIDE_STATES else CHANNELS // 2
    block = min(block, max(triton.next_power_of_2(width), LEAST_TILE))
    scan_kernel[(batch * heads * triton.cdiv(width, block),)](
        *(y, end, x, open_x, keys, turned, queries, planes, factors, skip, h, fill),
        *(length, heads, width, states, chunks, *strides),
        *((1 << (definition.sum_bits(states) + s_y)) >> 1, 1 << (definition.DECAY_BITS - 1)),
        s_h=s_h,
        s_y=s_y,
        SUM_BITS=definition.sum_bits(states),
        WIDE=tl.int32 if definition.rounded_sum(states, chunk, s_h, s_y).fits("int32") else tl.int64,
        Q=chunk,
        TILE=tile,
        ROWS=min(ROWS, tile),
        CHANNELS=block,
        STATES=padded,
        num_warps=WARPS,
        num_stages=STAGES,
    )
    return y, end, *opened, rest


@implements(ops.ssd_chunk_scan_step)
def ssd_chunk_scan_step(x, d, b, c, skip, *state, s_h, s_y):
    sequence = (a[:, None] for a in (x, d, b, c))
    y, *after = ssd_chunk_scan.kernel(*sequence, skip, *state, s_h=s_h, s_y=s_y)
    return y[:, 0], *after


__all__ = ["ssd_chunk_scan", "ssd_chunk_scan_step"]
