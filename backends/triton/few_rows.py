"""The product of few int8 rows and packed ternary weights, in Gluon: no weight passes through shared memory.

A program has some columns of the result, each of its warps a share of the depth. A lane loads sixteen bytes of a
column's weights at once, sixty-four digits, and as many int8 of a row; four digits of a register are four int8 of the
first operand of `mma`, whose sums know no order. So a row's int8 are dealt to meet the digits, and the warps' sums are
added at the end.
"""
# ruff: noqa: RUF005 -- Gluon compiles no unpacking inside a tuple

import torch

from .gluon_names import AMPERE, HAS_GLUON, architecture, gl, gluon
from .launch import aligned, ceil_div, launch, with_columns

WORDS = 16  # of weights that four lanes load of a column at once
BYTES_OF_LANE = 16
MOST_ROWS = 32


def suits(rows: int) -> bool:
    """Return whether the current target has the products, for so many rows."""
    return architecture() >= AMPERE and rows <= MOST_ROWS


# Tiles of sixteen columns, warps that share the depth, and loads of each before its products, by tiles of eight rows.
TILES = {1: (2, 16, 1), 2: (2, 16, 1), 4: (4, 8, 1)}


def product(y, q, e, w, num, shift):
    """Put int8 rows q times packed ternary weights w, scaled, into y."""
    count, width = e.numel(), w.shape[0]
    w = aligned(with_columns(w, BYTES_OF_LANE))
    q = aligned(with_columns(q, 4 * w.shape[1]))
    row_tiles = 1 << (ceil_div(count, 8) - 1).bit_length()
    column_tiles, warps, loads = TILES[row_tiles]
    sizes = (count, width, w.shape[1] // 4)
    scale = (num, shift, (1 << shift) >> 1)
    shape = {"COLUMN_TILES": column_tiles, "ROW_TILES": row_tiles, "WARPS": warps, "LOADS": loads}
    inputs = (words_of(q), e, words_of(w))
    launch(few_rows_kernel, ceil_div(width, 16 * column_tiles), (y,), inputs, *sizes, *scale, **shape, num_warps=warps)


def words_of(array):
    return array.view(-1).view(torch.int32)


if HAS_GLUON:
    # The digits of a word's bytes: digit i of each of them in word i.
    DIGITS = gl.constexpr(
        "{ .reg .b32 code, upper, t; and.b32 code, $4, 0x03030303; and.b32 upper, $4, 0x02020202;"
        " mad.lo.u32 $0, upper, 126, code; shr.u32 t, $4, 2; and.b32 code, t, 0x03030303;"
        " and.b32 upper, t, 0x02020202; mad.lo.u32 $1, upper, 126, code; shr.u32 t, $4, 4;"
        " and.b32 code, t, 0x03030303; and.b32 upper, t, 0x02020202; mad.lo.u32 $2, upper, 126, code;"
        " shr.u32 t, $4, 6; and.b32 code, t, 0x03030303; and.b32 upper, t, 0x02020202;"
        " mad.lo.u32 $3, upper, 126, code; }"
    )
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

    @gluon.jit
    def four_digits(word):
        return gl.inline_asm_elementwise(
            DIGITS, "=r,=r,=r,=r,r", [word], dtype=(gl.int32, gl.int32, gl.int32, gl.int32), is_pure=True, pack=1
        )

    @gluon.jit
    def four_bytes(a, b, c, d):
        return gl.inline_asm_elementwise(
            DEALT,
            "=r,=r,=r,=r,r,r,r,r",
            [a, b, c, d],
            dtype=(gl.int32, gl.int32, gl.int32, gl.int32),
            is_pure=True,
            pack=1,
        )

    @gluon.jit
    def add_products(sums, a0, a1, a2, a3, b0, b1):
        return gl.inline_asm_elementwise(
            PRODUCTS,
            "=r,=r,=r,=r,r,r,r,r,r,r,r,r,r,r",
            [a0, a1, a2, a3, b0, b1, sums[0], sums[1], sums[2], sums[3]],
            dtype=(gl.int32, gl.int32, gl.int32, gl.int32),
            is_pure=True,
            pack=1,
        )

    @gluon.jit
    def load_four(pointer, place, known, wide: gl.constexpr, layout: gl.constexpr):
        """Return four words of each lane, from its place on."""
        four = gl.arange(0, 4, gl.SliceLayout(0, gl.SliceLayout(1, wide)))
        words = gl.load(pointer + (place[:, :, None] + four[None, None, :]), mask=known[:, :, None], other=0)
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
        w_pointer,
        q_pointer,
        first,
        n,
        group,
        rows,
        columns,
        words,
        COLUMN_TILES: gl.constexpr,
        ROW_TILES: gl.constexpr,
        LOADS: gl.constexpr,
        STEP: gl.constexpr,
        wide: gl.constexpr,
        layout: gl.constexpr,
    ):
        """Return a share of the weights and of the rows' int8, from each lane's word on."""
        weights, values = (), ()
        for load in gl.static_range(LOADS):
            word = first + load * (STEP // LOADS)
            known = word < words
            for tile in gl.static_range(2 * COLUMN_TILES):
                column = gl.minimum(n + 8 * tile + group, columns - 1)
                place = column.to(gl.int64) * words + word
                weights = weights + (load_four(w_pointer, place, known, wide, layout),)
            for tile in gl.static_range(ROW_TILES):
                row = gl.minimum(8 * tile + group, rows - 1)
                for j in gl.static_range(4):
                    place = (row * words + word).to(gl.int64) * 4 + 4 * j
                    values = values + (load_four(q_pointer, place, known, wide, layout),)
        return weights, values

    @gluon.jit
    def stacked(words, FIRST: gl.constexpr, COUNT: gl.constexpr):
        """Return words of each lane side by side."""
        if COUNT == 2:
            return gl.join(words[FIRST], words[FIRST + 1])
        else:
            left = stacked(words, FIRST, COUNT // 2)
            right = stacked(words, FIRST + COUNT // 2, COUNT // 2)
            return gl.reshape(gl.permute(gl.join(left, right), (0, 1, 3, 2)), [left.shape[0], 32, COUNT])

    @gluon.jit(do_not_specialize=["num", "shift", "half"])
    def few_rows_kernel(
        y_pointer,
        q_pointer,
        e_pointer,
        w_pointer,
        rows,
        columns,
        words,
        num,
        shift,
        half,
        COLUMN_TILES: gl.constexpr,
        ROW_TILES: gl.constexpr,
        WARPS: gl.constexpr,
        LOADS: gl.constexpr,
    ):
        layout: gl.constexpr = gl.BlockedLayout([1, 1], [1, 32], [WARPS, 1], [1, 0])
        wide: gl.constexpr = gl.BlockedLayout([1, 1, 4], [1, 32, 1], [WARPS, 1, 1], [2, 1, 0])
        places: gl.constexpr = gl.SliceLayout(2, wide)
        warp = gl.arange(0, WARPS, gl.SliceLayout(1, places))[:, None]
        lane = gl.arange(0, 32, gl.SliceLayout(0, places))[None, :]
        group, member = lane // 4, lane % 4
        n = gl.program_id(0) * (16 * COLUMN_TILES)
        zero = gl.zeros([WARPS, 32], gl.int32, layout)
        sums = ((zero, zero, zero, zero),) * (COLUMN_TILES * ROW_TILES)
        step: gl.constexpr = 16 * WARPS * LOADS
        word = 16 * warp + 4 * member
        weights, values = load_share(
            w_pointer,
            q_pointer,
            word,
            n,
            group,
            rows,
            columns,
            words,
            COLUMN_TILES,
            ROW_TILES,
            LOADS,
            step,
            wide,
            layout,
        )
        for start in range(0, words, step):
            # All of the next loads are under way, or all of the first ones, before this share is multiplied.
            next_weights, next_values = load_share(
                w_pointer,
                q_pointer,
                word + (start + step),
                n,
                group,
                rows,
                columns,
                words,
                COLUMN_TILES,
                ROW_TILES,
                LOADS,
                step,
                wide,
                layout,
            )
            for load in gl.static_range(LOADS):
                for j in gl.static_range(4):
                    digits, planes = (), ()
                    for tile in gl.static_range(2 * COLUMN_TILES):
                        digits = digits + (four_digits(weights[load * 2 * COLUMN_TILES + tile][j]),)
                    for tile in gl.static_range(ROW_TILES):
                        four = values[(load * ROW_TILES + tile) * 4 + j]
                        planes = planes + (four_bytes(four[0], four[1], four[2], four[3]),)
                    more = ()
                    for m in gl.static_range(COLUMN_TILES):
                        for r in gl.static_range(ROW_TILES):
                            sum = sums[m * ROW_TILES + r]
                            a, b, v = digits[2 * m], digits[2 * m + 1], planes[r]
                            sum = add_products(sum, a[0], b[0], a[1], b[1], v[0], v[1])
                            sum = add_products(sum, a[2], b[2], a[3], b[3], v[2], v[3])
                            more = more + (sum,)
                    sums = more
            weights, values = next_weights, next_values
        flat = ()
        for tile in gl.static_range(COLUMN_TILES * ROW_TILES):
            flat = flat + (sums[tile][0], sums[tile][1], sums[tile][2], sums[tile][3])
        totals = gl.sum(stacked(flat, 0, 4 * COLUMN_TILES * ROW_TILES), 0)
        lane = gl.arange(0, 32, gl.SliceLayout(1, totals.type.layout))[:, None]
        i = gl.arange(0, 4 * COLUMN_TILES * ROW_TILES, gl.SliceLayout(0, totals.type.layout))[None, :]
        column = n + 16 * (i // (4 * ROW_TILES)) + lane // 4 + 8 * (i // 2 % 2)
        row = 8 * (i // 4 % ROW_TILES) + 2 * (lane % 4) + i % 2
        known = (row < rows) & (column < columns)
        e = gl.load(e_pointer + row, mask=known, other=0)
        y = ((totals.to(gl.int64) * num << e.to(gl.int64)) + half) >> shift
        y = gl.minimum(gl.maximum(y, -32767), 32767).to(gl.int16)
        gl.store(y_pointer + (row.to(gl.int64) * columns + column), y, mask=known)


__all__ = ["product", "suits"]
