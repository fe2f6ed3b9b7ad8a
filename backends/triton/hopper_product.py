"""The product of many int8 rows and packed ternary weights on Hopper, in Gluon: groups of warps share the work.

One warp copies tiles of the rows and of the packed weights into shared memory, as far ahead as there are stages. Two
groups of four warps each take half of a tile's columns: a group unpacks its weights into registers, which the tensor
cores take as their operand, while the other group's products run. Or there is one group, and two programs share a
multiprocessor. A group leaves its results in shared memory, from where they are stored while the next tile is
multiplied. A program goes from tile to tile, so that the next tile's copies don't wait for a tile's rounding.
`hopper_requant` has the version whose results are quantised, `hopper_limbs` that of rows of 16 bits.
"""

import contextlib
from typing import NamedTuple

from .gluon_names import (
    HAS_GLUON,
    HOPPER,
    TensorDescriptor,
    architecture,
    barrier,
    copy_tile,
    fence_async_shared,
    gl,
    gluon,
    mbarrier,
    processors,
    put_tile,
    puts_done,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from .instructions import byte_digits, plane_digits
from .launch import aligned, ceil_div, launch, with_columns
from .planes import dealt

WORDS = 8  # int16 of which a row must have a multiple, so that its tiles can be copied
ROW_BYTES = 16  # of which a row's length must be a multiple, so that its tiles can be copied
HALF_THE_REGISTERS = 128  # of a multiprocessor: as many for each thread of eight warps
SWIZZLED = 128  # bytes: as many digits of a row as a step multiplies
PACKED = gl.constexpr(SWIZZLED // 4) if HAS_GLUON else SWIZZLED // 4
# Multiply-adds from which dealing the weights' digits costs less than it saves: a plane's digits need no reordering.
MOST_UNDEALT = 15 * 10**9
GROUPED = 8  # tiles of rows that share a tile of columns


def suits(depth: int) -> bool:
    """Return whether the current target has the instructions, and rows of that depth can be copied in tiles."""
    return architecture() // 10 == HOPPER // 10 and depth % ROW_BYTES == 0


class Tile(NamedTuple):
    """A tile, how long a round of programs takes for one each, and how much longer the first round takes.

    With one group of warps, two programs share a multiprocessor: one multiplies while the other rounds and stores.
    """

    rows: int
    columns: int  # of a group
    stages: int
    groups: int
    round: float
    start: float = 0.0

    def number(self, count, width):
        """Return how many tiles there are."""
        return ceil_div(count, self.rows) * ceil_div(width, self.groups * self.columns)

    def programs(self, processors):
        """Return how many programs run at once."""
        return processors * (3 - self.groups)


# Measured on an H200 with 96 to 16384 rows, a depth of 128 to 4096 and 768 to 8192 columns.
TILES = (
    Tile(128, 128, 4, groups=2, round=2.0, start=0.3),
    Tile(128, 128, 4, groups=1, round=2.05),
    Tile(128, 64, 6, groups=2, round=1.1, start=0.15),
    Tile(128, 64, 5, groups=1, round=1.1),
    Tile(64, 64, 8, groups=2, round=0.75, start=0.15),
    Tile(64, 64, 6, groups=1, round=0.75),
)


def tile_of(count, width, processors, tiles):
    """Return the tile of which the device takes all that there are in the shortest time."""
    rounds = lambda tile: ceil_div(tile.number(count, width), tile.programs(processors))  # noqa: E731
    return min(tiles, key=lambda tile: tile.start + tile.round * rounds(tile))


def tiles_for(multiply_adds):
    """Return the tiles for a product: two programs' small tiles of dealt weights are slower."""
    return tuple(tile for tile in TILES if tile.groups == 2 or tile.columns == 128 or multiply_adds < MOST_UNDEALT)


def product(y, q, e, w, factor, shift, form):
    """Put int8 rows q times packed ternary weights w, scaled, into y."""
    count, depth, width = e.numel(), q.shape[-1], w.shape[0]
    tile = tile_of(count, width, processors(y.device), tiles_for(count * depth * width))
    rows, columns = tile.rows, tile.columns
    tiles = tile.number(count, width)
    sizes = (count, width, ceil_div(depth, SWIZZLED), tiles, GROUPED)
    w, is_dealt = weights_of(w, depth, count)
    shape = {"DEALT": is_dealt, "FORM": form, "ROWS": rows, "COLUMNS": columns, "STAGES": tile.stages, "num_warps": 4}
    shape |= {"GROUPS": tile.groups} | ({"maxnreg": HALF_THE_REGISTERS} if tile.groups == 1 else {})
    programs = min(tiles, tile.programs(processors(y.device)))
    with whole_words(y, width) as results:
        strided = (*described(aligned(q).view(count, -1), w, rows, columns), result_tiles(results, rows, columns))
        launch(product_kernel, programs, (), (e,), *sizes, factor, shift, strided=strided, **shape)


def weights_of(w, depth, count):
    """Return packed weights as they are multiplied, and whether their digits were dealt into planes for it."""
    is_dealt = count * depth * w.shape[0] >= MOST_UNDEALT
    return (dealt(w) if is_dealt else aligned(with_columns(w, ROW_BYTES))), is_dealt


@contextlib.contextmanager
def whole_words(y, width):
    """Yield rows of whole words for the results y, whose tiles can then be stored: y itself, if it has such rows."""
    rows = y.view(-1, width)
    results = rows if width % WORDS == 0 else y.new_empty((len(rows), width + -width % WORDS))
    yield results
    if results is not rows:
        rows.copy_(results[:, :width])


def result_tiles(results, rows, columns):
    """Return a descriptor of results by tiles."""
    return TensorDescriptor.from_tensor(results, [rows, columns], gl.NVMMASharedLayout(SWIZZLED, 16, 2))


def described(q, w, rows, columns):
    """Return descriptors of the rows and of the packed weights, by tiles."""
    return (
        TensorDescriptor.from_tensor(q, [rows, SWIZZLED], gl.NVMMASharedLayout(SWIZZLED, 8, 2)),
        TensorDescriptor.from_tensor(w, [columns, SWIZZLED // 4], gl.NVMMASharedLayout(SWIZZLED // 4, 8, 2)),
    )


if HAS_GLUON:
    # Two sums times factors over 2**(down + 1), rounded, as int16 in [-32767, 32767]. LLVM would make a product of 64
    # bits by 64 of it; a half added at once would take two registers of each row.
    SCALED = gl.constexpr(
        "{ .reg .s64 wide; .reg .b32 a, b, least;"
        " mul.wide.s32 wide, $1, $3; shr.s64 wide, wide, $5; cvt.u32.u64 a, wide; add.s32 a, a, 1; shr.s32 a, a, 1;"
        " mul.wide.s32 wide, $2, $4; shr.s64 wide, wide, $6; cvt.u32.u64 b, wide; add.s32 b, b, 1; shr.s32 b, b, 1;"
        " cvt.pack.sat.s16.s32 a, b, a; mov.b32 least, 0x80018001; max.s16x2 $0, a, least; }"
    )
    # Two sums times factors plus halves over 2**down, all in 32 bits.
    NARROW = gl.constexpr(
        "{ .reg .b32 a, b, least;"
        " mad.lo.s32 a, $1, $3, $5; shr.s32 a, a, $7; mad.lo.s32 b, $2, $4, $6; shr.s32 b, b, $8;"
        " cvt.pack.sat.s16.s32 a, b, a; mov.b32 least, 0x80018001; max.s16x2 $0, a, least; }"
    )

    @gluon.jit
    def digits_of(byte, i: gl.constexpr):
        code: gl.constexpr = plane_digits(i)
        return gl.inline_asm_elementwise(code, "=r,r", [byte], dtype=gl.int8, is_pure=True, pack=4)

    @gluon.jit
    def side_by_side(a, b):
        return gl.reshape(gl.permute(gl.join(a, b), (0, 2, 1)), [a.shape[0], 2 * a.shape[1]])

    @gluon.jit
    def digits_of_planes(byte, operand: gl.constexpr):
        """Return bytes as their digits, as the tensor cores take them from registers: nothing moves."""
        low = side_by_side(digits_of(byte, 0), digits_of(byte, 1))
        high = side_by_side(digits_of(byte, 2), digits_of(byte, 3))
        return gl.convert_layout(side_by_side(low, high), operand, assert_trivial=True)

    @gluon.jit
    def digits_of_bytes(byte, COLUMNS: gl.constexpr, operand: gl.constexpr):
        """Return bytes as their digits, as the tensor cores take them from registers: nothing moves.

        A register of four bytes, 4 apart, becomes four of a byte's digits each; so of byte t + 4 i + 16 h, an
        instruction's result j has digit i of byte t + 4 j + 16 h.
        """
        code: gl.constexpr = byte_digits()
        results = gl.inline_asm_elementwise(
            code, "=r,=r,=r,=r,r", [byte], dtype=(gl.int8, gl.int8, gl.int8, gl.int8), is_pure=True, pack=4
        )
        even, odd = gl.join(results[0], results[2]), gl.join(results[1], results[3])
        four = gl.reshape(gl.join(even, odd), [COLUMNS, 2, 4, 4, 2, 2])  # [.., h, i, t, j // 2, j % 2]
        digits = gl.reshape(gl.permute(four, (0, 1, 4, 5, 3, 2)), [COLUMNS, 128])
        return gl.convert_layout(digits, operand, assert_trivial=True)

    @gluon.jit
    def scaled(sums, e, scale, FORM: gl.constexpr):
        """Return sums times ``2**e * factor / 2**shift``, rounded once and saturated, in int16; shift is above e."""
        factor, shift = scale
        down = shift - e
        if FORM == 32:
            half = (down * 0 + 1) << (down - 1)
            arguments = [sums, factor, half, down]
            code: gl.constexpr = NARROW
            return gl.inline_asm_elementwise(
                code, "=r,r,r,r,r,r,r,r,r", arguments, dtype=gl.int16, is_pure=True, pack=2
            )
        else:
            if FORM == 0:
                length = gl.full([], 0, gl.int32)
                for i in gl.static_range(31):
                    length += (factor >> i > 0).to(gl.int32)
                # Beyond 2**most the result is saturated; up to it, it fits int32.
                most = gl.minimum(gl.maximum(29 - length + down, 0), 30)
                limit = (most * 0 + 1) << most
                sums = gl.minimum(gl.maximum(sums, -limit), limit)
            arguments = [sums, factor, down - 1]
            return gl.inline_asm_elementwise(SCALED, "=r,r,r,r,r,r,r", arguments, dtype=gl.int16, is_pure=True, pack=2)

    @gluon.constexpr_function
    def products_layout(width):
        """Return the layout of the sums of a group's columns and as many rows as its ``width``."""
        return gl.NVMMADistributedLayout([3, 0], [4, 1], [16, width, 32])

    @gluon.jit
    def tile_at(tile, sizes, ROWS: gl.constexpr, COLUMNS: gl.constexpr):
        """Return the first row and the first column of a tile; tiles that run together share columns."""
        rows, columns, _, _, grouped = sizes
        group_size = grouped * gl.cdiv(columns, COLUMNS)
        group, inside_group = tile // group_size, tile % group_size
        height = gl.minimum(gl.cdiv(rows, ROWS) - group * grouped, grouped)
        return (group * grouped + inside_group % height) * ROWS, (inside_group // height) * COLUMNS

    @gluon.jit
    def copy_tiles(q, w, stages, sizes, ROWS: gl.constexpr, COLUMNS: gl.constexpr, GROUPS: gl.constexpr):
        """Copy the rows and the weights of every step of this program's tiles, as soon as a stage is free."""
        q_stages, w_stages, full, empty = stages
        _, _, steps, tiles, _ = sizes
        STAGES: gl.constexpr = full.shape[0]
        count = 0
        for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
            m, n = tile_at(tile, sizes, ROWS, GROUPS * COLUMNS)
            for step in range(steps):
                stage = count % STAGES
                mbarrier.wait(empty.index(stage), ((count // STAGES) & 1) ^ 1)
                mbarrier.expect(full.index(stage), (ROWS * 4 + GROUPS * COLUMNS) * PACKED)
                copy_tile(q, [m, step * 4 * PACKED], full.index(stage), q_stages.index(stage))
                for half in gl.static_range(GROUPS):
                    into = w_stages.index(GROUPS * stage + half)
                    copy_tile(w, [n + half * COLUMNS, step * PACKED], full.index(stage), into)
                count += 1

    @gluon.jit
    def tile_sums(
        stages, steps, tile, HALF: gl.constexpr, WIDTH: gl.constexpr, DEALT: gl.constexpr, COLUMNS: gl.constexpr
    ):
        """Return the sums of a group's columns of a tile."""
        q_stages, w_stages, full, empty = stages
        STAGES: gl.constexpr = full.shape[0]
        GROUPS: gl.constexpr = w_stages.shape[0] // STAGES
        products: gl.constexpr = products_layout(WIDTH)
        operand: gl.constexpr = gl.DotOperandLayout(0, products, 4)
        warps: gl.constexpr = [[16, 0], [32, 0]]
        lanes: gl.constexpr = [[0, 1], [0, 2], [1, 0], [2, 0], [4, 0]]
        bases: gl.constexpr = [[0, 4], [0, 8], [8, 0], [0, 16]] + ([[64, 0]] if COLUMNS == 128 else [])
        packed: gl.constexpr = gl.DistributedLinearLayout(bases, lanes, warps, [], [COLUMNS, 32])
        sums = gl.zeros([COLUMNS, WIDTH], gl.int32, products)
        first = tile // gl.num_programs(0) * steps
        for count in range(first, first + steps):
            stage = count % STAGES
            mbarrier.wait(full.index(stage), (count // STAGES) & 1)
            bytes_of_stage = w_stages.index(GROUPS * stage + HALF)
            if DEALT:
                digits = digits_of_planes(bytes_of_stage.load(operand), operand)
            else:
                digits = digits_of_bytes(bytes_of_stage.load(packed), COLUMNS, operand)
            running = warpgroup_mma(digits, q_stages.index(stage).permute((1, 0)), sums, is_async=True)
            sums = warpgroup_mma_wait(num_outstanding=0, deps=(running,))
            mbarrier.arrive(empty.index(stage), count=1)
        return sums

    @gluon.jit
    def put_results(outputs, y, m, n, HALF: gl.constexpr):
        """Store results [columns, rows] from row m and column n on, those that there are, through shared memory."""
        y_tiles, results = outputs
        kept = results.index(HALF)
        puts_done(0)
        barrier()
        kept.permute((1, 0)).store(y)
        fence_async_shared()
        barrier()
        put_tile(y_tiles, [m, n], kept)

    @gluon.jit
    def results_of(
        e_pointer,
        stages,
        sizes,
        scale,
        m,
        tile,
        HALF: gl.constexpr,
        DEALT: gl.constexpr,
        FORM: gl.constexpr,
        ROWS: gl.constexpr,
        COLUMNS: gl.constexpr,
    ):
        """Return the results of half of a tile's columns, from row m on, in int16."""
        row = m + gl.arange(0, ROWS, gl.SliceLayout(0, products_layout(ROWS)))
        e = gl.load(e_pointer + row, mask=row < sizes[0], other=0)  # while the products run
        sums = tile_sums(stages, sizes[2], tile, HALF, ROWS, DEALT, COLUMNS)
        return scaled(sums, e[None, :], scale, FORM)

    @gluon.jit
    def multiply_tiles(
        outputs,
        e_pointer,
        stages,
        sizes,
        scale,
        HALF: gl.constexpr,
        DEALT: gl.constexpr,
        FORM: gl.constexpr,
        ROWS: gl.constexpr,
        COLUMNS: gl.constexpr,
        GROUPS: gl.constexpr,
    ):
        """Multiply, scale and store a group's columns of this program's tiles."""
        for tile in range(gl.program_id(0), sizes[3], gl.num_programs(0)):
            m, n = tile_at(tile, sizes, ROWS, GROUPS * COLUMNS)
            y = results_of(e_pointer, stages, sizes, scale, m, tile, HALF, DEALT, FORM, ROWS, COLUMNS)
            put_results(outputs, y, m, n + HALF * COLUMNS, HALF)
        puts_done(0)

    @gluon.jit
    def new_stages(w, WIDTH: gl.constexpr, COLUMNS: gl.constexpr, STAGES: gl.constexpr, GROUPS: gl.constexpr):
        """Return shared memory of the stages, and the barriers that say which of them are full and which are empty."""
        rows: gl.constexpr = gl.NVMMASharedLayout(4 * PACKED, 8, 2)
        q_stages = gl.allocate_shared_memory(gl.int8, [STAGES, WIDTH, 4 * PACKED], rows)
        w_stages = gl.allocate_shared_memory(gl.uint8, [GROUPS * STAGES, COLUMNS, PACKED], w.layout)
        full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
        empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
        for stage in gl.static_range(STAGES):
            mbarrier.init(full.index(stage), count=1)
            mbarrier.init(empty.index(stage), count=GROUPS)
        return q_stages, w_stages, full, empty

    @gluon.jit(do_not_specialize=["factor", "shift"])
    def product_kernel(
        e_pointer,
        q,
        w,
        y_tiles,
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
        GROUPS: gl.constexpr,
    ):
        stages = new_stages(w, ROWS, COLUMNS, STAGES, GROUPS)
        results = gl.allocate_shared_memory(gl.int16, [GROUPS, ROWS, COLUMNS], y_tiles.layout)
        fence_async_shared()
        outputs = (y_tiles, results)
        sizes, scale = (rows, columns, steps, tiles, grouped), (factor, shift)
        if GROUPS == 2:
            gl.warp_specialize(
                [
                    (multiply_tiles, (outputs, e_pointer, stages, sizes, scale, 0, DEALT, FORM, ROWS, COLUMNS, GROUPS)),
                    (multiply_tiles, (outputs, e_pointer, stages, sizes, scale, 1, DEALT, FORM, ROWS, COLUMNS, GROUPS)),
                    (copy_tiles, (q, w, stages, sizes, ROWS, COLUMNS, GROUPS)),
                ],
                [4, 1],
                [232, 24],  # registers of a thread of the second group and of the copying warp
            )
        else:
            gl.warp_specialize(
                [
                    (multiply_tiles, (outputs, e_pointer, stages, sizes, scale, 0, DEALT, FORM, ROWS, COLUMNS, GROUPS)),
                    (copy_tiles, (q, w, stages, sizes, ROWS, COLUMNS, GROUPS)),
                ],
                [1],
                [24],
            )


__all__ = ["product", "suits"]
