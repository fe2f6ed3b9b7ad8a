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
from .ssd_chunk_factors import LARGEST_TWO_LIMBS, POSITIONS, SIZES, next_state, plus_product, upper_limbs, weighed_limbs
from .ssd_chunk_grid import FACTORS, ROWS, factors_kernel, grid_kernel, state_order

LEAST_TILE = 32  # of an int8 product
MOST_ENTRIES = 1 << 16  # of a chunk's b
CHANNELS = 32  # of a program that walks: few, for more programs than processors balance them
FACTORS_HEADS = 8  # of a program that computes factors
GRID_WORDS, GROUP = 16, 4  # of a program that lays out: words of four channels at once, and heads
FEW_CHANNELS = 16  # of a program that walks alone
FEWEST_WALKS, FEW_CHUNKS = 128, 16
STAGES, MOST_STAGED = 3, 1 << 13  # and the tiles of which three programs then share a processor
REGISTERS, GRID_REGISTERS = 168, 128  # of a thread: three and four programs of four warps then share a processor


@triton.jit
def in_state_order(tile, STATES: tl.constexpr, CHANNELS: tl.constexpr):
    """Return a tile (state, channel) in that order."""
    if STATES >= 64:
        parts = tl.reshape(tile, [STATES // 64, 4, 2, 8, CHANNELS])
        tile = tl.reshape(tl.permute(parts, [1, 3, 0, 2, 4]), [STATES, CHANNELS])
    return tile


@triton.jit
def seen_limbs(state, s_h, HALVES: tl.constexpr):
    """Return the high and the low signed byte of a state as the output sees it.

    With HALVES s_h is 16: nothing is clamped, and both are bytes of the state with a constant added, which still fits.
    """
    if HALVES:
        high, low = upper_limbs(state + ((1 << 15) + (128 << 16)))
    else:
        low = (state + ((1 << s_h) >> 1)) >> s_h
        low = tl.minimum(tl.maximum(low, -LARGEST_TWO_LIMBS), LARGEST_TWO_LIMBS)
        high, low = ((low + 128) >> 8).to(tl.int8), low.to(tl.int8)
    return high, low


@triton.jit
def places_of(first, q, across, channel, length, pitch, Q):
    """Return where the channels of a chunk's positions lie, ``first`` being its first position, and which there are."""
    time = first + q
    inside = ((q < Q) & (time >= 0) & (time < length))[:, None] & channel[None, :]
    return across + time[:, None].to(tl.int64) * pitch, inside


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
    # The next chunk's x and factors are loaded at the end of this one's work: no fence then waits for them.
    start = 0 if WALKS else number
    outputs, inside = places_of(start * Q - fill, q, across, channel, length, heads * width, Q)
    factors = factors_pointer + start * (ROWS * TILE)
    if ANSWERS:
        x = tl.load(x_pointer + outputs, mask=inside, other=0)
        inner, carried = tl.load(factors + q), tl.load(factors + TILE + q)
    for n in range(start, last if WALKS else tl.minimum(number + 1, last)):
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
            mixed = tl.load(mixed_pointer + n * (TILE * TILE))
            queries = tl.load(queries_pointer + n * (TILE * STATES))
            before = tl.dot(queries, high, out_dtype=tl.int32) << 8
            before = tl.dot(queries, low, before, out_dtype=tl.int32)
            within = tl.dot(mixed, tl.trans(inputs), out_dtype=tl.int32)
            total = half_y + within.to(tl.int64) * inner[:, None] + before.to(tl.int64) * carried[:, None]
            total = plus_product(total, x.to(tl.int32) * skip, unit)
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
            if ANSWERS:
                outputs, inside = places_of((n + 1) * Q - fill, q, across, channel, length, heads * width, Q)
                x = tl.load(x_pointer + outputs, mask=inside, other=0)
                factors = factors_pointer + tl.minimum(n + 1, last - 1) * (ROWS * TILE)
                inner, carried = tl.load(factors + q), tl.load(factors + TILE + q)
    if WALKS:
        tl.store(end_pointer + place, state, mask=known)


def fits(x, d, b, c, skip, h, open_x, *rest, **parameters):
    return open_x.shape[1] * h.shape[-1] <= MOST_ENTRIES


@implements(ops.ssd_chunk_scan)
@torch_where_too_large(torch_version.ssd_chunk_scan.kernel, fits)
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
            num_stages=STAGES if tile * padded <= MOST_STAGED else min(STAGES, 2) if tile <= 64 else 1,
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
