"""Triton versions of ``spec.ops.linear``; the product itself is in `ternary_product`."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .launch import elementwise, launch
from .ternary_product import product

LONGEST_ROW = 16384  # that registers hold
BLOCK = 4096


@implements(ops.quantize_rows)
def quantize_rows(x):
    q = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    e = torch.empty(x.shape[:-1], dtype=torch.int32, device=x.device)
    width = x.shape[-1]
    whole = width <= LONGEST_ROW
    block = triton.next_power_of_2(width) if whole else BLOCK
    rows = max(1, min(16, BLOCK // block))
    warps = max(4, block // 1024)
    programs = triton.cdiv(e.numel(), rows)
    tile = {"WHOLE": whole, "ROWS": rows, "BLOCK": block, "num_warps": warps}
    launch(quantize_rows_kernel, programs, (q, e), (x,), e.numel(), width, **tile)
    return q, e


@triton.jit
def quantize_rows_kernel(
    q_pointer, e_pointer, x_pointer, rows, width, WHOLE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Quantise some rows: a whole row is read once, a longer one in blocks, twice."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    offset = row[:, None] * width + column[None, :]
    inside = (row[:, None] < rows) & (column[None, :] < width)
    x = tl.load(x_pointer + offset, mask=inside, other=0).to(tl.int32)
    maximum = tl.max(tl.abs(x), 1)
    if not WHOLE:
        for start in range(BLOCK, width, BLOCK):
            more = (row[:, None] < rows) & (start + column[None, :] < width)
            x = tl.load(x_pointer + start + offset, mask=more, other=0).to(tl.int32)
            maximum = tl.maximum(maximum, tl.max(tl.abs(x), 1))
    e = tl.maximum(integers.bit_length(maximum) - 7, 0)
    tl.store(e_pointer + row, e, mask=row < rows)
    if WHOLE:
        tl.store(q_pointer + offset, quantised(x, e[:, None]), mask=inside)
    else:
        for start in range(0, width, BLOCK):
            more = (row[:, None] < rows) & (start + column[None, :] < width)
            x = tl.load(x_pointer + start + offset, mask=more, other=0).to(tl.int32)
            tl.store(q_pointer + start + offset, quantised(x, e[:, None]), mask=more)


@triton.jit
def quantised(x, e):
    return integers.saturate(integers.shift_round(x, e), 8).to(tl.int8)


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
    return product(q, e, w, num, shift)


@implements(ops.ternary_linear_requant)
def ternary_linear_requant(q, e, w, *, num, shift):
    return quantize_rows.kernel(ternary_linear.kernel(q, e, w, num=num, shift=shift))


__all__ = ["quantize_rows", "requantize", "ternary_linear", "ternary_linear_requant"]
