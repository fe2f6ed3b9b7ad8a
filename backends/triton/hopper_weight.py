"""The gradient of weights on Hopper, in Gluon: int16 errors are turned and taken apart on their way into registers.

``errors.T @ values`` sums along rows. One warp copies tiles of the errors as they lie, and of the values, which were
turned before (`turned_values`). Two groups of four warps take half of a tile's columns of errors each: a load of shared
memory that transposes brings pairs of errors, one below the other, and their high and low bytes are the limbs
``256 high + low + 128`` in the registers from which the tensor cores take them. The values' rows come in the order of
those pairs.

A team of programs, its lanes, has tiles side by side and takes the same errors at the same time: a round of the work.
Each team has as many whole rounds as the others. The other work comes first: each team takes an equal share of its
steps along the depth, and the programs' parts of a tile are added in memory. Whole tiles are stored at the end.
"""

import torch

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
from .hopper_product import WORDS
from .instructions import limb_bytes
from .launch import aligned, ceil_div, launch
from .turned_values import turned_values

HALF, GROUPS = 64, 2  # columns of errors of a group, and groups
DEPTH = 128  # rows of a step
WIDTH, STAGES = 128, 4  # columns of values of a tile
MOST_STEPS = (1 << 16) // DEPTH  # whose sums of two int8 fit int32
MOST_LANES = 8


def suits(columns: int) -> bool:
    """Return whether the current target has the instructions, and errors of so many columns can be copied in tiles."""
    return architecture() // 10 == HOPPER // 10 and columns % WORDS == 0


def lanes_of(down: int, across: int, most: int) -> tuple[int, int]:
    """Return how many programs work side by side, and how many teams of so many there are."""
    choices = range(1, min(MOST_LANES, across, most) + 1)
    lanes = min(choices, key=lambda lanes: (down * ceil_div(across, lanes) / (most // lanes), -lanes))
    return lanes, most // lanes


def product_of_errors(errors, q):
    """Return errors [rows, columns], int16 and turned, times int8 rows q [rows, width]: int64 [columns, width]."""
    (rows, columns), width = errors.shape, q.shape[-1]
    down, across = ceil_div(columns, GROUPS * HALF), ceil_div(width, WIDTH)
    steps = ceil_div(rows, DEPTH)
    lanes, teams = lanes_of(down, across, processors(q.device))
    rounds = down * ceil_div(across, lanes)
    whole = rounds // teams if steps <= MOST_STEPS else 0
    shared = rounds - whole * teams
    share = ceil_div(shared * steps, teams)
    dw = torch.empty((columns, width), dtype=torch.int64, device=q.device)
    # The first rounds' tiles lie side by side, so whole rows of tiles are cleared.
    values, sums = turned_values(q, steps * DEPTH, dw, min(shared * GROUPS * HALF, columns) * width)
    sizes = (columns, width, steps, shared * steps, share, whole, lanes, down)
    strided = (
        TensorDescriptor.from_tensor(aligned(errors), [DEPTH, HALF], gl.NVMMASharedLayout(128, 16, 2)),
        TensorDescriptor.from_tensor(values, [WIDTH, DEPTH], gl.NVMMASharedLayout(DEPTH, 8, 2)),
    )
    shape = {"WIDTH": WIDTH, "DEPTH": DEPTH, "STAGES": STAGES, "MOST_STEPS": MOST_STEPS}
    launch(errors_kernel, lanes * teams, (dw,), (sums,), *sizes, strided=strided, **shape, num_warps=4)
    return dw


if HAS_GLUON:
    TILE = gl.constexpr(GROUPS * HALF)
    LIMBS = gl.constexpr(limb_bytes())

    @gluon.jit
    def work_of(sizes):
        """Return how many units this program has of shared tiles, how many in all, and the first of each kind."""
        _, _, steps, units, share, whole, lanes, _ = sizes
        team = gl.program_id(0) // lanes
        first = team * share
        shared = gl.maximum(gl.minimum(share, units - first), 0)
        return shared, shared + whole * steps, first, units + team * whole * steps

    @gluon.jit
    def place_of(count, sizes, WIDTH: gl.constexpr):
        """Return the first column of errors, the first of values, and the step of a unit of this program's work."""
        _, _, steps, _, _, _, lanes, down = sizes
        shared, _, first, first_whole = work_of(sizes)
        unit = gl.where(count < shared, first + count, first_whole + count - shared)
        round = unit // steps
        return round % down * TILE, (round // down * lanes + gl.program_id(0) % lanes) * WIDTH, unit % steps

    @gluon.jit
    def copy_units(errors, values, stages, sizes):
        """Copy the errors and the values of every step of this program's work, as soon as a stage is free."""
        error_stages, value_stages, full, empty = stages
        STAGES: gl.constexpr = full.shape[0]
        DEPTH: gl.constexpr = error_stages.shape[1]
        WIDTH: gl.constexpr = value_stages.shape[1]
        _, units, _, _ = work_of(sizes)
        for count in range(units):
            m, n, step = place_of(count, sizes, WIDTH)
            stage = count % STAGES
            mbarrier.wait(empty.index(stage), ((count // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(stage), (2 * TILE + WIDTH) * DEPTH)
            for half in gl.static_range(2):
                into = error_stages.index(2 * stage + half)
                copy_tile(errors, [step * DEPTH, m + half * (TILE // 2)], full.index(stage), into)
            copy_tile(values, [n, step * DEPTH], full.index(stage), value_stages.index(stage))

    @gluon.jit
    def limbs_of(errors, operand: gl.constexpr):
        """Return errors [columns, rows], of which a thread has pairs 8 apart, as limbs whose rows are dealt."""
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
    def add_tile(dw_pointer, high, low, sums_pointer, starts, ends, m, n, sizes):
        """Put the sums of a tile's limbs into the gradient, a part after the other, or add those of a part of it."""
        if high.shape[1] > 32:
            half: gl.constexpr = high.shape[1] // 2
            shape: gl.constexpr = [high.shape[0], 2, half]
            left, right = gl.split(gl.permute(gl.reshape(high, shape), (0, 2, 1)))
            low_left, low_right = gl.split(gl.permute(gl.reshape(low, shape), (0, 2, 1)))
            add_tile(dw_pointer, left, low_left, sums_pointer, starts, ends, m, n, sizes)
            add_tile(dw_pointer, right, low_right, sums_pointer, starts, ends, m, n + half, sizes)
        else:
            columns, width = sizes[0], sizes[1]
            row = m + gl.arange(0, high.shape[0], gl.SliceLayout(1, high.type.layout))
            column = n + gl.arange(0, high.shape[1], gl.SliceLayout(0, high.type.layout))
            sums = gl.load(sums_pointer + column, mask=(column < width) & starts, other=0)
            total = high.to(gl.int64) * 256 + low.to(gl.int64) + 128 * sums[None, :]
            inside = (row < columns)[:, None] & (column < width)[None, :]
            place = row.to(gl.int64)[:, None] * width + column[None, :]
            if starts & ends:
                gl.store(dw_pointer + place, total, mask=inside)
            else:
                gl.atomic_add(dw_pointer + place, total, mask=inside, sem="relaxed")

    @gluon.jit
    def add_errors(dw_pointer, sums_pointer, stages, sizes, SIDE: gl.constexpr, MOST_STEPS: gl.constexpr):
        """Multiply the limbs of half of a tile's columns of errors by its values, and add their sums."""
        error_stages, value_stages, full, empty = stages
        STAGES: gl.constexpr = full.shape[0]
        DEPTH: gl.constexpr = error_stages.shape[1]
        WIDTH: gl.constexpr = value_stages.shape[1]
        HALF: gl.constexpr = TILE // 2
        layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, WIDTH, 32])
        operand: gl.constexpr = gl.DotOperandLayout(0, layout, 4)
        bases: gl.constexpr = [[0, 1], [0, 8], [8, 0], [0, 16], [0, 32], [0, 64]]
        lanes: gl.constexpr = [[0, 2], [0, 4], [1, 0], [2, 0], [4, 0]]
        pairs: gl.constexpr = gl.DistributedLinearLayout(bases, lanes, [[16, 0], [32, 0]], [], [HALF, DEPTH])
        shared, units, _, _ = work_of(sizes)
        steps = sizes[2]
        start = 0
        while start < units:
            m, n, step = place_of(start, sizes, WIDTH)
            end = gl.minimum(start - step + steps, start + MOST_STEPS)
            end = gl.minimum(end, gl.where(start < shared, shared, units))
            high, low = gl.zeros([HALF, WIDTH], gl.int32, layout), gl.zeros([HALF, WIDTH], gl.int32, layout)
            for count in range(start, end):
                stage = count % STAGES
                mbarrier.wait(full.index(stage), (count // STAGES) & 1)
                errors = error_stages.index(2 * stage + SIDE).permute((1, 0)).load(pairs)
                high_limb, low_limb = limbs_of(errors, operand)
                values = value_stages.index(stage).permute((1, 0))
                high = warpgroup_mma(high_limb, values, high, is_async=True)
                low = warpgroup_mma(low_limb, values, low, is_async=True)
                high, low = warpgroup_mma_wait(num_outstanding=0, deps=(high, low))
                mbarrier.arrive(empty.index(stage), count=1)
            ends = step + end - start == steps
            add_tile(dw_pointer, high, low, sums_pointer, step == 0, ends, m + SIDE * HALF, n, sizes)
            start = end

    @gluon.jit
    def errors_kernel(
        dw_pointer,
        sums_pointer,
        errors,
        values,
        columns,
        width,
        steps,
        units,
        share,
        whole,
        lanes,
        down,
        WIDTH: gl.constexpr,
        DEPTH: gl.constexpr,
        STAGES: gl.constexpr,
        MOST_STEPS: gl.constexpr,
    ):
        error_stages = gl.allocate_shared_memory(gl.int16, [2 * STAGES, DEPTH, TILE // 2], errors.layout)
        value_stages = gl.allocate_shared_memory(gl.int8, [STAGES, WIDTH, DEPTH], values.layout)
        full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
        empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
        for stage in gl.static_range(STAGES):
            mbarrier.init(full.index(stage), count=1)
            mbarrier.init(empty.index(stage), count=2)
        fence_async_shared()
        stages = (error_stages, value_stages, full, empty)
        sizes = (columns, width, steps, units, share, whole, lanes, down)
        gl.warp_specialize(
            [
                (add_errors, (dw_pointer, sums_pointer, stages, sizes, 0, MOST_STEPS)),
                (add_errors, (dw_pointer, sums_pointer, stages, sizes, 1, MOST_STEPS)),
                (copy_units, (errors, values, stages, sizes)),
            ],
            [4, 1],
            [232, 24],  # registers of a thread of the second group and of the copying warp
        )


__all__ = ["product_of_errors", "suits"]
