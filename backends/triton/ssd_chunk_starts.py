"""The chunked scan of rows that are few and long: walks that keep the state before each chunk, and the outputs.

A walk computes no outputs, and outputs change no state, so both kernels run at once: a program that computes the
outputs of a segment of chunks waits until the walks of its channels have kept what it needs, and other programs of its
own kernel the factors inside. All walks have begun before any of those programs begins, and a kernel's programs begin
in the order of their numbers, so whatever a program waits for has begun and ends.
"""

# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import triton
import triton.language as tl

from .counts import await_count, signal
from .instructions import has_ptx
from .overlap import end_after_kernel_in_front, start_next
from .ssd_chunk_factors import (
    DECAY_HALF,
    DECAY_ONE,
    NEXT_BYTES,
    POSITIONS,
    SIZES,
    UPPER_BYTES,
    next_state,
    shifted_limbs,
    upper_limbs,
)
from .ssd_chunk_grid import ROWS, keys_and_queries, mix_heads
from .ssd_chunk_limbs import both_joined, side_by_side
from .ssd_chunk_outputs import in_state_order, outputs, seen_units


@triton.jit
def after_all_threads():
    """Wait for all threads of the program; Triton's own barrier keeps a loop from loading ahead."""
    if has_ptx():
        code: tl.constexpr = "{ bar.sync 0; mov.u32 $0, 0; }"
        tl.inline_asm_elementwise(code, "=r,r", [tl.program_id(0)], dtype=tl.int32, is_pure=False, pack=1)
    else:
        tl.debug_barrier()


@triton.jit
def store_in_place(pointers, values, mask):
    """Store int32 values from the threads that hold them; Triton would deal them out anew in every turn of a loop."""
    code: tl.constexpr = "{ .reg .pred p; setp.ne.s32 p, $3, 0; @p st.global.b32 [$1], $2; mov.u32 $0, 0; }"
    arguments = [pointers.to(tl.int64), values, mask.to(tl.int32)]
    tl.inline_asm_elementwise(code, "=r,l,r,r", arguments, dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def store_limbs(pointer, units, there, CHANNELS: tl.constexpr, STATES: tl.constexpr):
    """Store the two limbs of `seen_units` (state, channel), in `state_order`: a row of high limbs, then of low ones."""
    channel = tl.arange(0, CHANNELS)
    if has_ptx() and STATES >= 128:
        # Of a tensor core's sums, a thread has four states of a channel that are neighbours in this order.
        parts = tl.reshape(units, [STATES // 128, 2, 4, 2, 8, CHANNELS])
        parts = tl.reshape(tl.permute(parts, [2, 4, 0, 5, 1, 3]), [STATES // 4, CHANNELS, 2, 2])
        even, odd = tl.split(parts)
        first, third = tl.split(even)
        second, fourth = tl.split(odd)
        states = [first, second, third, fourth]
        high = tl.inline_asm_elementwise(UPPER_BYTES, "=r,r,r,r,r", states, dtype=tl.int32, is_pure=True, pack=1)
        low = tl.inline_asm_elementwise(NEXT_BYTES, "=r,r,r,r,r", states, dtype=tl.int32, is_pure=True, pack=1)
        words = pointer.to(tl.pointer_type(tl.int32), bitcast=True)
        words += channel[None, :] * (STATES // 2) + tl.arange(0, STATES // 4)[:, None]
        mask = there[None, :] & (tl.arange(0, STATES // 4) >= 0)[:, None]
        store_in_place(words, high, mask)
        store_in_place(words + STATES // 4, low, mask)
    else:
        high, low = upper_limbs(tl.trans(in_state_order(units, STATES, CHANNELS)))
        place = pointer + channel[:, None] * (2 * STATES) + tl.arange(0, STATES)[None, :]
        tl.store(place, high, mask=there[:, None])
        tl.store(place + STATES, low, mask=there[:, None])


@triton.jit
def chunk_decays(factors_pointer, n, last, TILE: tl.constexpr, COUNT: tl.constexpr):
    """Return the decays of some chunks, and the units of what they add; after the last chunk no state changes."""
    kept, units = (), ()
    for i in tl.static_range(COUNT):
        factors = factors_pointer + tl.maximum(tl.minimum(n + i, last - 1), 0) * (ROWS * TILE) + 3 * TILE
        kept = kept + (tl.where(n + i < last, tl.load(factors), DECAY_ONE),)
        units = units + (tl.where(n + i < last, 4 << tl.load(factors + 1), 0),)
    return kept, units


@triton.jit(do_not_specialize=[*SIZES, *POSITIONS, "s_h"])
def chunk_starts_kernel(
    seen_pointer,
    end_pointer,
    ready_pointer,
    factors_pointer,
    h_pointer,
    fill_pointer,
    inputs_pointer,
    turned_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    Q,
    channels,
    s_h,
    HALVES: tl.constexpr,
    SEGMENT: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Walk through the chunks of a head for a few channels; keep the state before each, as the outputs see it.

    ``ready_pointer`` counts the walks that have kept those of a segment, for a block of ``BLOCK`` channels.
    """
    start_next()
    program, parts = tl.program_id(0), tl.cdiv(width, CHANNELS)
    part, head, row = program % parts, program // parts % heads, (program // parts // heads).to(tl.int64)
    q, s, p = tl.arange(0, TILE), tl.arange(0, STATES), part * CHANNELS + tl.arange(0, CHANNELS)
    fill = tl.load(fill_pointer + row)
    channel = p < width
    known = channel[None, :] & (s < states)[:, None]
    place = ((row * heads + head) * width + p)[None, :] * states + s[:, None]
    state = tl.load(h_pointer + place, mask=known, other=0)
    blocks, segments = tl.cdiv(width, BLOCK), tl.cdiv(chunks, SEGMENT)
    all_blocks = tl.num_programs(0) // parts * blocks
    ready_pointer += (row * heads + head) * blocks + part * CHANNELS // BLOCK
    first = (row * heads + head) * chunks
    tile_of_seen = tl.cast(width * (2 * STATES), tl.int64)
    seen_pointer += (row * heads + head) * segments * SEGMENT * tile_of_seen + part * CHANNELS * (2 * STATES)
    factors_pointer += first * (ROWS * TILE)
    tile_of_inputs = channels * TILE
    inputs_pointer += first * tile_of_inputs + p[:, None].to(tl.int64) * TILE + q[None, :]
    turned_pointer += row * chunks * TILE * STATES + s[:, None] * TILE + q[None, :]
    last = (fill + length + Q - 1) // Q
    kept, unit = chunk_decays(factors_pointer, 0, last, TILE, STEP)
    for n in range(0, last, STEP):
        keys, weighed = (), ()
        for i in tl.static_range(STEP):
            chunk = tl.minimum(n + i, last - 1)
            inputs = tl.load(inputs_pointer + chunk * tile_of_inputs, mask=channel[:, None], other=0)
            weights = tl.load(factors_pointer + chunk * (ROWS * TILE) + 2 * TILE + q)
            keys = keys + (tl.load(turned_pointer + chunk * (TILE * STATES)),)
            weighed = weighed + (side_by_side(*shifted_limbs(inputs, weights[None, :]), CHANNELS, TILE),)
        # Those of the chunks that follow come a turn ahead.
        next_kept, next_unit = chunk_decays(factors_pointer, n + STEP, last, TILE, STEP)
        for i in tl.static_range(STEP):
            # There is room for those after the last chunk, which nobody reads.
            store_limbs(seen_pointer, seen_units(state, s_h, HALVES), channel, CHANNELS, STATES)
            seen_pointer += tile_of_seen
            added = both_joined(tl.dot(keys[i], tl.trans(weighed[i]), out_dtype=tl.int32), STATES, CHANNELS)
            state = next_state(state, added, unit[i], kept[i], DECAY_HALF)
        kept, unit = next_kept, next_unit
        if ((n + STEP) % SEGMENT == 0) | (n + STEP >= last):
            after_all_threads()
            tl.atomic_add(ready_pointer + n // SEGMENT * all_blocks, 1, sem="release")
    tl.store(end_pointer + place, state, mask=known)


@triton.jit
def segment_outputs(
    program,
    segment,
    programs,
    y_pointer,
    seen_pointer,
    walked_pointer,
    mixings_pointer,
    factors_pointer,
    skip_pointer,
    fill_pointer,
    mixed_pointer,
    inputs_pointer,
    queries_pointer,
    length,
    heads,
    width,
    chunks,
    Q,
    channels,
    rounding,
    shift,
    unit,
    WIDE: tl.constexpr,
    SEGMENT: tl.constexpr,
    WALKED: tl.constexpr,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Compute the outputs of a segment of a head's chunks, when their states and factors inside have been stored."""
    blocks, segments = tl.cdiv(width, CHANNELS), tl.cdiv(chunks, SEGMENT)
    block, head, row = program % blocks, program // blocks % heads, (program // blocks // heads).to(tl.int64)
    q, s, p = tl.arange(0, TILE), tl.arange(0, STATES), block * CHANNELS + tl.arange(0, CHANNELS)
    limb = tl.arange(0, 2 * CHANNELS)
    fill = tl.load(fill_pointer + row)
    skip = tl.load(skip_pointer + head).to(tl.int32)
    shift = shift.to(tl.int64)
    channel = p < width
    pitch = (heads * width).to(tl.int64)
    y_pointer += (row * length * heads + head) * width
    across = q[:, None].to(tl.int64) * pitch + p[None, :]
    first = (row * heads + head) * chunks
    factors_pointer += first * (ROWS * TILE) + q
    tile_of_inputs, tile_of_seen = channels * TILE, tl.cast(width * (2 * STATES), tl.int64)
    inputs_pointer += first * tile_of_inputs + p[:, None].to(tl.int64) * TILE + q[None, :]
    mixed_pointer += first * (TILE * TILE) + q[:, None] * TILE + q[None, :]
    queries_pointer += row * chunks * TILE * STATES + q[:, None] * STATES + s[None, :]
    limb_channel = block * CHANNELS + limb % CHANNELS
    seen_pointer += (row * heads + head) * segments * SEGMENT * tile_of_seen
    seen_pointer += (limb_channel * 2 + limb // CHANNELS)[:, None] * STATES + s[None, :]
    last = (fill + length + Q - 1) // Q
    start = segment * SEGMENT
    stop = tl.minimum(start + SEGMENT, last)
    if start < stop:
        mixings_pointer += (row * tl.cdiv(heads, GROUP) + head // GROUP) * segments + segment
        mixings = await_count(mixings_pointer, stop - start)
        parts = tl.minimum(tl.cdiv(width, WALKED) - block * (CHANNELS // WALKED), CHANNELS // WALKED)
        walks = await_count(walked_pointer + segment * programs + program, parts)
        there = limb_channel < tl.where((walks < parts) | (mixings < stop - start), 0, width)
        factors = factors_pointer + start * (ROWS * TILE)
        inner, carried = tl.load(factors), tl.load(factors + TILE)
        for n in range(start, stop):
            seen = tl.load(seen_pointer + n * tile_of_seen, mask=there[:, None], other=0)
            queries = tl.load(queries_pointer + n * (TILE * STATES))
            mixed = tl.load(mixed_pointer + n * (TILE * TILE))
            inputs = tl.load(inputs_pointer + n * tile_of_inputs, mask=channel[:, None], other=0)
            y = outputs(queries, seen, mixed, inputs, inner, carried, skip, rounding, unit, shift, WIDE, TILE, CHANNELS)
            factors = factors_pointer + tl.minimum(n + 1, last - 1) * (ROWS * TILE)
            inner, carried = tl.load(factors), tl.load(factors + TILE)
            time = n * Q - fill
            inside = ((q < Q) & (q >= -time) & (q < length - time))[:, None] & channel[None, :]
            tl.store(y_pointer + time * pitch + across, y, mask=inside)


@triton.jit(do_not_specialize=[*SIZES, *POSITIONS, "mixers", "rounding", "shift", "unit"])
def chunk_outputs_kernel(
    y_pointer,
    seen_pointer,
    walked_pointer,
    mixings_pointer,
    factors_pointer,
    mixed_pointer,
    skip_pointer,
    fill_pointer,
    b_pointer,
    c_pointer,
    open_b_pointer,
    inputs_pointer,
    queries_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    Q,
    channels,
    mixers,
    rounding,
    shift,
    unit,
    WIDE: tl.constexpr,
    SEGMENT: tl.constexpr,
    WALKED: tl.constexpr,
    GROUP: tl.constexpr,
    AHEAD: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Compute factors inside of a chunk, or outputs of an earlier segment of chunks, whose states the walks keep.

    The programs of each segment are ``mixers`` of the former, then those of the segment that is ``AHEAD`` behind.
    ``mixings_pointer`` counts the chunks of a segment whose factors inside are stored, for a group of heads.
    """
    segments = tl.cdiv(chunks, SEGMENT)
    every = tl.num_programs(0) // (segments + AHEAD)
    program, segment = tl.program_id(0) % every, tl.program_id(0) // every
    if program < mixers:
        groups = tl.cdiv(heads, GROUP)
        group, n = program % groups, segment * SEGMENT + program // groups % SEGMENT
        row = (program // groups // SEGMENT).to(tl.int64)
        fill = tl.load(fill_pointer + row)
        if n * Q < fill + length:
            inputs = b_pointer, c_pointer, open_b_pointer
            keys, queries = keys_and_queries(*inputs, row, n, fill, length, states, Q, TILE, STATES)
            mix_heads(mixed_pointer, factors_pointer, keys, queries, row, n, group, heads, chunks, TILE, GROUP, False)
            signal(mixings_pointer + (row * groups + group) * segments + segment, n >= 0)
    elif segment >= AHEAD:
        segment_outputs(
            program - mixers,
            segment - AHEAD,
            every - mixers,
            y_pointer,
            seen_pointer,
            walked_pointer,
            mixings_pointer,
            factors_pointer,
            skip_pointer,
            fill_pointer,
            mixed_pointer,
            inputs_pointer,
            queries_pointer,
            length,
            heads,
            width,
            chunks,
            Q,
            channels,
            rounding,
            shift,
            unit,
            WIDE,
            SEGMENT,
            WALKED,
            GROUP,
            TILE,
            CHANNELS,
            STATES,
        )
    end_after_kernel_in_front()


__all__ = ["chunk_outputs_kernel", "chunk_starts_kernel"]
