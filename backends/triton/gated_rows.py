"""`silu_gate` and `quantize_rows` at once: what the gate lets through is never in memory."""

import torch
import triton
import triton.language as tl

from . import integers
from .activation import silu_gate, silu_gated
from .launch import ceil_div, launch
from .launch import rows as row_view
from .linear import BLOCK, LONGEST_ROW, quantised, quantize_rows


def gated_rows(x, z, *, f):
    """Return `quantize_rows` of `silu_gate`."""
    width = x.shape[-1]
    if width > LONGEST_ROW:
        return quantize_rows.kernel(silu_gate.kernel(x, z, f=f))
    q = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    e = torch.empty(x.shape[:-1], dtype=torch.int32, device=x.device)
    z, distance = row_view(z)
    block = triton.next_power_of_2(width)
    rows = max(1, min(16, BLOCK // block))
    tile = {"ROWS": rows, "BLOCK": block, "num_warps": max(4, block // 1024)}
    sizes = e.numel(), width, distance
    launch(gated_rows_kernel, ceil_div(e.numel(), rows), (q, e), (x,), *sizes, strided=(z,), f=f, **tile)
    return q, e


@triton.jit
def gated_rows_kernel(
    q_pointer,
    e_pointer,
    x_pointer,
    z_pointer,
    rows,
    width,
    distance,
    f: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    place = row[:, None] * width + column[None, :]
    inside = (row[:, None] < rows) & (column[None, :] < width)
    x = tl.load(x_pointer + place, mask=inside, other=0)
    z = tl.load(z_pointer + row[:, None] * distance + column[None, :], mask=inside, other=0).to(tl.int32)
    y = silu_gated(x, z, f).to(tl.int32)
    e = tl.maximum(integers.bit_length(tl.max(tl.abs(y), 1)) - 7, 0)
    tl.store(e_pointer + row, e, mask=row < rows)
    tl.store(q_pointer + place, quantised(y, e[:, None]), mask=inside)


__all__ = ["gated_rows"]
