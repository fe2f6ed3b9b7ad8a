"""Triton versions of ``spec.ops.residual``."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.integers import RESIDUAL_BITS

from . import integers
from .launch import elementwise


@implements(ops.residual_add)
def residual_add(r, x, *, num, shift):
    y = torch.empty(r.shape, dtype=r.dtype, device=r.device)
    return elementwise(residual_add_kernel, y, r, x, num=num, shift=shift, bits=RESIDUAL_BITS)


@triton.jit
def residual_add_kernel(
    y_pointer,
    r_pointer,
    x_pointer,
    size,
    num: tl.constexpr,
    shift: tl.constexpr,
    bits: tl.constexpr,
    BLOCK: tl.constexpr,
):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    r = tl.load(r_pointer + offset, mask=offset < size, other=0)
    x = tl.load(x_pointer + offset, mask=offset < size, other=0).to(tl.int32)
    y = integers.saturate(r + integers.shift_round(x * num, shift), bits)
    tl.store(y_pointer + offset, y, mask=offset < size)


__all__ = ["residual_add"]
