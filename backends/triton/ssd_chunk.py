"""Triton version of `ssd_chunk_scan`: three kernels.

Two lay positions out on the grid, with every processor busy, and compute what no state changes: the factors of each
position, the int8 factors inside a chunk, x and b with time contiguous, and the open chunk that is left. The third
walks through the chunks of a head with its state in registers; each product is one of int8 on the tensor cores, states
and weighed inputs being two limbs.
"""

import torch
import torch.nn.functional as functional
import triton
import triton.language as tl

from mamba_integer.backends.torch import ssd_chunk as torch_version
from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import ssd_chunk as definition

from . import integers
from .launch import aligned, ceil_div, launch, words
from .room import at_most, torch_where_too_large
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
MOST_ENTRIES = 1 << 16  # of a chunk's b
CHANNELS = 32  # of a program that walks: few, for more programs than processors balance them
FACTORS_HEADS = 8  # of a program that computes factors
GRID_WORDS, GROUP = 16, 4  # of a program that lays out: words of four channels at once, and heads
FEW_CHANNELS = 16  # of a program that walks alone
FEWEST_WALKS, FEW_CHUNKS = 128, 16
STAGES = 2
REGISTERS, GRID_REGISTERS = 168, None  # of a thread: with 168, three programs of four warps share a processor
# Rows of a chunk's factors: inside, before, of inputs, of the whole chunk, and what those inside are made of.
FACTORS = 8
ROWS = tl.constexpr(FACTORS)

# Integers and arrays that Triton need not know more of, for no load is wider by them: each fact is another kernel.
SIZES = "length", "heads", "chunks", "Q"
POSITIONS = "d_pointer", "open_d_pointer", "fill_pointer", "skip_pointer"


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


@triton.jit(do_not_specialize=[*SIZES, "weight_bits", "carried_bits", *POSITIONS])
def factors_kernel(
    factors_pointer,
    rest_d_pointer,
    d_pointer,
    open_d_pointer,
    fill_pointer,
    length,
    heads,
    chunks,
    Q,
    weight_bits,
    carried_bits,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
):
    """Compute the powers of two of a chunk of a few heads; the chunk after the last whole one is the open one."""
    program = tl.program_id(0)
    groups = tl.cdiv(heads, HEADS)
    group, n, row = program % groups, program // groups % chunks, (program // groups // chunks).to(tl.int64)
    fill = tl.load(fill_pointer + row)
    stop = fill + length
    if n * Q <= stop:
        q, head = tl.arange(0, TILE), group * HEADS + tl.arange(0, HEADS)
        position = n * Q + q
        inside = (q < Q) & (position < stop)
        known = (head < heads)[None, :]
        old, new = (inside & (position < fill))[:, None] & known, (inside & (position >= fill))[:, None] & known
        slot = (row * Q + q)[:, None] * heads + head[None, :]
        d = tl.load(open_d_pointer + slot, mask=old, other=0).to(tl.int32)
        d += tl.load(d_pointer + (row * length + (position - fill))[:, None] * heads + head[None, :], mask=new, other=0)
        tl.store(rest_d_pointer + slot, d, mask=(q < tl.where(n == stop // Q, Q, 0))[:, None] & known)
        sums = exponent_sums(d, q[:, None])
        power_of_fraction = fraction_power(sums)
        whole, column, gain = gains(sums, d, weight_bits)
        weights, r, kept = input_weights(sums, d, n * Q + Q <= stop)
        first = factors_pointer + ((row * heads + head) * chunks + n) * (ROWS * TILE)
        factors = first[None, :] + q[:, None]
        tl.store(factors + TILE, rounded_power(power_of_fraction, sums, carried_bits), mask=known)
        tl.store(factors + 2 * TILE, weights, mask=known)
        tl.store(first + 3 * TILE, kept, mask=head < heads)
        tl.store(first + 3 * TILE + 1, r, mask=head < heads)
        tl.store(factors + 4 * TILE, whole, mask=known)
        tl.store(factors + 5 * TILE, column, mask=known)
        tl.store(factors + 6 * TILE, gain, mask=known)
        tl.store(factors + 7 * TILE, power_of_fraction, mask=known)


@triton.jit
def words_on_grid(
    x_pointer,
    open_pointer,
    rest_pointer,
    word,
    words,
    row,
    n,
    head,
    heads,
    length,
    fill,
    first: tl.constexpr,
    Q,
    TILE: tl.constexpr,
):
    """Return words of four channels at each fourth position of a chunk, and keep those of the open chunk."""
    q = 4 * tl.arange(0, TILE // 4) + first
    position, stop = n * Q + q, fill + length
    inside = (q < Q) & (position < stop)
    known = (word < words)[None, :]
    old, new = (inside & (position < fill))[:, None] & known, (inside & (position >= fill))[:, None] & known
    slot = ((row * Q + q) * heads + head)[:, None] * words + word[None, :]
    time = row * length + (position - fill)
    x = tl.load(open_pointer + slot, mask=old, other=0)
    x += tl.load(x_pointer + (time * heads + head)[:, None] * words + word[None, :], mask=new, other=0)
    tl.store(rest_pointer + slot, x, mask=(q < tl.where(n == stop // Q, Q, 0))[:, None] & known)
    return x


@triton.jit
def bytes_together(w0, w1, w2, w3, shift: tl.constexpr):
    """Return the words of one byte of each of four words."""
    low = ((w0 >> shift) & 255) | (((w1 >> shift) & 255) << 8)
    return low | (((w2 >> shift) & 255) << 16) | ((w3 >> shift) << 24)


@triton.jit(do_not_specialize=[*SIZES, *POSITIONS])
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
    words,
    states,
    chunks,
    Q,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
    WORDS: tl.constexpr,
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
            turned = inputs_pointer + at * (words * TILE)
            for block in range(0, tl.cdiv(words, WORDS)):
                word = block * WORDS + tl.arange(0, WORDS)
                arrays = x_pointer, open_x_pointer, rest_x_pointer, word, words
                chunk = row, n, head, heads, length, fill
                w0 = words_on_grid(*arrays, *chunk, 0, Q, TILE)
                w1 = words_on_grid(*arrays, *chunk, 1, Q, TILE)
                w2 = words_on_grid(*arrays, *chunk, 2, Q, TILE)
                w3 = words_on_grid(*arrays, *chunk, 3, Q, TILE)
                columns = (4 * word)[None, :] * (TILE // 4) + tl.arange(0, TILE // 4)[:, None]
                for i in tl.static_range(4):
                    channel = bytes_together(w0, w1, w2, w3, 8 * i)
                    tl.store(turned + columns + i * (TILE // 4), channel, mask=(word < words)[None, :])


@triton.jit
def seen_limbs(state, s_h, HALVES: tl.constexpr):
    """Return the high and the low signed byte of what the output sees of a state.

    With HALVES s_h is 16: nothing is clamped, and both are bytes of the state with a constant added, which still fits.
    """
    if HALVES:
        high, low = (state + ((1 << 15) + (128 << 16))) >> 24, (state + (1 << 15)) >> 16
    else:
        low = (state + ((1 << s_h) >> 1)) >> s_h
        low = tl.minimum(tl.maximum(low, -LARGEST_TWO_LIMBS), LARGEST_TWO_LIMBS)
        high = (low + 128) >> 8
    return high.to(tl.int8), low.to(tl.int8)


# The halves stay variables: the compiler adds constants last, which takes an addition of 64 bits from each product.
@triton.jit(do_not_specialize=[*SIZES, *POSITIONS, "half_h", "s_h", "shift", "unit"])
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
    Q,
    half_h,
    s_h,
    shift,
    unit,
    HALVES: tl.constexpr,
    WIDE: tl.constexpr,
    WALKS: tl.constexpr,
    ANSWERS: tl.constexpr,
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
    shift = shift.to(tl.int64)
    half_y = (tl.full([], 1, tl.int64) << shift) >> 1
    channel = p < width
    place = ((row * heads + head) * width + p)[None, :] * states + s[:, None]
    known = channel[None, :] & (s < states)[:, None]
    if WALKS:
        state = tl.load(h_pointer + place, mask=known, other=0)
    across = ((row * length * heads + head) * width + p)[None, :]
    first, tile_of_inputs = (row * heads + head) * chunks, tl.cast(tl.cdiv(width, 4), tl.int64) * (4 * TILE)
    inputs_pointer += first * tile_of_inputs + p[:, None].to(tl.int64) * TILE + q[None, :]
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
            high, low = seen_limbs(state, s_h, HALVES)
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
            total += (x.to(tl.int32) * skip).to(tl.int64) * unit
            y = integers.saturate((total >> shift).to(WIDE), 16).to(tl.int16)
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


def fits(x, d, b, c, skip, h, open_x, *rest, **parameters):
    return open_x.shape[1] * h.shape[-1] <= MOST_ENTRIES


@implements(ops.ssd_chunk_scan)
@torch_where_too_large(torch_version.ssd_chunk_scan, fits)
def ssd_chunk_scan(x, d, b, c, skip, h, open_x, open_d, open_b, fill, *, s_h, s_y):
    batch, length, heads, width = x.shape
    states, chunk = h.shape[-1], open_x.shape[1]
    x, b, c, h, open_x, open_b = map(aligned, (x, b, c, h, open_x, open_b))
    chunks = (length + chunk - 1) // chunk + 1  # of the fullest row, and the empty one that it may leave
    tile, padded = max(chunk, LEAST_TILE), max(triton.next_power_of_2(states), LEAST_TILE)

    def empty(*shape, dtype=torch.int8):
        return torch.empty(shape, dtype=dtype, device=x.device)

    y, end, rest = (
        empty(*x.shape, dtype=torch.int16),
        empty(*h.shape, dtype=torch.int32),
        empty(batch, dtype=torch.int32),
    )
    rest_d, rest_b = (empty(*a.shape, dtype=a.dtype) for a in (open_d, open_b))
    mixed = empty(batch * heads * chunks, tile * tile)
    missing = -width % 4  # channels: the grid's kernel turns words of four
    x_words, open_words = (words(functional.pad(a, (0, missing)) if missing else a) for a in (x, open_x))
    inputs = empty(batch * heads * chunks, (width + missing) * tile // 4, dtype=torch.int32)
    rest_words = empty(batch, chunk, heads, (width + missing) // 4, dtype=torch.int32)
    turned, queries = empty(batch * chunks, padded * tile), empty(batch * chunks, tile * padded)
    factors = empty(batch * heads * chunks, FACTORS * tile, dtype=torch.int32)
    sizes = length, heads, width, states, chunks, chunk
    bits, tiles = definition.sum_bits(states), dict(TILE=tile, STATES=padded)
    launch(
        factors_kernel,
        batch * chunks * ceil_div(heads, FACTORS_HEADS),
        (factors, rest_d),
        (d, open_d, fill),
        *(length, heads, chunks, chunk),
        *(definition.weight_bits(states), definition.carried_bits(states, s_h)),
        TILE=tile,
        HEADS=FACTORS_HEADS,
    )
    launch(
        grid_kernel,
        batch * chunks * max(ceil_div(heads, GROUP), 1),
        (mixed, inputs, turned, queries, factors, rest_words, rest_b, rest),
        (x_words, b, c, open_words, open_b, fill),
        *(length, heads, (width + missing) // 4, states, chunks, chunk),
        GROUP=GROUP,
        WORDS=GRID_WORDS,
        num_warps=max(tile // 16, 4),
        **at_most(GRID_REGISTERS),
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
            (x, mixed, inputs.view(torch.int8), turned, queries, factors, skip, h, fill),
            *(*sizes, 1 << (definition.DECAY_BITS - 1), s_h, bits + s_y, 1 << bits),
            HALVES=s_h == 16,
            WIDE=tl.int32 if definition.rounded_sum(states, chunk, s_h, s_y).fits("int32") else tl.int64,
            WALKS=walks,
            ANSWERS=answers,
            CHANNELS=channels,
            num_stages=STAGES if tile <= 64 else 1,
            **at_most(REGISTERS),
            **tiles,
        )

    if together:
        walk(batch * heads, CHANNELS, True, True)
    else:
        walk(batch * heads, FEW_CHANNELS, True, False)
        walk(batch * heads * chunks, CHANNELS, False, True)
    rest_x = rest_words.view(torch.int8)[..., :width].contiguous()
    return y, end, rest_x, rest_d, rest_b, rest


__all__ = ["ssd_chunk_scan"]
