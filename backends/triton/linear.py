"""Triton versions of ``spec.ops.linear``; the product itself is in `ternary_product`."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .launch import elementwise, launch
from .ternary_product import product

LONGEST_BLOCK = 4096


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
    return product(q, e, w, num, shift)


@implements(ops.ternary_linear_requant)
def ternary_linear_requant(q, e, w, *, num, shift):
    return quantize_rows.kernel(ternary_linear.kernel(q, e, w, num=num, shift=shift))


__all__ = ["quantize_rows", "requantize", "ternary_linear", "ternary_linear_requant"]
