"""Triton versions of ``spec.ops.embedding``."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from .launch import ceil_div, launch

BLOCK = 1024


@implements(ops.embedding)
def embedding(ids, table, *, shift):
    D = table.shape[1]
    y = torch.empty((*ids.shape, D), dtype=torch.int32, device=ids.device)
    launch(embedding_kernel, ids.numel() * ceil_div(D, BLOCK), (y,), (ids, table), D, shift=shift, BLOCK=BLOCK)
    return y


@triton.jit
def embedding_kernel(y_pointer, ids_pointer, table_pointer, D, shift: tl.constexpr, BLOCK: tl.constexpr):
    program, blocks = tl.program_id(0), tl.cdiv(D, BLOCK)
    row = (program // blocks).to(tl.int64)
    column = (program % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(ids_pointer + row).to(tl.int64)
    entry = tl.load(table_pointer + source * D + column, mask=column < D, other=0)
    tl.store(y_pointer + row * D + column, entry.to(tl.int32) << shift, mask=column < D)


__all__ = ["embedding"]
