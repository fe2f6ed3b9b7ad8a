"""Triton versions of ``spec.ops.linear``; the product itself is in `ternary_product`."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops.linear import ternary_linear_widths

from . import hopper_requant, integers
from .launch import elementwise, launch
from .launch import rows as row_view
from .planes import dealt
from .ternary_product import on_hopper, product, scale_of

LONGEST_ROW = 16384  # that registers hold
BLOCK = 4096
HELD_BYTES = 1 << 24  # of a product, a part of a large device's cache
MOST_TILE_ROWS = 128


@implements(ops.quantize_rows)
def quantize_rows(x):
    q = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    e = torch.empty(x.shape[:-1], dtype=torch.int32, device=x.device)
    put_quantised(q, e, x)
    return q, e


def put_quantised(q, e, x):
    width = x.shape[-1]
    whole = width <= LONGEST_ROW
    block = triton.next_power_of_2(width) if whole else BLOCK
    rows = max(1, min(16, BLOCK // block))
    warps = max(4, block // 1024)
    programs = triton.cdiv(e.numel(), rows)
    tile = {"WHOLE": whole, "ROWS": rows, "BLOCK": block, "num_warps": warps}
    x, distance = row_view(x)
    launch(quantize_rows_kernel, programs, (q, e), (), e.numel(), width, distance, strided=(x,), **tile)


@triton.jit
def quantize_rows_kernel(
    q_pointer, e_pointer, x_pointer, rows, width, distance, WHOLE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Quantise some rows: a whole row is read once, a longer one in blocks, twice."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    offset = row[:, None] * width + column[None, :]
    place = row[:, None] * distance + column[None, :]
    inside = (row[:, None] < rows) & (column[None, :] < width)
    x = tl.load(x_pointer + place, mask=inside, other=0).to(tl.int32)
    maximum = tl.max(tl.abs(x), 1)
    if not WHOLE:
        for start in range(BLOCK, width, BLOCK):
            more = (row[:, None] < rows) & (start + column[None, :] < width)
            x = tl.load(x_pointer + start + place, mask=more, other=0).to(tl.int32)
            maximum = tl.maximum(maximum, tl.max(tl.abs(x), 1))
    e = tl.maximum(integers.bit_length(maximum) - 7, 0)
    tl.store(e_pointer + row, e, mask=row < rows)
    if WHOLE:
        tl.store(q_pointer + offset, quantised(x, e[:, None]), mask=inside)
    else:
        for start in range(0, width, BLOCK):
            more = (row[:, None] < rows) & (start + column[None, :] < width)
            x = tl.load(x_pointer + start + place, mask=more, other=0).to(tl.int32)
            tl.store(q_pointer + start + offset, quantised(x, e[:, None]), mask=more)


@triton.jit
def quantised(x, e):
    return integers.saturate(integers.shift_round(x, e), 8).to(tl.int8)


@implements(ops.requantize)
def requantize(x, *, shift):
    q, (x, distance) = torch.empty(x.shape, dtype=torch.int8, device=x.device), row_view(x)
    width = max(x.shape[-1:], default=1)
    shape = dict(distance=distance, WIDTH=1 if distance == width else width)
    return elementwise(requantize_kernel, q, strided=(x,), **shape, shift=shift)


@triton.jit
def requantize_kernel(
    q_pointer, x_pointer, size, distance, WIDTH: tl.constexpr, shift: tl.constexpr, BLOCK: tl.constexpr
):
    """Round and saturate each element; rows that aren't one after the other have more than one column."""
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    place = offset + offset // WIDTH * (distance - WIDTH) if WIDTH > 1 else offset
    x = tl.load(x_pointer + place, mask=offset < size, other=0).to(tl.int64)
    q = integers.saturate(integers.shift_round(x, shift), 8)
    tl.store(q_pointer + offset, q.to(tl.int8), mask=offset < size)


@implements(ops.ternary_linear)
def ternary_linear(q, e, w, *, num, shift):
    return product(q, e, w, num, shift)


@implements(ops.ternary_linear_requant)
def ternary_linear_requant(q, e, w, *, num, shift):
    columns = w.shape[0]
    if on_hopper(q, e.numel()) and hopper_requant.suits(e.numel(), q.shape[-1], columns, q.device):
        r = torch.empty((*e.shape, columns), dtype=torch.int8, device=q.device)
        s = torch.empty(e.shape, dtype=torch.int32, device=q.device)
        scale = scale_of(ternary_linear_widths, num, shift, K=q.shape[-1])
        hopper_requant.quantised_product(r, s, q, e, w, *scale)
        return r, s
    rows = max(MOST_TILE_ROWS, HELD_BYTES // (2 * max(columns, 1)) // MOST_TILE_ROWS * MOST_TILE_ROWS)
    if e.numel() < 2 * rows:
        return quantize_rows.kernel(ternary_linear.kernel(q, e, w, num=num, shift=shift))
    r = torch.empty((*e.shape, columns), dtype=torch.int8, device=q.device)
    s = torch.empty(e.shape, dtype=torch.int32, device=q.device)
    # As many rows at a time as the cache still has when they are quantised.
    panels = (array.flatten(0, -2).split(rows) for array in (q, r))
    exponents = (array.flatten().split(rows) for array in (e, s))
    planes = None if on_hopper(q, e.numel()) else dealt(w)
    for q_panel, r_panel, e_panel, s_panel in zip(*panels, *exponents, strict=True):
        put_quantised(r_panel, s_panel, product(q_panel, e_panel, w, num, shift, planes))
    return r, s


__all__ = ["quantize_rows", "requantize", "ternary_linear", "ternary_linear_requant"]
