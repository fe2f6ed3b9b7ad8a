"""Triton versions of ``spec.ops.primitives``."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .launch import elementwise


@implements(ops.shift_round)
def shift_round(x, *, s):
    return elementwise(shift_round_kernel, torch.empty(x.shape, dtype=x.dtype, device=x.device), x, s=s)


@triton.jit
def shift_round_kernel(y_pointer, x_pointer, size, s: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_pointer + offset, mask=offset < size, other=0).to(tl.int64)
    tl.store(y_pointer + offset, integers.shift_round(x, s).to(tl.int32), mask=offset < size)


@implements(ops.saturate)
def saturate(x, *, bits):
    return elementwise(saturate_kernel, torch.empty(x.shape, dtype=x.dtype, device=x.device), x, bits=bits)


@triton.jit
def saturate_kernel(y_pointer, x_pointer, size, bits: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_pointer + offset, mask=offset < size, other=0)
    tl.store(y_pointer + offset, integers.saturate(x, bits), mask=offset < size)


@implements(ops.bit_length)
def bit_length(x):
    return elementwise(bit_length_kernel, torch.empty(x.shape, dtype=x.dtype, device=x.device), x)


@triton.jit
def bit_length_kernel(y_pointer, x_pointer, size, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_pointer + offset, mask=offset < size, other=0)
    tl.store(y_pointer + offset, integers.bit_length(x), mask=offset < size)


@implements(ops.isqrt)
def isqrt(v):
    return elementwise(isqrt_kernel, torch.empty(v.shape, dtype=v.dtype, device=v.device), v)


@triton.jit
def isqrt_kernel(r_pointer, v_pointer, size, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(v_pointer + offset, mask=offset < size, other=0)
    tl.store(r_pointer + offset, integers.isqrt(v), mask=offset < size)


__all__ = ["bit_length", "isqrt", "saturate", "shift_round"]
