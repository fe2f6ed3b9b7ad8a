"""Triton versions of ``spec.ops.embedding_backward``: exact sums, so that atomics may come in any order."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from .launch import ceil_div, launch

# One element a thread: a warp's atomics fall on neighbouring words.
BLOCK = 256
WARPS = BLOCK // 32


@implements(ops.embedding_backward)
def embedding_backward(ids, dy, *, V):
    D = dy.shape[-1]
    dtable = torch.zeros((V, D), dtype=torch.int64, device=dy.device)
    programs = ids.numel() * ceil_div(D, BLOCK)
    launch(embedding_backward_kernel, programs, (dtable,), (ids, dy), D, BLOCK=BLOCK, num_warps=WARPS)
    return dtable


@triton.jit
def embedding_backward_kernel(dtable_pointer, ids_pointer, dy_pointer, D, BLOCK: tl.constexpr):
    program, blocks = tl.program_id(0), tl.cdiv(D, BLOCK)
    place = (program // blocks).to(tl.int64)
    column = (program % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(ids_pointer + place).to(tl.int64)
    dy = tl.load(dy_pointer + place * D + column, mask=column < D, other=0)
    tl.atomic_add(dtable_pointer + row * D + column, dy.to(tl.int64), mask=column < D, sem="relaxed")


__all__ = ["embedding_backward"]
