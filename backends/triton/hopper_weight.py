"""The gradient of weights on Hopper, in Gluon: int16 errors are turned and taken apart on their way into registers.

``errors.T @ values`` sums along rows. One warp copies tiles of the errors as they lie, and of the values, which were
turned before. Two groups of four warps take half of a tile's columns of errors each: a load of shared memory that
transposes brings pairs of errors, one below the other, and their high and low bytes are the limbs ``256 high + low +
128`` in the registers from which the tensor cores take them. The values' rows were dealt to meet that order (`linear_backward.dealt_row`).

Some programs, the lanes, have tiles side by side and take the same errors at the same time. Each takes an equal share
of the steps along the depth of all tiles of its lane; tiles that several programs share are added in memory.
"""

from .gluon_names import (
    HAS_GLUON,
    HOPPER,
    TensorDescriptor,
    architecture,
    copy_tile,
    fence_async_shared,
    gl,
    gluon,
    mbarrier,
    processors,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from .instructions import limb_bytes
from .launch import aligned, ceil_div, launch

WORDS = 8  # errors of which a row must have a multiple, so that its tiles can be copied
HALF, GROUPS = 64, 2  # columns of errors of a group, and groups
DEPTH = 128  # rows of a step
WIDE, MORE, STAGES = 128, 64, 4  # columns of values of a tile, in two parts
PART = 32  # rows of which a group has the limbs at a time
MOST_STEPS = (1 << 16) // DEPTH  # whose sums of two int8 fit int32
MOST_LANES = 8


def suits(columns: int) -> bool:
    """Return whether the current target has the instructions, and errors of so many columns can be copied in tiles."""
    return architecture() // 10 == HOPPER // 10 and columns % WORDS == 0


def lanes_of(down: int, across: int, most: int) -> tuple[int, int]:
    """Return how many programs work side by side, and in how many tiles' rounds of all of them."""
    choices = range(1, min(MOST_LANES, across, most) + 1)
    lanes = min(choices, key=lambda lanes: (down * ceil_div(across, lanes) / (most // lanes), -lanes))
    return lanes, most // lanes


def product_of_errors(dw, errors, values, sums):
    """Add errors [rows, columns], int16 and turned, times the turned and dealt values to zeros dw [columns, width]."""
    columns, width = dw.shape
    down, across = ceil_div(columns, GROUPS * HALF), ceil_div(width, WIDE + MORE)
    steps = values.shape[-1] // DEPTH
    lanes, teams = lanes_of(down, across, processors(dw.device))
    rounds = down * ceil_div(across, lanes)
    share = ceil_div(rounds * steps, teams)
    sizes = (columns, width, steps, rounds * steps, share, lanes, down)
    strided = (
        TensorDescriptor.from_tensor(aligned(errors), [DEPTH, HALF], gl.NVMMASharedLayout(128, 16, 2)),
        TensorDescriptor.from_tensor(values, [WIDE, DEPTH], gl.NVMMASharedLayout(DEPTH, 8, 2)),
        TensorDescriptor.from_tensor(values, [MORE or WIDE, DEPTH], gl.NVMMASharedLayout(DEPTH, 8, 2)),
    )
    shape = {"WIDE": WIDE, "MORE": MORE, "DEPTH": DEPTH, "PART": PART, "STAGES": STAGES, "MOST_STEPS": MOST_STEPS}
    launch(errors_kernel, lanes * teams, (dw,), (sums,), *sizes, strided=strided, **shape, num_warps=4)


if HAS_GLUON:
    TILE = gl.constexpr(GROUPS * HALF)
    LIMBS = gl.constexpr(limb_bytes())

    @gluon.jit
    def place_of(unit, sizes, WIDTH: gl.constexpr):
        """Return the first column of errors, the first of values and the step of a unit of this program's work."""
        _, _, steps, _, _, lanes, down = sizes
        round = unit // steps
        return round % down * TILE, (round // down * lanes + gl.program_id(0) % lanes) * WIDTH, unit % steps

    @gluon.jit
    def units_of(sizes):
        """Return the first unit of this program's work and the one after the last."""
        _, _, _, units, share, lanes, _ = sizes
        first = gl.program_id(0) // lanes * share
        return first, gl.minimum(first + share, units)

    @gluon.jit
    def copy_units(errors, wide, more, stages, sizes):
        error_stages, wide_stages, more_stages, full, empty = stages
        STAGES: gl.constexpr = full.shape[0]
        DEPTH: gl.constexpr = error_stages.shape[1]
        WIDE: gl.constexpr = wide_stages.shape[1]
        MORE: gl.constexpr = more_stages.shape[1] if len(more_stages.shape) == 3 else 0
        first, last = units_of(sizes)
        for unit in range(first, last):
            m, n, step = place_of(unit, sizes, WIDE + MORE)
            stage = (unit - first) % STAGES
            mbarrier.wait(empty.index(stage), (((unit - first) // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(stage), (2 * TILE + WIDE + MORE) * DEPTH)
            for half in gl.static_range(2):
                into = error_stages.index(2 * stage + half)
                copy_tile(errors, [step * DEPTH, m + half * (TILE // 2)], full.index(stage), into)
            copy_tile(wide, [n, step * DEPTH], full.index(stage), wide_stages.index(stage))
            if MORE:
                copy_tile(more, [n + WIDE, step * DEPTH], full.index(stage), more_stages.index(stage))

    @gluon.jit
    def limbs_of(errors, operand: gl.constexpr):
        """Return errors [columns, rows], of which a thread has pairs 8 apart, as limbs in the order of `linear_backward.dealt_row`."""
        high, low = gl.inline_asm_elementwise(
            LIMBS, "=r,=r,r,r", [errors], dtype=(gl.int8, gl.int8), is_pure=True, pack=4
        )
        return dealt_rows(high, operand), dealt_rows(low, operand)

    @gluon.jit
    def dealt_rows(limb, operand: gl.constexpr):
        columns: gl.constexpr = limb.shape[0]
        rows: gl.constexpr = limb.shape[1]
        split = gl.permute(gl.reshape(limb, [columns, rows // 16, 2, 4, 2]), (0, 1, 3, 2, 4))
        return gl.convert_layout(gl.reshape(split, [columns, rows]), operand, assert_trivial=True)

    @gluon.jit
    def add_tile(dw_pointer, high, low, sums_pointer, whole, m, n, sizes):
        """Add the sums of a tile's limbs to the gradient, a part after the other."""
        if high.shape[1] > 32:
            half: gl.constexpr = high.shape[1] // 2
            shape: gl.constexpr = [high.shape[0], 2, half]
            left, right = gl.split(gl.permute(gl.reshape(high, shape), (0, 2, 1)))
            low_left, low_right = gl.split(gl.permute(gl.reshape(low, shape), (0, 2, 1)))
            add_tile(dw_pointer, left, low_left, sums_pointer, whole, m, n, sizes)
            add_tile(dw_pointer, right, low_right, sums_pointer, whole, m, n + half, sizes)
        else:
            columns, width = sizes[0], sizes[1]
            row = m + gl.arange(0, high.shape[0], gl.SliceLayout(1, high.type.layout))
            column = n + gl.arange(0, high.shape[1], gl.SliceLayout(0, high.type.layout))
            sums = gl.load(sums_pointer + column, mask=(column < width) & whole, other=0)
            total = high.to(gl.int64) * 256 + low.to(gl.int64) + 128 * sums[None, :]
            inside = (row < columns)[:, None] & (column < width)[None, :]
            place = row.to(gl.int64)[:, None] * width + column[None, :]
            gl.atomic_add(dw_pointer + place, total, mask=inside, sem="relaxed")

    @gluon.jit
    def add_errors(
        dw_pointer, sums_pointer, stages, sizes, SIDE: gl.constexpr, PART: gl.constexpr, MOST_STEPS: gl.constexpr
    ):
        """Multiply the limbs of half of a tile's columns of errors by its values, and add their sums."""
        error_stages, wide_stages, more_stages, full, empty = stages
        STAGES: gl.constexpr = full.shape[0]
        DEPTH: gl.constexpr = error_stages.shape[1]
        WIDE: gl.constexpr = wide_stages.shape[1]
        MORE: gl.constexpr = more_stages.shape[1] if len(more_stages.shape) == 3 else 0
        HALF: gl.constexpr = TILE // 2
        layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, WIDE, 32])
        more_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, MORE or WIDE, 32])
        operand: gl.constexpr = gl.DotOperandLayout(0, layout, 4)
        more_operand: gl.constexpr = gl.DotOperandLayout(0, more_layout, 4)
        bases: gl.constexpr = (
            [[0, 1], [0, 8], [8, 0], [0, 16]] + ([[0, 32]] if PART > 32 else []) + ([[0, 64]] if PART > 64 else [])
        )
        lanes: gl.constexpr = [[0, 2], [0, 4], [1, 0], [2, 0], [4, 0]]
        pairs: gl.constexpr = gl.DistributedLinearLayout(bases, lanes, [[16, 0], [32, 0]], [], [HALF, PART])
        first, last = units_of(sizes)
        steps = sizes[2]
        start = first
        while start < last:
            m, n, step = place_of(start, sizes, WIDE + MORE)
            end = gl.minimum(gl.minimum(start - step + steps, last), start + MOST_STEPS)
            high, low = gl.zeros([HALF, WIDE], gl.int32, layout), gl.zeros([HALF, WIDE], gl.int32, layout)
            if MORE:
                more_high = gl.zeros([HALF, MORE], gl.int32, more_layout)
                more_low = gl.zeros([HALF, MORE], gl.int32, more_layout)
            for unit in range(start, end):
                stage = (unit - first) % STAGES
                mbarrier.wait(full.index(stage), ((unit - first) // STAGES) & 1)
                turned = error_stages.index(2 * stage + SIDE).permute((1, 0))
                for part in gl.static_range(DEPTH // PART):
                    errors = turned.slice(part * PART, PART, 1).load(pairs)
                    a, b = limbs_of(errors, operand)
                    values = wide_stages.index(stage).permute((1, 0)).slice(part * PART, PART, 0)
                    high = warpgroup_mma(a, values, high, is_async=True)
                    low = warpgroup_mma(b, values, low, is_async=True)
                    if MORE:
                        a = gl.convert_layout(a, more_operand, assert_trivial=True)
                        b = gl.convert_layout(b, more_operand, assert_trivial=True)
                        values = more_stages.index(stage).permute((1, 0)).slice(part * PART, PART, 0)
                        more_high = warpgroup_mma(a, values, more_high, is_async=True)
                        more_low = warpgroup_mma(b, values, more_low, is_async=True)
                        high, low, more_high, more_low = warpgroup_mma_wait(
                            num_outstanding=0, deps=(high, low, more_high, more_low)
                        )
                    else:
                        high, low = warpgroup_mma_wait(num_outstanding=0, deps=(high, low))
                mbarrier.arrive(empty.index(stage), count=1)
            m += SIDE * HALF
            add_tile(dw_pointer, high, low, sums_pointer, step == 0, m, n, sizes)
            if MORE:
                add_tile(dw_pointer, more_high, more_low, sums_pointer, step == 0, m, n + WIDE, sizes)
            start = end

    @gluon.jit
    def errors_kernel(
        dw_pointer,
        sums_pointer,
        errors,
        wide,
        more,
        columns,
        width,
        steps,
        units,
        share,
        lanes,
        down,
        WIDE: gl.constexpr,
        MORE: gl.constexpr,
        DEPTH: gl.constexpr,
        PART: gl.constexpr,
        STAGES: gl.constexpr,
        MOST_STEPS: gl.constexpr,
    ):
        error_stages = gl.allocate_shared_memory(gl.int16, [2 * STAGES, DEPTH, TILE // 2], errors.layout)
        wide_stages = gl.allocate_shared_memory(gl.int8, [STAGES, WIDE, DEPTH], wide.layout)
        full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
        empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
        more_stages = full
        if MORE:
            more_stages = gl.allocate_shared_memory(gl.int8, [STAGES, MORE, DEPTH], more.layout)
        for stage in gl.static_range(STAGES):
            mbarrier.init(full.index(stage), count=1)
            mbarrier.init(empty.index(stage), count=2)
        fence_async_shared()
        stages = (error_stages, wide_stages, more_stages, full, empty)
        sizes = (columns, width, steps, units, share, lanes, down)
        gl.warp_specialize(
            [
                (add_errors, (dw_pointer, sums_pointer, stages, sizes, 0, PART, MOST_STEPS)),
                (add_errors, (dw_pointer, sums_pointer, stages, sizes, 1, PART, MOST_STEPS)),
                (copy_units, (errors, wide, more, stages, sizes)),
            ],
            [4, 1],
            [232, 24],  # registers of a thread of the second group and of the copying warp
        )


__all__ = ["product_of_errors", "suits"]
