"""The chunked scan's states at the starts of segments of its chunks: a walk that computes no outputs.

It runs beside the programs of `chunk_scan_kernel`, each of which waits for the first state of its segment. All walks
have begun before any of those programs begins, so the walks end whatever waits for them.
"""

# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import triton
import triton.language as tl

from .instructions import has_ptx, is_interpreted
from .overlap import start_next
from .ssd_chunk_factors import DECAY_HALF, POSITIONS, SIZES, next_state, shifted_limbs
from .ssd_chunk_grid import ROWS
from .ssd_chunk_limbs import both_joined, side_by_side


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
    if has_ptx():
        code: tl.constexpr = "{ .reg .pred p; setp.ne.s32 p, $3, 0; @p st.global.b32 [$1], $2; mov.u32 $0, 0; }"
        arguments = [pointers.to(tl.int64), values, mask.to(tl.int32)]
        tl.inline_asm_elementwise(code, "=r,l,r,r", arguments, dtype=tl.int32, is_pure=False, pack=1)
    else:
        tl.store(pointers, values, mask=mask)


@triton.jit
def await_walks(ready_pointer, walks):
    """Wait until as many walks of a block of channels have stored a segment's state; return how many have."""
    ready = tl.atomic_add(ready_pointer, 0, sem="acquire")
    if not is_interpreted():  # there, programs run one by one: nothing more would come
        while ready < walks:
            ready = tl.atomic_add(ready_pointer, 0, sem="acquire")
        tl.debug_barrier()  # no thread reads what is stored before the one that waited
    return ready


@triton.jit
def chunk_decays(factors_pointer, n, last, TILE: tl.constexpr, COUNT: tl.constexpr):
    """Return the decays of some chunks, and the exponents of their inputs; after the last chunk, its own again."""
    kept, r = (), ()
    for i in tl.static_range(COUNT):
        factors = factors_pointer + tl.maximum(tl.minimum(n + i, last - 1), 0) * (ROWS * TILE) + 3 * TILE
        kept, r = kept + (tl.load(factors),), r + (tl.load(factors + 1),)
    return kept, r


@triton.jit(do_not_specialize=[*SIZES, *POSITIONS])
def chunk_starts_kernel(
    starts_pointer,
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
    SEGMENT: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Walk through the chunks of a head for a few channels; store the state of each segment's start, and say so.

    ``ready_pointer`` counts the walks that have stored, of a segment and a block of ``BLOCK`` channels.
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
    all_heads = tl.num_programs(0) // parts
    blocks = tl.cdiv(width, BLOCK)
    ready_pointer += (row * heads + head) * blocks + part * CHANNELS // BLOCK
    starts_pointer += place
    first = (row * heads + head) * chunks
    factors_pointer += first * (ROWS * TILE)
    tile_of_inputs = channels * TILE
    inputs_pointer += first * tile_of_inputs + p[:, None].to(tl.int64) * TILE + q[None, :]
    turned_pointer += row * chunks * TILE * STATES + s[:, None] * TILE + q[None, :]
    last = (fill + length + Q - 1) // Q
    kept, r = chunk_decays(factors_pointer, 0, last, TILE, STEP)
    for n in range(0, tl.minimum(last, (chunks - 1) // SEGMENT * SEGMENT), STEP):
        keys, weighed = (), ()
        for i in tl.static_range(STEP):
            chunk = tl.minimum(n + i, last - 1)  # nothing is stored of chunks after the last
            inputs = tl.load(inputs_pointer + chunk * tile_of_inputs, mask=channel[:, None], other=0)
            weights = tl.load(factors_pointer + chunk * (ROWS * TILE) + 2 * TILE + q)
            keys = keys + (tl.load(turned_pointer + chunk * (TILE * STATES)),)
            weighed = weighed + (side_by_side(*shifted_limbs(inputs, weights[None, :]), CHANNELS, TILE),)
        # Those of the chunks that follow come a turn ahead.
        next_kept, next_r = chunk_decays(factors_pointer, n + STEP, last, TILE, STEP)
        for i in tl.static_range(STEP):
            added = both_joined(tl.dot(keys[i], tl.trans(weighed[i]), out_dtype=tl.int32), STATES, CHANNELS)
            state = next_state(state, added, r[i], kept[i], DECAY_HALF)
        kept, r = next_kept, next_r
        if (n + STEP) % SEGMENT == 0:
            segment = (n + STEP) // SEGMENT
            store_in_place(starts_pointer + segment * all_heads.to(tl.int64) * width * states, state, known)
            after_all_threads()
            tl.atomic_add(ready_pointer + segment * all_heads * blocks, 1, sem="release")


__all__ = ["await_walks", "chunk_starts_kernel"]
