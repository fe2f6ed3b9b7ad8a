"""Triton versions of ``spec.ops.residual_backward``."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .launch import elementwise


@implements(ops.residual_add_backward)
def residual_add_backward(dy, *, num, shift):
    dx = torch.empty(dy.shape, dtype=torch.int16, device=dy.device)
    return elementwise(residual_add_backward_kernel, dx, dy, integers=(num, shift))


@triton.jit(do_not_specialize=["num", "shift"])
def residual_add_backward_kernel(dx_pointer, dy_pointer, size, num, shift, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    shift = integers.scalar(shift).to(tl.int64)
    dy = tl.load(dy_pointer + offset, mask=offset < size, other=0)
    dx = integers.saturate(integers.shift_round(dy.to(tl.int64) * num, shift), 16)
    tl.store(dx_pointer + offset, dx.to(tl.int16), mask=offset < size)


__all__ = ["residual_add_backward"]
