"""Triton versions of ``spec.ops.loss``: one program per row, which it reads tile by tile."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import loss as golden

from . import integers
from .launch import launch

ONE = tl.constexpr(golden.ONE)
SLOPE = tl.constexpr(golden.SLOPE)
CURVE = tl.constexpr(golden.CURVE)

LARGEST_TILE = 4096
LARGEST_SUM = 1 << 16  # elements, whose weights' sum is 2**32


def tile(size):
    """Return the launch constants of a program that walks a row of ``size`` elements."""
    block = min(triton.next_power_of_2(size), LARGEST_TILE)
    return {"BLOCK": block, "num_warps": max(1, min(8, block // 256))}


def weighing_tile(size, least=1):
    """Return those of one that sums weights, of a tile of ``least`` elements: whether tiles are full, sums 2**32."""
    constants = tile(max(size, least))
    return constants | {"EVEN": size % constants["BLOCK"] == 0, "WIDE": size >= LARGEST_SUM}


@triton.jit
def pow2_weights(d, f: tl.constexpr):
    fraction = d & ((1 << f) - 1)
    mantissa = ONE - ((SLOPE * fraction) >> f) + ((CURVE * fraction * fraction) >> (2 * f))
    return mantissa >> tl.minimum(d >> f, 31)


@triton.jit
def load_logits(logits_pointer, index, V, EVEN: tl.constexpr = False):
    """Load logits; beyond the row they are less than any logit."""
    if EVEN:
        return tl.load(logits_pointer + index).to(tl.int32)
    else:
        return tl.load(logits_pointer + index, mask=index < V, other=-32768).to(tl.int32)


@triton.jit
def row_maximum(logits_pointer, V, BLOCK: tl.constexpr, EVEN: tl.constexpr = False):
    best = tl.full([BLOCK], -32768, tl.int32)
    for start in range(0, V, BLOCK):
        best = tl.maximum(best, load_logits(logits_pointer, start + tl.arange(0, BLOCK), V, EVEN))
    return tl.max(best)


@triton.jit
def weight_sum(logits_pointer, best, V, f: tl.constexpr, BLOCK: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr):
    """Return the sum of a row's weights: in int64, WIDE says that it may be 2**32."""
    total = tl.zeros([BLOCK], tl.int32)
    for start in range(0, V, BLOCK):
        index = start + tl.arange(0, BLOCK)
        weight = pow2_weights(best - load_logits(logits_pointer, index, V, EVEN), f)
        total += weight if EVEN else tl.where(index < V, weight, 0)
    if WIDE:
        return tl.sum(total.to(tl.int64))
    else:
        return tl.sum(total.to(tl.uint32)).to(tl.int64)


@triton.jit
def row_statistics(logits_pointer, V, f: tl.constexpr, BLOCK: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr):
    """Return a row's maximum and the sum of its weights."""
    best = row_maximum(logits_pointer, V, BLOCK, EVEN)
    return best, weight_sum(logits_pointer, best, V, f, BLOCK, EVEN, WIDE)


@implements(ops.softmax_pow2)
def softmax_pow2(logits, *, f, q):
    p = torch.empty(logits.shape, dtype=torch.int32, device=logits.device)
    v = logits.shape[-1]
    launch(softmax_pow2_kernel, p.numel() // v, (p,), (logits,), v, f=f, q=q, **weighing_tile(v))
    return p


@triton.jit
def softmax_pow2_kernel(
    p_pointer,
    logits_pointer,
    V,
    f: tl.constexpr,
    q: tl.constexpr,
    BLOCK: tl.constexpr,
    EVEN: tl.constexpr,
    WIDE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * V
    best, total = row_statistics(logits_pointer + row, V, f, BLOCK, EVEN, WIDE)
    for start in range(0, V, BLOCK):
        index = start + tl.arange(0, BLOCK)
        weight = pow2_weights(best - load_logits(logits_pointer + row, index, V, EVEN), f).to(tl.int64)
        p = ((weight << q) + (total >> 1)) // total
        tl.store(p_pointer + row + index, p.to(tl.int32), mask=index < V)


@triton.jit
def log2_q16(total):
    """Logarithm in Q.16 of an int64 of [2**16, 2**32]."""
    log = tl.full([], 16, tl.int64)
    for power in tl.static_range(17, 33):
        log += (total >> power > 0).to(tl.int64)
    mantissa = (total << 14) >> (log - 16)
    for _ in tl.static_range(16):
        square = (mantissa * mantissa) >> 30
        bit = square >> 31
        mantissa = square >> bit
        log = (log << 1) + bit
    return log


@implements(ops.cross_entropy_pow2)
def cross_entropy_pow2(logits, target, *, f):
    loss = torch.empty(target.shape, dtype=torch.int32, device=logits.device)
    v = logits.shape[-1]
    launch(cross_entropy_pow2_kernel, loss.numel(), (loss,), (logits, target), v, f=f, **weighing_tile(v))
    return loss


@triton.jit
def cross_entropy_pow2_kernel(
    loss_pointer,
    logits_pointer,
    target_pointer,
    V,
    f: tl.constexpr,
    BLOCK: tl.constexpr,
    EVEN: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    row = program * V
    best, total = row_statistics(logits_pointer + row, V, f, BLOCK, EVEN, WIDE)
    target = tl.load(target_pointer + program)
    distance = (best - tl.load(logits_pointer + row + target).to(tl.int32)).to(tl.int64)
    loss = (distance << (16 - f)) + log2_q16(total) - (16 << 16)
    tl.store(loss_pointer + program, integers.saturate(loss, 32).to(tl.int32))


__all__ = ["cross_entropy_pow2", "softmax_pow2"]
