"""The product of many int16 rows and packed ternary weights on Hopper, in Gluon: rows are taken apart on the way.

As in `hopper_product`, one warp copies tiles and two groups of warps multiply half of a tile's columns each. Between
them, a third group makes two int8 limbs of the int16 rows in shared memory, ``256 high + low + 128``: both limbs are
multiplied by the same registers of weights, and what the 128 adds is 128 times the sum of a column's digits.
"""

from .gluon_names import (
    HAS_GLUON,
    TensorDescriptor,
    barrier,
    copy_tile,
    fence_async_shared,
    gl,
    gluon,
    mbarrier,
    processors,
    puts_done,
)
from .hopper_product import (
    GROUPED,
    PACKED,
    SWIZZLED,
    new_stages,
    put_results,
    result_tiles,
    scaled,
    tile_at,
    tile_sums,
    whole_words,
)
from .instructions import limb_bytes
from .launch import aligned, ceil_div, launch

GROUPS = 2  # of warps that multiply
ROWS, COLUMNS, STAGES = 64, 128, 4
SLICE = 32  # rows that are taken apart at a time


def product_of_limbs(y, x, sums, planes, factor, shift, form):
    """Put int16 rows x [rows, depth] times weights dealt into planes, scaled, into y.

    ``sums`` are those of each of the weights' rows of digits. A shift in memory comes with the factor as it is.
    """
    count, depth = x.shape
    width = planes.shape[0]
    tiles = ceil_div(count, ROWS) * ceil_div(width, GROUPS * COLUMNS)
    sizes = (count, width, ceil_div(depth, SWIZZLED), tiles, GROUPED)
    x = TensorDescriptor.from_tensor(aligned(x), [ROWS, SWIZZLED // 2], gl.NVMMASharedLayout(SWIZZLED, 16, 2))
    w = TensorDescriptor.from_tensor(planes, [COLUMNS, SWIZZLED // 4], gl.NVMMASharedLayout(SWIZZLED // 4, 8, 2))
    shape = {"FORM": form, "ROWS": ROWS, "COLUMNS": COLUMNS, "STAGES": STAGES, "SLICE": SLICE, "num_warps": 4}
    programs = min(tiles, processors(y.device))
    with whole_words(y, width) as results:
        strided = (x, w, result_tiles(results, ROWS, COLUMNS))
        launch(limbs_product_kernel, programs, (), (sums,), *sizes, factor, shift, strided=strided, **shape)


if HAS_GLUON:
    LIMBS = gl.constexpr(limb_bytes())

    @gluon.jit
    def copy_rows(x, w, raw, w_stages, copied, empty, sizes, ROWS: gl.constexpr, COLUMNS: gl.constexpr):
        """Copy the int16 rows and the weights of every step of this program's tiles, as soon as a stage is free."""
        _, _, steps, tiles, _ = sizes
        stages: gl.constexpr = copied.shape[0]
        count = 0
        for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
            m, n = tile_at(tile, sizes, ROWS, 2 * COLUMNS)
            for step in range(steps):
                stage = count % stages
                mbarrier.wait(empty.index(stage), ((count // stages) & 1) ^ 1)
                mbarrier.expect(copied.index(stage), (2 * ROWS * 4 + 2 * COLUMNS) * PACKED)
                for half in gl.static_range(2):
                    into = raw.index(2 * stage + half)
                    copy_tile(x, [m, (2 * step + half) * 2 * PACKED], copied.index(stage), into)
                    into = w_stages.index(2 * stage + half)
                    copy_tile(w, [n + half * COLUMNS, step * PACKED], copied.index(stage), into)
                count += 1

    @gluon.jit
    def limbs_of(left, right):
        """Return the high and the low limbs of rows of which both halves come apart."""
        both = gl.reshape(gl.permute(gl.join(left, right), (0, 2, 1)), [left.shape[0], 2 * left.shape[1]])
        return gl.inline_asm_elementwise(LIMBS, "=r,=r,r,r", [both], dtype=(gl.int8, gl.int8), is_pure=True, pack=4)

    @gluon.jit
    def split_rows(raw, q_stages, copied, full, sizes, ROWS: gl.constexpr, SLICE: gl.constexpr):
        """Take the rows of every step apart. A stage's limbs are free when its rows are copied again."""
        _, _, steps, tiles, _ = sizes
        stages: gl.constexpr = copied.shape[0]
        layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
        own_tiles = gl.cdiv(tiles - gl.program_id(0), gl.num_programs(0))
        for count in range(steps * own_tiles):
            stage = count % stages
            mbarrier.wait(copied.index(stage), (count // stages) & 1)
            for first in gl.static_range(0, ROWS, SLICE):
                left = raw.index(2 * stage).slice(first, SLICE).load(layout)
                right = raw.index(2 * stage + 1).slice(first, SLICE).load(layout)
                high, low = limbs_of(left, right)
                q_stages.index(stage).slice(first, SLICE).store(high)
                q_stages.index(stage).slice(ROWS + first, SLICE).store(low)
            fence_async_shared()
            barrier()
            mbarrier.arrive(full.index(stage), count=1)

    @gluon.jit
    def multiply_limbs(
        outputs,
        sums_pointer,
        stages,
        sizes,
        scale,
        HALF: gl.constexpr,
        FORM: gl.constexpr,
        ROWS: gl.constexpr,
        COLUMNS: gl.constexpr,
    ):
        """Multiply both limbs, join their sums and scale half of the columns of this program's tiles."""
        columns, steps, tiles = sizes[1], sizes[2], sizes[3]
        for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
            m, n = tile_at(tile, sizes, ROWS, 2 * COLUMNS)
            n += HALF * COLUMNS
            sums = tile_sums(stages, steps, tile, HALF, 2 * ROWS, True, COLUMNS)
            high, low = gl.split(gl.permute(gl.reshape(sums, [COLUMNS, 2, ROWS]), (0, 2, 1)))
            column = n + gl.arange(0, COLUMNS, gl.SliceLayout(1, high.type.layout))
            digit_sums = gl.load(sums_pointer + column, mask=column < columns, other=0)
            # A part may wrap; the whole fits int32.
            whole = high * 256 + (low + 128 * digit_sums[:, None])
            y = scaled(whole, whole * 0, scale, FORM)
            put_results(outputs, y, m, n, HALF)
        puts_done(0)

    @gluon.jit(do_not_specialize=["factor", "shift"])
    def limbs_product_kernel(
        sums_pointer,
        x,
        w,
        y_tiles,
        rows,
        columns,
        steps,
        tiles,
        grouped,
        factor,
        shift,
        FORM: gl.constexpr,
        ROWS: gl.constexpr,
        COLUMNS: gl.constexpr,
        STAGES: gl.constexpr,
        SLICE: gl.constexpr,
    ):
        if shift.dtype.is_ptr():
            shift = gl.load(shift)
            raised = gl.where(shift > 0, 0, 1)  # above the exponent 0 of every row in two limbs
            factor, shift = factor << raised, shift + raised
        stages = new_stages(w, 2 * ROWS, COLUMNS, STAGES, 2)
        q_stages, w_stages, full, empty = stages
        results = gl.allocate_shared_memory(gl.int16, [2, ROWS, COLUMNS], y_tiles.layout)
        raw = gl.allocate_shared_memory(gl.int16, [2 * STAGES, ROWS, 2 * PACKED], x.layout)
        copied = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
        for stage in gl.static_range(STAGES):
            mbarrier.init(copied.index(stage), count=1)
        fence_async_shared()
        outputs = (y_tiles, results)
        sizes, scale = (rows, columns, steps, tiles, grouped), (factor, shift)
        gl.warp_specialize(
            [
                (multiply_limbs, (outputs, sums_pointer, stages, sizes, scale, 0, FORM, ROWS, COLUMNS)),
                (multiply_limbs, (outputs, sums_pointer, stages, sizes, scale, 1, FORM, ROWS, COLUMNS)),
                (split_rows, (raw, q_stages, copied, full, sizes, ROWS, SLICE)),
                (copy_rows, (x, w, raw, w_stages, copied, empty, sizes, ROWS, COLUMNS)),
            ],
            [4, 4, 1],
            [208, 64, 24],  # registers of a thread of the second and third group and of the copying warp
        )


__all__ = ["product_of_limbs"]
