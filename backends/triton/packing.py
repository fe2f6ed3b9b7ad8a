"""Triton versions of ``spec.ops.packing``."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from .launch import elementwise


@implements(ops.pack_ternary)
def pack_ternary(w):
    return pack(w, width=4, base=4)


@implements(ops.pack_trits)
def pack_trits(w):
    return pack(w, width=5, base=3)


def pack(w, width, base):
    digits = w.shape[-1]
    bytes_a_row = -(-digits // width)
    packed = torch.empty((*w.shape[:-1], bytes_a_row), dtype=torch.uint8, device=w.device)
    return elementwise(pack_kernel, packed, w, digits=digits, bytes_a_row=bytes_a_row, WIDTH=width, BASE=base)


@triton.jit
def pack_kernel(
    packed_pointer, w_pointer, size, digits, bytes_a_row, WIDTH: tl.constexpr, BASE: tl.constexpr, BLOCK: tl.constexpr
):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, first = offset // bytes_a_row, offset % bytes_a_row * WIDTH
    byte = tl.zeros([BLOCK], tl.int32)
    for i in tl.static_range(WIDTH):
        k = first + (WIDTH - 1 - i)
        digit = tl.load(w_pointer + row * digits + k, mask=(offset < size) & (k < digits), other=0).to(tl.int32)
        byte = byte * BASE + (digit + 1 if BASE == 3 else digit & 3)
    tl.store(packed_pointer + offset, byte.to(tl.uint8), mask=offset < size)


@implements(ops.unpack_ternary)
def unpack_ternary(packed, *, K):
    return unpack(unpack_ternary_kernel, packed, K)


@implements(ops.unpack_trits)
def unpack_trits(packed, *, K):
    return unpack(unpack_trits_kernel, packed, K)


def unpack(kernel, packed, digits):
    w = torch.empty((*packed.shape[:-1], digits), dtype=torch.int8, device=packed.device)
    return elementwise(kernel, w, packed, digits=digits, bytes_a_row=packed.shape[-1])


@triton.jit
def unpack_ternary_kernel(w_pointer, packed_pointer, size, digits, bytes_a_row, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, k = offset // digits, offset % digits
    byte = tl.load(packed_pointer + row * bytes_a_row + k // 4, mask=offset < size, other=0).to(tl.int32)
    code = (byte >> (k % 4 * 2).to(tl.int32)) & 3
    tl.store(w_pointer + offset, ((code ^ 2) - 2).to(tl.int8), mask=offset < size)


@triton.jit
def unpack_trits_kernel(w_pointer, packed_pointer, size, digits, bytes_a_row, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, k = offset // digits, offset % digits
    rest = tl.load(packed_pointer + row * bytes_a_row + k // 5, mask=offset < size, other=0).to(tl.int32)
    for i in tl.static_range(4):
        rest = tl.where(k % 5 > i, rest // 3, rest)
    tl.store(w_pointer + offset, (rest % 3 - 1).to(tl.int8), mask=offset < size)


__all__ = ["pack_ternary", "pack_trits", "unpack_ternary", "unpack_trits"]
