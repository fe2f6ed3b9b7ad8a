"""The product of few int8 rows and packed ternary weights, in Gluon: no weight passes through shared memory.

A program has some columns of the result, each of its warps a share of the depth, which it loads before it multiplies:
what a multiprocessor has under way at once decides how fast weights arrive. A lane loads sixteen bytes of a column's
weights, sixty-four digits, and as many int8 of a row. Four digits of a register are four int8 of the first operand of
`mma`, whose sums know no order. So a row's int8 are dealt to meet the digits, and the warps' sums are added at the end.
"""
# ruff: noqa: RUF005 -- Gluon compiles no unpacking inside a tuple

import torch

from .gluon_names import AMPERE, HAS_GLUON, architecture, barrier, gl, gluon
from .launch import aligned, ceil_div, launch

BYTES_OF_LANE = 16  # of a column's weights, at once
MOST_ROWS = 32
MOST_DEPTH = 1 << 18  # int8 whose sum fits int32, times 64
REGISTERS, MOST_REGISTERS = 1 << 16, 255  # of a multiprocessor, of a lane
# One row, or more than sixteen, times more columns take less time in other kernels (H200, as all that follows).
WIDEST = 4224
PROGRAMS = 128  # of 32 columns, from which on a program has so many
MOST_LOADS = 4


def suits(rows: int, depth: int, columns: int) -> bool:
    """Return whether the current target has the products, for rows that can be loaded so and are faster so."""
    known = architecture() >= AMPERE and depth <= MOST_DEPTH and depth % (4 * BYTES_OF_LANE) == 0
    return known and rows <= MOST_ROWS and (1 < rows <= MOST_ROWS // 2 or columns <= WIDEST)


def tile_of(rows: int, columns: int, quads: int) -> tuple[int, int, int, int]:
    """Return tiles of sixteen columns, tiles of eight rows, warps and how much a lane loads before it multiplies.

    A lane has registers for loads of a whole share of the depth: one that has to load again waits again.
    """
    row_tiles = 1 << (ceil_div(rows, 8) - 1).bit_length()
    column_tiles = 2 if ceil_div(columns, 32) >= PROGRAMS else 1
    if quads <= 16:
        return column_tiles, row_tiles, 4, 1
    if row_tiles == 2 and quads <= 64 and ceil_div(columns, 64) >= PROGRAMS:
        column_tiles = 4  # as many bytes of weights as of the rows, and registers for both
    warps = 16 if row_tiles == 2 and quads > 64 else 8
    most = MOST_LOADS // row_tiles if quads > 64 else MOST_LOADS // 2
    return column_tiles, row_tiles, warps, min(1 << (ceil_div(quads, 4 * warps) - 1).bit_length(), most)


def product(y, q, e, w, num, shift, half):
    """Put int8 rows q times packed ternary weights w, scaled, into y."""
    rows, columns, quads = e.numel(), w.shape[0], w.shape[1] // BYTES_OF_LANE
    column_tiles, row_tiles, warps, loads = tile_of(rows, columns, quads)
    shape = {"COLUMN_TILES": column_tiles, "ROW_TILES": row_tiles, "WARPS": warps, "LOADS": loads}
    shape["WHOLE"] = quads <= 4 * warps * loads
    sizes, scale = (rows, columns, quads), (num, shift, half)
    inputs = (aligned(q).view(torch.int32), e, aligned(w).view(torch.int32))
    programs = ceil_div(columns, 16 * column_tiles)
    options = {"num_warps": warps, "maxnreg": min(REGISTERS // (32 * warps), MOST_REGISTERS)}
    launch(few_rows_kernel, programs, (y,), inputs, *sizes, *scale, **shape, **options)


if HAS_GLUON:
    from .staged_steps import joined

    # 64 times digit i of each of a word's bytes, in word i: a digit is its own two's complement of two bits.
    DIGITS = gl.constexpr(
        "{ .reg .b32 a, b, c; shl.b32 a, $4, 6; shl.b32 b, $4, 4; shl.b32 c, $4, 2;"
        " and.b32 $3, $4, 0xc0c0c0c0; and.b32 $0, a, 0xc0c0c0c0; and.b32 $1, b, 0xc0c0c0c0;"
        " and.b32 $2, c, 0xc0c0c0c0; }"
    )
    RAISED = gl.constexpr(6)  # bits: of 64
    # Byte i of four words in word i.
    DEALT = gl.constexpr(
        "{ .reg .b32 a, b, c, d; prmt.b32 a, $4, $5, 0x5140; prmt.b32 b, $4, $5, 0x7362;"
        " prmt.b32 c, $6, $7, 0x5140; prmt.b32 d, $6, $7, 0x7362; prmt.b32 $0, a, c, 0x5410;"
        " prmt.b32 $1, a, c, 0x7632; prmt.b32 $2, b, d, 0x5410; prmt.b32 $3, b, d, 0x7632; }"
    )
    PRODUCTS = gl.constexpr(
        "{ mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32"
        " {$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13}; }"
    )
    FOUR = gl.constexpr((gl.int32, gl.int32, gl.int32, gl.int32))

    @gluon.jit
    def four_digits(word):
        return gl.inline_asm_elementwise(DIGITS, "=r,=r,=r,=r,r", [word], dtype=FOUR, is_pure=True, pack=1)

    @gluon.jit
    def four_bytes(a, b, c, d):
        constraints: gl.constexpr = "=r,=r,=r,=r,r,r,r,r"
        return gl.inline_asm_elementwise(DEALT, constraints, [a, b, c, d], dtype=FOUR, is_pure=True, pack=1)

    @gluon.jit
    def add_products(sums, a0, a1, a2, a3, b0, b1):
        constraints: gl.constexpr = "=r,=r,=r,=r" + ",r" * 10
        arguments = [a0, a1, a2, a3, b0, b1, sums[0], sums[1], sums[2], sums[3]]
        return gl.inline_asm_elementwise(PRODUCTS, constraints, arguments, dtype=FOUR, is_pure=True, pack=1)

    @gluon.jit
    def load_four(pointer, place, known, wide: gl.constexpr, layout: gl.constexpr):
        """Return four words of each lane, from its place, in fours, on."""
        four = gl.arange(0, 4, gl.SliceLayout(0, gl.SliceLayout(1, wide)))
        words = gl.load(pointer + (4 * place[:, :, None] + four[None, None, :]), mask=known[:, :, None], other=0)
        even, odd = gl.split(gl.reshape(words, [place.shape[0], 32, 2, 2]))
        first, third = gl.split(even)
        second, fourth = gl.split(odd)
        return (
            gl.convert_layout(first, layout),
            gl.convert_layout(second, layout),
            gl.convert_layout(third, layout),
            gl.convert_layout(fourth, layout),
        )

    @gluon.jit
    def load_share(
        pointers,
        first,
        n,
        lane,
        sizes,
        COLUMN_TILES: gl.constexpr,
        ROW_TILES: gl.constexpr,
        LOADS: gl.constexpr,
        WARPS: gl.constexpr,
        wide: gl.constexpr,
        layout: gl.constexpr,
    ):
        """Return a share of the rows' int8 and of the weights, from each lane's place on.

        The last two of a row's four lanes take its quarters two later: so the four lie in different banks at once.
        """
        q_pointer, w_pointer = pointers
        rows, columns, quads = sizes
        group = lane // 4
        values, weights = (), ()
        for load in gl.static_range(LOADS):
            quad = first + load * (4 * WARPS)
            for tile in gl.static_range(2 * COLUMN_TILES):
                column = n + 8 * tile + group
                place = column.to(gl.int64) * quads + quad
                known = (column < columns) & (quad < quads)
                weights = weights + (load_four(w_pointer, place, known, wide, layout),)
        for load in gl.static_range(LOADS):
            quad = first + load * (4 * WARPS)
            for j in gl.static_range(4):
                for tile in gl.static_range(ROW_TILES):
                    row = 8 * tile + group
                    place = 4 * (row * quads + quad) + ((lane & 2) ^ j)
                    values = values + (load_four(q_pointer, place, (row < rows) & (quad < quads), wide, layout),)
        return values, weights

    @gluon.jit
    def add_share(
        sums, values, weights, late, COLUMN_TILES: gl.constexpr, ROW_TILES: gl.constexpr, LOADS: gl.constexpr
    ):
        """Return the sums of each tile and what a share adds to them; `late` are the lanes that take quarters later."""
        for load in gl.static_range(LOADS):
            for j in gl.static_range(4):
                planes = ()
                for tile in gl.static_range(ROW_TILES):
                    four = values[(4 * load + j) * ROW_TILES + tile]
                    planes = planes + (four_bytes(four[0], four[1], four[2], four[3]),)
                more = ()
                for m in gl.static_range(COLUMN_TILES):
                    upper = weights[2 * (load * COLUMN_TILES + m)]
                    lower = weights[2 * (load * COLUMN_TILES + m) + 1]
                    a = four_digits(gl.where(late, upper[j ^ 2], upper[j]))
                    b = four_digits(gl.where(late, lower[j ^ 2], lower[j]))
                    for r in gl.static_range(ROW_TILES):
                        v = planes[r]
                        sum = add_products(sums[m * ROW_TILES + r], a[0], b[0], a[1], b[1], v[0], v[1])
                        more = more + (add_products(sum, a[2], b[2], a[3], b[3], v[2], v[3]),)
                sums = more
        return sums

    @gluon.jit(do_not_specialize=["rows", "num", "shift", "half"])
    def few_rows_kernel(
        y_pointer,
        q_pointer,
        e_pointer,
        w_pointer,
        rows,
        columns,
        quads,
        num,
        shift,
        half,
        COLUMN_TILES: gl.constexpr,
        ROW_TILES: gl.constexpr,
        WARPS: gl.constexpr,
        LOADS: gl.constexpr,
        WHOLE: gl.constexpr,
    ):
        layout: gl.constexpr = gl.BlockedLayout([1, 1], [1, 32], [WARPS, 1], [1, 0])
        wide: gl.constexpr = gl.BlockedLayout([1, 1, 4], [1, 32, 1], [WARPS, 1, 1], [2, 1, 0])
        places: gl.constexpr = gl.SliceLayout(2, wide)
        # Of tiles of 16 x 8 sums, a lane has four.
        SUMS: gl.constexpr = 4 * COLUMN_TILES * ROW_TILES
        shared: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [2, 1, 0])
        cube: gl.constexpr = gl.BlockedLayout([max(SUMS // WARPS, 1), WARPS, 1], [1, 1, 32], [WARPS, 1, 1], [2, 1, 0])
        warp = gl.arange(0, WARPS, gl.SliceLayout(1, places))[:, None]
        lane = gl.arange(0, 32, gl.SliceLayout(0, places))[None, :]
        late = (gl.convert_layout(lane + 0 * warp, layout) & 2) > 0
        n = gl.program_id(0) * (16 * COLUMN_TILES)
        zero = gl.zeros([WARPS, 32], gl.int32, layout)
        sums = ((zero, zero, zero, zero),) * (COLUMN_TILES * ROW_TILES)
        quad = 4 * warp + lane % 4
        pointers, sizes = (q_pointer, w_pointer), (rows, columns, quads)
        values, weights = load_share(
            pointers, quad, n, lane, sizes, COLUMN_TILES, ROW_TILES, LOADS, WARPS, wide, layout
        )
        if WHOLE:
            sums = add_share(sums, values, weights, late, COLUMN_TILES, ROW_TILES, LOADS)
        else:
            for start in range(0, quads, 4 * WARPS * LOADS):
                later = quad + start + 4 * WARPS * LOADS
                next_values, next_weights = load_share(
                    pointers, later, n, lane, sizes, COLUMN_TILES, ROW_TILES, LOADS, WARPS, wide, layout
                )
                sums = add_share(sums, values, weights, late, COLUMN_TILES, ROW_TILES, LOADS)
                values, weights = next_values, next_weights
        flat = ()
        for tile in gl.static_range(COLUMN_TILES * ROW_TILES):
            flat = flat + sums[tile]
        kept = gl.allocate_shared_memory(gl.int32, [SUMS, WARPS, 32], shared)
        kept.store(gl.permute(gl.reshape(joined(flat), [WARPS, 32, SUMS]), (2, 0, 1)))
        barrier()
        totals = gl.sum(kept.load(cube), axis=1) >> RAISED
        i = gl.arange(0, SUMS, gl.SliceLayout(1, totals.type.layout))[:, None]
        lane = gl.arange(0, 32, gl.SliceLayout(0, totals.type.layout))[None, :]
        column = n + 16 * (i // (4 * ROW_TILES)) + lane // 4 + 8 * (i // 2 % 2)
        row = 8 * (i // 4 % ROW_TILES) + 2 * (lane % 4) + i % 2
        known = (row < rows) & (column < columns)
        e = gl.load(e_pointer + row, mask=known, other=0)
        y = ((totals.to(gl.int64) * num << e.to(gl.int64)) + half) >> shift
        y = gl.minimum(gl.maximum(y, -32767), 32767).to(gl.int16)
        gl.store(y_pointer + (row.to(gl.int64) * columns + column), y, mask=known)


__all__ = ["product", "suits"]
