"""The values of a weight's gradient on Hopper, turned: bytes are dealt in registers, four rows to a word."""

import torch
import triton
import triton.language as tl

from .instructions import dot_bytes, four_planes
from .launch import ceil_div, launch, with_columns, words, zeros

TILE = {"ROWS": 128, "WORDS": 32, "num_warps": 4}
FILL = 1024  # elements of the gradient that are cleared at a time


def turned_values(q, depth, dw, cleared):
    """Return int8 rows q transposed, in the order in which `hopper_weight` has limbs, and the sum of each column.

    There are zeros up to ``depth``. The first ``cleared`` elements of the gradient dw become zero.
    """
    rows, columns = q.shape
    turned = torch.empty((columns, depth), dtype=torch.int8, device=q.device)
    sums = zeros((columns,), torch.int64, q.device)
    q = with_columns(q, 4)
    words_a_row = q.shape[1] // 4
    programs = depth // TILE["ROWS"] * ceil_div(words_a_row, TILE["WORDS"])
    sizes = (rows, columns, words_a_row, depth // 4, cleared)
    launch(turn_values_kernel, programs, (words(turned), sums, dw), (words(q),), *sizes, FILL=FILL, **TILE)
    return turned, sums


@triton.jit
def turn_values_kernel(
    turned_pointer,
    sums_pointer,
    dw_pointer,
    q_pointer,
    rows,
    columns,
    words_a_row,
    words_of_depth,
    cleared,
    FILL: tl.constexpr,
    ROWS: tl.constexpr,
    WORDS: tl.constexpr,
):
    program, blocks = tl.program_id(0), words_of_depth // (ROWS // 4)
    block = (program % blocks).to(tl.int64)
    j = tl.arange(0, ROWS // 4)
    c = program // blocks * WORDS + tl.arange(0, WORDS)
    # Of sixteen rows, two pairs that are 8 apart follow each other.
    pair = block * ROWS + j // 4 * 16 + j % 4 * 2
    q = ()
    for i in tl.static_range(4):
        row = pair + (i // 2 * 8 + i % 2)
        inside = (row < rows)[:, None] & (c < words_a_row)[None, :]
        q = q + (tl.load(q_pointer + row[:, None] * words_a_row + c[None, :], mask=inside, other=0),)  # noqa: RUF005
    planes = four_planes(q)
    even, odd = tl.join(planes[0], planes[2]), tl.join(planes[1], planes[3])
    four = tl.reshape(tl.join(even, odd), [ROWS // 4, WORDS, 4])
    column = program // blocks * (4 * WORDS) + tl.arange(0, 4 * WORDS)
    place = column.to(tl.int64)[:, None] * words_of_depth + (block * (ROWS // 4) + j)[None, :]
    turned = tl.reshape(tl.permute(four, (1, 2, 0)), [4 * WORDS, ROWS // 4])
    tl.store(turned_pointer + place, turned, mask=(column < columns)[:, None])
    ones = tl.full([ROWS // 4, WORDS, 4], 0x01010101, tl.int32)
    totals = tl.reshape(tl.sum(dot_bytes(ones, four, tl.zeros_like(four)), 0), [4 * WORDS])
    tl.atomic_add(sums_pointer + column, totals.to(tl.int64), mask=column < columns, sem="relaxed")
    nothing = tl.zeros([FILL], tl.int64)
    for start in range(program.to(tl.int64) * FILL, cleared, tl.num_programs(0) * FILL):
        offset = start + tl.arange(0, FILL)
        tl.store(dw_pointer + offset, nothing, mask=offset < cleared)


__all__ = ["turned_values"]
