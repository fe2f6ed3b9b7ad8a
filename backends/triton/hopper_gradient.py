"""The gradient of a layer's weights on Hopper, in Gluon: turned gradients times turned rows, split over the rows.

One warp copies tiles into shared memory. Two groups of four warps multiply one limb each of the gradients' tile by the
same tile of the rows, and add to memory; integer addition has no order.
"""

import triton

from .gluon_names import (
    HAS_GLUON,
    TensorDescriptor,
    copy_tile,
    fence_async_shared,
    gl,
    gluon,
    mbarrier,
    processors,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from .hopper_product import SWIZZLED
from .launch import ceil_div, launch

TILE, STAGES = 128, 4
ADDING_STEPS = 32  # that take as long as adding a tile to memory: measured at 16384 x 768 x 3072
FEWEST_STEPS = 8  # of a part of the rows


def parts_of(tiles: int, steps: int, programs: int) -> int:
    """Return into how many parts the rows are cut so that the programs have about equal work, of little adding."""
    choices = range(1, max(2, min(8, steps // FEWEST_STEPS) + 1))
    return min(choices, key=lambda parts: ceil_div(tiles * parts, programs) * (ceil_div(steps, parts) + ADDING_STEPS))


def weight_gradient(dw, errors, values, sums, parts=0):
    """Add gradients in two int8 limbs [2, rows, depth] times values [columns, depth] to int64 dw, which is zero.

    ``sums`` are those of the values' rows. The depth is a multiple of 128.
    """
    (_, rows, depth), columns = errors.shape, values.shape[0]
    layout = gl.NVMMASharedLayout(SWIZZLED, 8, 2)
    tensors = (
        TensorDescriptor.from_tensor(array, [TILE, SWIZZLED], layout)
        for array in (errors.view(2 * rows, depth), values)
    )
    tiles, steps = triton.cdiv(rows, TILE) * triton.cdiv(columns, TILE), depth // SWIZZLED
    programs = processors(dw.device)
    parts = parts or parts_of(tiles, steps, programs)
    length = triton.cdiv(steps, parts)
    sizes = (rows, columns, steps, length, tiles * triton.cdiv(steps, length))
    shape = {"TILE": TILE, "STAGES": STAGES, "num_warps": 4}
    launch(weight_gradient_kernel, min(programs, sizes[-1]), (dw,), (sums,), *sizes, strided=tuple(tensors), **shape)


if HAS_GLUON:

    @gluon.jit
    def item_at(item, sizes, TILE: gl.constexpr):
        """Return the first row, column and step of an item of work, and its last step's next."""
        rows, columns, steps, length, _ = sizes
        across, down = gl.cdiv(columns, TILE), gl.cdiv(rows, TILE)
        part, tile = item // (across * down), item % (across * down)
        first = part * length
        return tile // across * TILE, tile % across * TILE, first, gl.minimum(first + length, steps)

    @gluon.jit
    def copy_items(a, b, a_stages, b_stages, full, empty, sizes, TILE: gl.constexpr, STAGES: gl.constexpr):
        count = 0
        for item in range(gl.program_id(0), sizes[4], gl.num_programs(0)):
            m, n, first, last = item_at(item, sizes, TILE)
            for step in range(first, last):
                stage = count % STAGES
                mbarrier.wait(empty.index(stage), ((count // STAGES) & 1) ^ 1)
                mbarrier.expect(full.index(stage), 3 * TILE * 128)
                for limb in gl.static_range(2):
                    copy_tile(a, [limb * sizes[0] + m, step * 128], full.index(stage), a_stages.index(2 * stage + limb))
                copy_tile(b, [n, step * 128], full.index(stage), b_stages.index(stage))
                count += 1

    @gluon.jit
    def multiply_items(
        dw_pointer,
        sums_pointer,
        a_stages,
        b_stages,
        full,
        empty,
        sizes,
        LIMB: gl.constexpr,
        TILE: gl.constexpr,
        STAGES: gl.constexpr,
    ):
        """Multiply the high limb, 0, or the low one, 1."""
        products: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE, 32])
        count = 0
        for item in range(gl.program_id(0), sizes[4], gl.num_programs(0)):
            m, n, first, last = item_at(item, sizes, TILE)
            sums = gl.zeros([TILE, TILE], gl.int32, products)
            for _ in range(first, last):
                stage = count % STAGES
                mbarrier.wait(full.index(stage), (count // STAGES) & 1)
                operands = a_stages.index(2 * stage + LIMB), b_stages.index(stage).permute((1, 0))
                running = warpgroup_mma(operands[0], operands[1], sums, is_async=True)
                sums = warpgroup_mma_wait(num_outstanding=0, deps=(running,))
                mbarrier.arrive(empty.index(stage), count=1)
                count += 1
            add_tile(dw_pointer, sums_pointer, sums, m, n, sizes, first == 0, LIMB, TILE, TILE)

    @gluon.jit
    def add_tile(
        dw_pointer,
        sums_pointer,
        sums,
        m,
        n,
        sizes,
        is_first,
        LIMB: gl.constexpr,
        TILE: gl.constexpr,
        COLUMNS: gl.constexpr,
    ):
        """Add some columns of a tile to memory: a few at a time, since an int64 takes two registers."""
        if COLUMNS > 32:
            halves = gl.permute(gl.reshape(sums, [TILE, 2, COLUMNS // 2]), (0, 2, 1))
            left, right = gl.split(halves)
            add_tile(dw_pointer, sums_pointer, left, m, n, sizes, is_first, LIMB, TILE, COLUMNS // 2)
            middle = n + COLUMNS // 2
            add_tile(dw_pointer, sums_pointer, right, m, middle, sizes, is_first, LIMB, TILE, COLUMNS // 2)
        else:
            rows, columns = sizes[0], sizes[1]
            layout: gl.constexpr = sums.type.layout
            row = m + gl.arange(0, TILE, gl.SliceLayout(1, layout))
            column = n + gl.arange(0, COLUMNS, gl.SliceLayout(0, layout))
            dw = sums.to(gl.int64)
            if LIMB == 0:
                dw = dw * 256
            else:
                known = column < gl.where(is_first, columns, 0)
                dw += 128 * gl.load(sums_pointer + column, mask=known, other=0)[None, :]
            inside = (row < rows)[:, None] & (column < columns)[None, :]
            gl.atomic_add(dw_pointer + (row[:, None] * columns + column[None, :]), dw, mask=inside, sem="relaxed")

    @gluon.jit
    def weight_gradient_kernel(
        dw_pointer,
        sums_pointer,
        a,
        b,
        rows,
        columns,
        steps,
        length,
        items,
        TILE: gl.constexpr,
        STAGES: gl.constexpr,
    ):
        a_stages = gl.allocate_shared_memory(gl.int8, [2 * STAGES, TILE, 128], a.layout)
        b_stages = gl.allocate_shared_memory(gl.int8, [STAGES, TILE, 128], b.layout)
        full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
        empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
        for stage in gl.static_range(STAGES):
            mbarrier.init(full.index(stage), count=1)
            mbarrier.init(empty.index(stage), count=2)
        fence_async_shared()
        sizes = (rows, columns, steps, length, items)
        gl.warp_specialize(
            [
                (multiply_items, (dw_pointer, sums_pointer, a_stages, b_stages, full, empty, sizes, 0, TILE, STAGES)),
                (multiply_items, (dw_pointer, sums_pointer, a_stages, b_stages, full, empty, sizes, 1, TILE, STAGES)),
                (copy_items, (a, b, a_stages, b_stages, full, empty, sizes, TILE, STAGES)),
            ],
            [4, 1],
            [232, 24],
        )


__all__ = ["weight_gradient"]
