"""Triton versions of ``spec.ops.linear``.

The packed weights are read as they are and unpacked in registers. Many rows are multiplied on the tensor cores; for few
rows, as in decoding, the bytes of the weights are the floor, and no tile of rows is padded. The scale is fused behind.
"""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .launch import elementwise, launch

FEW_ROWS = 8
LONGEST_BLOCK = 4096
# A tile's weights are unpacked for all of its rows: 256 of them take the tensor cores longer than the unpacking.
LARGE_TILE = {"ROWS": 256, "COLUMNS": 128, "BYTES": 32, "num_warps": 8, "num_stages": 3}
SMALL_TILE = {"ROWS": 64, "COLUMNS": 64, "BYTES": 32, "num_warps": 4, "num_stages": 4}


@implements(ops.quantize_rows)
def quantize_rows(x):
    q = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    e = torch.empty(x.shape[:-1], dtype=torch.int32, device=x.device)
    block = min(triton.next_power_of_2(x.shape[-1]), LONGEST_BLOCK)
    rows = max(1, min(16, LONGEST_BLOCK // block))
    programs = triton.cdiv(e.numel(), rows)
    launch(quantize_rows_kernel, programs, (q, e), (x,), e.numel(), x.shape[-1], ROWS=rows, BLOCK=block)
    return q, e


@triton.jit
def quantize_rows_kernel(q_pointer, e_pointer, x_pointer, rows, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    maximum = tl.zeros([ROWS], tl.int32)
    for start in range(0, width, BLOCK):
        inside = (row[:, None] < rows) & (start + column[None, :] < width)
        x = tl.load(x_pointer + row[:, None] * width + start + column[None, :], mask=inside, other=0).to(tl.int32)
        maximum = tl.maximum(maximum, tl.max(tl.abs(x), 1))
    e = tl.maximum(integers.bit_length(maximum) - 7, 0)
    tl.store(e_pointer + row, e, mask=row < rows)
    half = ((tl.zeros_like(e) + 1) << e) >> 1
    for start in range(0, width, BLOCK):
        inside = (row[:, None] < rows) & (start + column[None, :] < width)
        offset = row[:, None] * width + start + column[None, :]
        x = tl.load(x_pointer + offset, mask=inside, other=0).to(tl.int32)
        q = integers.saturate((x + half[:, None]) >> e[:, None], 8)
        tl.store(q_pointer + offset, q.to(tl.int8), mask=inside)


@implements(ops.requantize)
def requantize(x, *, shift):
    return elementwise(requantize_kernel, torch.empty(x.shape, dtype=torch.int8, device=x.device), x, shift=shift)


@triton.jit
def requantize_kernel(q_pointer, x_pointer, size, shift: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_pointer + offset, mask=offset < size, other=0).to(tl.int64)
    q = integers.saturate(integers.shift_round(x, shift), 8)
    tl.store(q_pointer + offset, q.to(tl.int8), mask=offset < size)


@implements(ops.ternary_linear)
def ternary_linear(q, e, w, *, num, shift):
    depth, columns = q.shape[-1], w.shape[0]
    y = torch.empty((*q.shape[:-1], columns), dtype=torch.int16, device=q.device)
    if not y.numel():
        return y
    rows = e.numel()
    scale = (num, shift, (1 << shift) >> 1)
    sizes = (rows, columns, depth, w.shape[1])
    if rows <= FEW_ROWS:
        programs = triton.cdiv(columns, 8) * rows
        launch(few_rows_kernel, programs, (y,), (q, e, w), *sizes, *scale, COLUMNS=8, BYTES=256)
        return y
    tile = LARGE_TILE if rows >= LARGE_TILE["ROWS"] else SMALL_TILE
    programs = triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(columns, tile["COLUMNS"])
    launch(many_rows_kernel, programs, (y,), (q, e, w), *sizes, *scale, **tile)
    return y


@triton.jit
def scale_sum(accumulator, e, num, shift, half):
    """Return the sum times ``2**e * num / 2**shift``, rounded once and saturated; half is ``2**shift / 2``."""
    aligned = (accumulator.to(tl.int64) * num) << e.to(tl.int64)
    return integers.saturate((aligned + half) >> shift, 16).to(tl.int16)


@triton.jit
def few_rows_kernel(
    y_pointer,
    q_pointer,
    e_pointer,
    w_pointer,
    rows,
    columns,
    depth,
    bytes_a_row,
    num,
    shift,
    half,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,
):
    program, blocks = tl.program_id(0), tl.cdiv(columns, COLUMNS)
    row = (program // blocks).to(tl.int64)
    n = (program % blocks).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS, BYTES], tl.int32)
    for start in range(0, bytes_a_row, BYTES):
        j = start + tl.arange(0, BYTES)
        inside = (n[:, None] < columns) & (j[None, :] < bytes_a_row)
        byte = tl.load(w_pointer + n[:, None] * bytes_a_row + j[None, :], mask=inside, other=0).to(tl.int32)
        for i in tl.static_range(4):
            k = 4 * j + i
            q = tl.load(q_pointer + row * depth + k, mask=k < depth, other=0).to(tl.int32)
            digit = (((byte >> (2 * i)) & 3) ^ 2) - 2
            total += q[None, :] * digit
    e = tl.load(e_pointer + row + tl.zeros([COLUMNS], tl.int32))
    y = scale_sum(tl.sum(total, 1), e, num, shift, half)
    tl.store(y_pointer + row * columns + n, y, mask=n < columns)


@triton.jit
def digits_of(byte):
    """Return [N, B] bytes as the [N, 4 * B] int8 digits they hold.

    A word takes one code a byte, then copies each code's sign bit upward: four digits for the work of one.
    """
    code = byte.to(tl.int32)
    codes = (code | (code << 6) | (code << 12) | (code << 18)) & 0x03030303
    word = codes | ((codes & 0x02020202) * 126)
    even = tl.join(word.to(tl.int8), (word >> 16).to(tl.int8))
    odd = tl.join((word >> 8).to(tl.int8), (word >> 24).to(tl.int8))
    return tl.reshape(tl.join(even, odd), [byte.shape[0], 4 * byte.shape[1]])


@triton.jit
def tile_of(program, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the rows and the columns of a program's tile.

    Programs that run together share columns: eight tiles of rows before the next tile of columns.
    """
    group_size = 8 * tl.cdiv(columns, COLUMNS)
    group, inside_group = program // group_size, program % group_size
    height = tl.minimum(tl.cdiv(rows, ROWS) - group * 8, 8)
    m, n = group * 8 + inside_group % height, inside_group // height
    return m.to(tl.int64) * ROWS + tl.arange(0, ROWS), n.to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)


@triton.jit
def many_rows_kernel(
    y_pointer,
    q_pointer,
    e_pointer,
    w_pointer,
    rows,
    columns,
    depth,
    bytes_a_row,
    num,
    shift,
    half,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,
):
    m, n = tile_of(tl.program_id(0), rows, columns, ROWS, COLUMNS)
    j, k = tl.arange(0, BYTES), tl.arange(0, 4 * BYTES)
    q_tile = q_pointer + m[:, None] * depth + k[None, :]
    w_tile = w_pointer + n[:, None] * bytes_a_row + j[None, :]
    accumulator = tl.zeros([ROWS, COLUMNS], tl.int32)
    for start in range(0, bytes_a_row, BYTES):
        byte = tl.load(w_tile + start, mask=(n[:, None] < columns) & (start + j[None, :] < bytes_a_row), other=0)
        q = tl.load(q_tile + 4 * start, mask=(m[:, None] < rows) & (4 * start + k[None, :] < depth), other=0)
        accumulator = tl.dot(q, tl.trans(digits_of(byte)), accumulator, out_dtype=tl.int32)
    e = tl.load(e_pointer + m, mask=m < rows, other=0)
    y = scale_sum(accumulator, e[:, None], num, shift, half)
    inside = (m[:, None] < rows) & (n[None, :] < columns)
    tl.store(y_pointer + m[:, None] * columns + n[None, :], y, mask=inside)


@implements(ops.ternary_linear_requant)
def ternary_linear_requant(q, e, w, *, num, shift):
    return quantize_rows.kernel(ternary_linear.kernel(q, e, w, num=num, shift=shift))


__all__ = ["quantize_rows", "requantize", "ternary_linear", "ternary_linear_requant"]
