"""Triton version of `ssd_chunk_scan`: three kernels.

Two lay positions out on the grid, with every processor busy, and compute what no state changes: the factors of each
position, the int8 factors inside a chunk, x and b with time contiguous, and the open chunk that is left. The third
walks through the chunks of a head with its state in registers; each product is one of int8 on the tensor cores, and
one product is of both limbs of states or of weighed inputs, which lie one below the other.

Where rows are few and long, one kernel walks and keeps the state before each chunk; another follows it a few chunks
behind and computes the outputs, with every processor busy.
"""

import torch
import torch.nn.functional as functional
import triton
import triton.language as tl

from mamba_integer.backends.torch import ssd_chunk as torch_version
from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import ssd_chunk as definition

from .gluon_names import processors
from .instructions import has_little_room
from .launch import aligned, ceil_div, launch, words, zeros
from .overlap import early, wait_for_inputs
from .room import at_most, torch_where_too_large
from .ssd_chunk_factors import (
    DECAY_HALF,
    POSITIONS,
    SIZES,
    next_state,
    shifted_limbs,
)
from .ssd_chunk_grid import FACTORS, ROWS, grid_kernel, positions_kernel
from .ssd_chunk_limbs import both_joined, side_by_side
from .ssd_chunk_outputs import in_state_order, outputs, seen_limbs
from .ssd_chunk_starts import chunk_outputs_kernel, chunk_starts_kernel

LEAST_TILE = 32  # of an int8 product
MOST_ENTRIES = 1 << 16  # of a chunk's b
CHANNELS = 32  # of a program that walks: few, for more programs than processors balance them
MOST_STATES = 256  # of which so many channels fit registers
FACTORS_HEADS = 8  # of a program that computes factors
MANY_HEADS, FEW_HEADS = 12, 4  # of a program that computes factors inside: many where programs fill a device
FEWEST_PROGRAMS = 512
INPUT_WORDS = 32  # of four channels, of a program that turns x
FEWEST_WALKS, FEW_CHUNKS = 128, 16
SEGMENT, AHEAD = 8, 4  # chunks of a segment, a power of two; segments between factors inside and outputs
# Channels of a program that walks alone, chunks of its turns, and turns whose chunks it loads at once: the many of few
# programs, one per processor, leave other processors to the outputs.
LARGE_WALK_TILE = 64
LARGE_WALK, SMALL_WALK = (16, 8, 2), (8, 4, 2)
WALK_WARPS = 4
OUTPUT_STAGES, OUTPUT_REGISTERS = 3, 128  # of a program that computes outputs alone
STAGES, MOST_STAGED = 3, 1 << 13  # and the tiles of which three programs then share a processor
REGISTERS = 168  # of a thread: three programs of four warps then share a processor
MOST_TILE_OF_FOUR_WARPS = 128
MOST_CAPPED = 128  # states: with more, their tiles leave room for two programs alone
GRID_REGISTERS, LARGE_GRID_REGISTERS = 96, 128  # the few leave room for programs that turn x; large tiles need more


@triton.jit(do_not_specialize=[*SIZES, *POSITIONS, "s_h", "rounding", "shift", "unit"])
def chunk_scan_kernel(
    y_pointer,
    end_pointer,
    factors_pointer,
    skip_pointer,
    h_pointer,
    fill_pointer,
    mixed_pointer,
    inputs_pointer,
    turned_pointer,
    queries_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    Q,
    channels,
    s_h,
    rounding,
    shift,
    unit,
    HALVES: tl.constexpr,
    WIDE: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Walk through the chunks of a head for some channels."""
    blocks = tl.cdiv(width, CHANNELS)
    program = tl.program_id(0)
    block, head, row = program % blocks, program // blocks % heads, (program // blocks // heads).to(tl.int64)
    q, s, p = tl.arange(0, TILE), tl.arange(0, STATES), block * CHANNELS + tl.arange(0, CHANNELS)
    fill = tl.load(fill_pointer + row)
    skip = tl.load(skip_pointer + head).to(tl.int32)
    shift = shift.to(tl.int64)
    channel = p < width
    place = ((row * heads + head) * width + p)[None, :] * states + s[:, None]
    known = channel[None, :] & (s < states)[:, None]
    pitch = (heads * width).to(tl.int64)
    y_pointer += (row * length * heads + head) * width
    across = q[:, None].to(tl.int64) * pitch + p[None, :]
    first = (row * heads + head) * chunks
    factors_pointer += first * (ROWS * TILE)
    tile_of_inputs = channels * TILE
    inputs_pointer += first * tile_of_inputs + p[:, None].to(tl.int64) * TILE + q[None, :]
    mixed_pointer += first * (TILE * TILE) + q[:, None] * TILE + q[None, :]
    tiles = row * chunks * TILE * STATES
    turned_pointer += tiles + s[:, None] * TILE + q[None, :]
    queries_pointer += tiles + q[:, None] * STATES + s[None, :]
    last = (fill + length + Q - 1) // Q
    state = tl.load(h_pointer + place, mask=known, other=0)
    wait_for_inputs()
    factors = factors_pointer
    inner, carried = tl.load(factors + q), tl.load(factors + TILE + q)
    kept, r = tl.load(factors + 3 * TILE), tl.load(factors + 3 * TILE + 1)
    for n in range(0, last):
        inputs = tl.load(inputs_pointer + n * tile_of_inputs, mask=channel[:, None], other=0)
        factors = factors_pointer + n * (ROWS * TILE)
        turned = tl.load(turned_pointer + n * (TILE * STATES))
        high, low = seen_limbs(state, s_h, HALVES)
        high, low = in_state_order(high, STATES, CHANNELS), in_state_order(low, STATES, CHANNELS)
        both = side_by_side(tl.trans(high), tl.trans(low), CHANNELS, STATES)
        mixed = tl.load(mixed_pointer + n * (TILE * TILE))
        queries = tl.load(queries_pointer + n * (TILE * STATES))
        y = outputs(queries, both, mixed, inputs, inner, carried, skip, rounding, unit, shift, WIDE, TILE, CHANNELS)
        time = n * Q - fill
        inside = ((q < Q) & (q >= -time) & (q < length - time))[:, None] & channel[None, :]
        tl.store(y_pointer + time * pitch + across, y, mask=inside)
        weights = tl.load(factors_pointer + n * (ROWS * TILE) + 2 * TILE + q)
        weighed = side_by_side(*shifted_limbs(inputs, weights[None, :]), CHANNELS, TILE)
        added = both_joined(tl.dot(turned, tl.trans(weighed), out_dtype=tl.int32), STATES, CHANNELS)
        # The next chunk's factors are loaded here: no fence then waits for them.
        factors = factors_pointer + tl.minimum(n + 1, last - 1) * (ROWS * TILE)
        next_kept, next_r = tl.load(factors + 3 * TILE), tl.load(factors + 3 * TILE + 1)
        inner, carried = tl.load(factors + q), tl.load(factors + TILE + q)
        state = next_state(state, added, 4 << r, kept, DECAY_HALF)
        kept, r = next_kept, next_r
    tl.store(end_pointer + place, state, mask=known)


def stages_of(tile, padded):
    """Return how many chunks are loaded at once: as many as leave room for three programs per processor."""
    if tile <= MOST_TILE_OF_FOUR_WARPS and tile * padded <= MOST_STAGED:
        return STAGES
    return min(STAGES, 2) if tile <= 64 else 1


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
    factoring = batch * chunks * ceil_div(heads, FACTORS_HEADS)
    turning = batch * chunks * ceil_div(heads * (width + missing) // 4, INPUT_WORDS)

    def lay_out(programs, factoring, **options):
        launch(
            positions_kernel,
            programs,
            (factors, rest_d, inputs, rest_words),
            (d, open_d, x_words, open_words, fill),
            *(length, heads, (width + missing) // 4, chunks, chunk),
            *(definition.weight_bits(states), definition.carried_bits(states, s_h), factoring),
            TILE=tile,
            HEADS=FACTORS_HEADS,
            BLOCK=INPUT_WORDS,
            **options,
        )

    many = batch * chunks * ceil_div(heads, MANY_HEADS) >= FEWEST_PROGRAMS
    group = MANY_HEADS if many else FEW_HEADS
    channels, four_warps = CHANNELS if padded <= MOST_STATES else CHANNELS // 2, tile <= MOST_TILE_OF_FOUR_WARPS
    x_tiles, blocks = inputs.view(torch.int8), batch * heads * ceil_div(width, channels)
    alone = 0 < blocks < FEWEST_WALKS and chunks > FEW_CHUNKS
    groups, segments = max(ceil_div(heads, group), 1), ceil_div(chunks, SEGMENT)
    if alone:
        few = tile * padded <= MOST_STAGED
        has_room = few and tile <= LARGE_WALK_TILE and not has_little_room()
        large = has_room and batch * heads * ceil_div(width, LARGE_WALK[0]) <= processors(x.device)
        walked_channels, step, walk_stages = LARGE_WALK if large else SMALL_WALK
        programs, mixers = blocks, batch * groups * SEGMENT
        seen = empty(batch * heads, segments * SEGMENT, width, 2 * padded)
        counts = zeros((segments * (programs + batch * groups),), torch.int32, x.device)
        walked, mixings = counts[: segments * programs], counts[segments * programs :]

    def grid(groups, group, **options):
        launch(
            grid_kernel,
            batch * chunks * groups,
            (mixed, turned, queries, factors, rest_b, rest),
            (b, c, open_b, fill),
            *(length, heads, states, chunks, chunk),
            GROUP=group,
            num_warps=max(tile // 16, 4),
            **options,
            **at_most(GRID_REGISTERS if tile * padded <= MOST_STAGED else LARGE_GRID_REGISTERS),
            **tiles,
        )

    if alone:
        grid(1, 0)
        lay_out(factoring + turning, factoring, **early())
    else:
        # Much of x is turned beside the factors inside, which wait for instructions where it waits for memory.
        lay_out(factoring if many else factoring + turning, factoring)
        grid(groups, group, **(early() if factoring else {}))
        if many:
            lay_out(turning, 0, **early())
    of_outputs = 1 << s_y, bits + s_y, 1 << (bits - 1)
    wide = tl.int32 if definition.rounded_sum(states, chunk, s_h, s_y).fits("int32") else tl.int64
    if not alone:
        launch(
            chunk_scan_kernel,
            blocks,
            (y, end),
            (factors, skip, h, fill, mixed, x_tiles, turned, queries),
            *(*sizes, width + missing, s_h, *of_outputs),
            HALVES=s_h == 16,
            WIDE=wide,
            CHANNELS=channels,
            num_stages=stages_of(tile, padded),
            num_warps=4 if four_warps else 8,
            **early(),
            **at_most(REGISTERS if four_warps and padded <= MOST_CAPPED else None),
            **tiles,
        )
    else:
        launch(
            chunk_starts_kernel,
            batch * heads * ceil_div(width, walked_channels),
            (seen, end, walked),
            (factors, h, fill, x_tiles, turned),
            *(*sizes, width + missing, s_h),
            HALVES=s_h == 16,
            SEGMENT=SEGMENT,
            STEP=min(step, SEGMENT) if few else 1,
            BLOCK=channels,
            CHANNELS=walked_channels,
            num_stages=walk_stages,
            num_warps=WALK_WARPS,
            **tiles,
        )
        launch(
            chunk_outputs_kernel,
            (segments + AHEAD) * (mixers + programs),
            (y,),
            (seen, walked, mixings, factors, mixed, skip, fill, b, c, open_b, x_tiles, queries),
            *(length, heads, width, states, chunks, chunk, width + missing, mixers, *of_outputs),
            WIDE=wide,
            SEGMENT=SEGMENT,
            WALKED=walked_channels,
            GROUP=group,
            AHEAD=AHEAD,
            CHANNELS=channels,
            num_stages=OUTPUT_STAGES if few else 1,
            num_warps=4 if four_warps else 8,
            **early(),
            **at_most(OUTPUT_REGISTERS),
            **tiles,
        )
    rest_x = rest_words.view(torch.int8)[..., :width].contiguous()
    return y, end, rest_x, rest_d, rest_b, rest


__all__ = ["ssd_chunk_scan"]
