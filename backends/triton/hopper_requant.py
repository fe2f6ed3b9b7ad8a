"""The product of `hopper_product` with its rows quantised: int16 results stay in shared memory until they are int8.

A row is quantised by its largest result, which many programs have a part of. So a third group of warps takes each tile
from the two that multiply: it raises the maxima of the tile's rows in global memory, counts the tile, waits until all
tiles of the same rows are counted, and stores int8. Meanwhile the others multiply the program's next tile.

No program waits for itself: at one time, programs work on all tiles of some rows, and each on one of them. All programs
run at once, since they are launched as a cooperative grid.
"""

import torch

from . import hopper_product
from .gluon_names import HAS_GLUON, barrier, fence_async_shared, gl, gluon, mbarrier, processors
from .halves import ENDS, ENDS_CONSTRAINTS, QUANTISED, QUANTISED_CONSTRAINTS, WORD
from .hopper_product import (
    GROUPED,
    SWIZZLED,
    copy_tiles,
    described,
    new_stages,
    results_of,
    tile_at,
    tile_of,
    weights_of,
)
from .launch import aligned, ceil_div, launch

GROUPS = 2  # of warps that multiply
TILES = tuple(tile for tile in hopper_product.TILES if tile.groups == GROUPS)
FEWEST_STEPS = 32  # of a tile: with fewer, a separate kernel quantises as fast
FEWEST_ROWS = 129
SLICE = 32  # rows that are quantised at a time


def suits(count: int, depth: int, width: int, device) -> bool:
    """Return whether programs of a device have all tiles of a row at once, and tiles that take longer than rounding."""
    columns = GROUPS * tile_of(count, width, processors(device), TILES).columns
    enough = count >= FEWEST_ROWS and ceil_div(depth, SWIZZLED) >= FEWEST_STEPS
    return enough and 0 < ceil_div(width, columns) <= processors(device)


def quantised_product(r, s, q, e, w, factor, shift, form):
    """Put int8 rows q times packed ternary weights w, scaled, then quantised by rows, into r and exponents s."""
    count, depth, width = e.numel(), q.shape[-1], w.shape[0]
    rows, columns, stages, *_ = tile_of(count, width, processors(r.device), TILES)
    down, across = ceil_div(count, rows), ceil_div(width, GROUPS * columns)
    grouped, programs = shared_out(down, across, min(down * across, processors(r.device)))
    sizes = (count, width, ceil_div(depth, SWIZZLED), down * across, grouped)
    progress = torch.zeros(count + down, dtype=torch.int32, device=r.device)  # maxima of rows, then counts of tiles
    w, is_dealt = weights_of(w, depth, count)
    strided = described(aligned(q).view(count, -1), w, rows, columns)
    shape = {"DEALT": is_dealt, "FORM": form, "ROWS": rows, "COLUMNS": columns, "STAGES": stages, "SLICE": SLICE}
    arguments = (quantised_kernel, programs, (r, s, progress), (e,), *sizes, factor, shift)
    launch(*arguments, strided=strided, **shape, num_warps=4, launch_cooperative_grid=True)


def shared_out(down: int, across: int, most: int) -> tuple[int, int]:
    """Return how many tiles of rows are multiplied together, and by how many programs, at most as many as said.

    All programs take tiles of the same rows: one that took a tile of the next rows would keep it for another round.
    """
    grouped = min(GROUPED, down, most // across)
    return grouped, most // (grouped * across) * grouped * across


if HAS_GLUON:

    @gluon.jit
    def keep_tiles(
        e_pointer,
        stages,
        kept,
        sizes,
        scale,
        HALF: gl.constexpr,
        DEALT: gl.constexpr,
        FORM: gl.constexpr,
        ROWS: gl.constexpr,
        COLUMNS: gl.constexpr,
    ):
        """Multiply and scale half of the columns of this program's tiles, and leave them to the quantising group."""
        results, full, empty = kept
        for tile in range(gl.program_id(0), sizes[3], gl.num_programs(0)):
            m, _ = tile_at(tile, sizes, ROWS, 2 * COLUMNS)
            turn = tile // gl.num_programs(0)
            y = results_of(e_pointer, stages, sizes, scale, m, tile, HALF, DEALT, FORM, ROWS, COLUMNS)
            mbarrier.wait(empty.index(HALF), (turn & 1) ^ 1)
            results.index(HALF).permute((1, 0)).store(y)
            barrier()
            mbarrier.arrive(full.index(HALF), count=1)

    @gluon.jit
    def further_ends(most, least, other_most, other_least):
        """Return the larger halves of two words and the smaller halves of two others."""
        arguments = [most, least, other_most, other_least]
        return gl.inline_asm_elementwise(ENDS, ENDS_CONSTRAINTS, arguments, (gl.int32, gl.int32), is_pure=True, pack=1)

    @gluon.jit
    def ends_of(y):
        """Return the larger and the smaller halves of each word of a tile of int16: at first, the same words."""
        even, odd = gl.split(gl.reshape(y, [y.shape[0], y.shape[1] // 2, 2]))
        word = gl.inline_asm_elementwise(WORD, "=r,h,h", [even, odd], gl.int32, is_pure=True, pack=1)
        return word, word

    @gluon.jit
    def larger_half(word):
        """Return the larger magnitude of a word's halves."""
        return gl.maximum(gl.abs((word << 16) >> 16), gl.abs(word >> 16))

    @gluon.jit
    def exponent_of(largest):
        """Return the exponent by which results up to ``largest`` fit int8, at least 0."""
        e = gl.zeros_like(largest)
        for i in gl.static_range(7, 15):
            e += (largest >> i > 0).to(gl.int32)
        return e

    @gluon.jit
    def quantise_tiles(
        r_pointer,
        s_pointer,
        progress_pointer,
        kept,
        sizes,
        ROWS: gl.constexpr,
        COLUMNS: gl.constexpr,
        SLICE: gl.constexpr,
    ):
        """Quantise this program's tiles, each when the largest results of its rows are known."""
        results, full, empty = kept
        rows, columns, _, tiles, _ = sizes
        across = gl.cdiv(columns, 2 * COLUMNS)
        layout: gl.constexpr = gl.BlockedLayout([1, 8], [256 // COLUMNS, COLUMNS // 8], [4, 1], [1, 0])
        for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
            m, n = tile_at(tile, sizes, ROWS, 2 * COLUMNS)
            turn = tile // gl.num_programs(0)
            for half in gl.static_range(2):
                mbarrier.wait(full.index(half), turn & 1)
            row = m + gl.arange(0, SLICE, gl.SliceLayout(1, layout))
            for first in gl.static_range(0, ROWS, SLICE):
                most, least = ends_of(results.index(0).slice(first, SLICE).load(layout))
                other_most, other_least = ends_of(results.index(1).slice(first, SLICE).load(layout))
                most, least = further_ends(most, least, other_most, other_least)
                most, least = gl.reduce((most, least), 1, further_ends)
                largest = gl.maximum(larger_half(most), larger_half(least))
                largest = gl.convert_layout(largest, gl.SliceLayout(1, layout))
                gl.atomic_max(progress_pointer + first + row, largest, mask=first + row < rows, sem="relaxed")
            barrier()
            counted = progress_pointer + rows + m // ROWS
            counts = gl.atomic_add(counted, 1, sem="acq_rel") + 1
            while counts < across:
                counts = gl.atomic_add(counted, 0, sem="acquire")
            barrier()
            for first in gl.static_range(0, ROWS, SLICE):
                known = first + row < rows
                largest = gl.load(progress_pointer + first + row, mask=known, other=0, cache_modifier=".cg")
                s = exponent_of(largest)
                gl.store(s_pointer + first + row, s, mask=known & (n == 0))
                e = s[:, None]
                limit = 127 << e
                most, least, unit = limit * 0x10001, (-limit & 0xFFFF) * 0x10001, (((e * 0 + 1) << e) >> 1) * 0x10001
                for half in gl.static_range(2):
                    arguments = [results.index(half).slice(first, SLICE).load(layout), most, least, unit, e]
                    r = gl.inline_asm_elementwise(
                        QUANTISED, QUANTISED_CONSTRAINTS, arguments, gl.int8, is_pure=True, pack=4
                    )
                    column = n + half * COLUMNS + gl.arange(0, COLUMNS, gl.SliceLayout(0, layout))
                    place = (first + row).to(gl.int64)[:, None] * columns + column[None, :]
                    gl.store(r_pointer + place, r, mask=known[:, None] & (column < columns)[None, :])
            barrier()
            for half in gl.static_range(2):
                mbarrier.arrive(empty.index(half), count=1)

    @gluon.jit(do_not_specialize=["factor", "shift"])
    def quantised_kernel(
        r_pointer,
        s_pointer,
        progress_pointer,
        e_pointer,
        q,
        w,
        rows,
        columns,
        steps,
        tiles,
        grouped,
        factor,
        shift,
        DEALT: gl.constexpr,
        FORM: gl.constexpr,
        ROWS: gl.constexpr,
        COLUMNS: gl.constexpr,
        STAGES: gl.constexpr,
        SLICE: gl.constexpr,
    ):
        stages = new_stages(w, ROWS, COLUMNS, STAGES, 2)
        results = gl.allocate_shared_memory(gl.int16, [2, ROWS, COLUMNS], gl.NVMMASharedLayout(128, 16, 2))
        full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
        empty = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
        for half in gl.static_range(2):
            mbarrier.init(full.index(half), count=1)
            mbarrier.init(empty.index(half), count=1)
        fence_async_shared()
        kept, sizes, scale = (results, full, empty), (rows, columns, steps, tiles, grouped), (factor, shift)
        gl.warp_specialize(
            [
                (keep_tiles, (e_pointer, stages, kept, sizes, scale, 0, DEALT, FORM, ROWS, COLUMNS)),
                (keep_tiles, (e_pointer, stages, kept, sizes, scale, 1, DEALT, FORM, ROWS, COLUMNS)),
                (quantise_tiles, (r_pointer, s_pointer, progress_pointer, kept, sizes, ROWS, COLUMNS, SLICE)),
                (copy_tiles, (q, w, stages, sizes, ROWS, COLUMNS, 2)),
            ],
            [4, 4, 1],
            [208, 72, 24],  # registers of a thread of the second and third group and of the copying warp
        )


__all__ = ["quantised_product", "suits"]
