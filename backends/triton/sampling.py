"""Triton versions of ``spec.ops.sampling``."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import sampling as golden
from mamba_integer.spec.philox import MASK

from . import integers
from .launch import ceil_div, launch
from .loss import load_logits, pow2_weights, row_maximum, tile
from .philox import key_pattern, philox_words

SAMPLING_DOMAIN = tl.constexpr(golden.SAMPLING_DOMAIN)


@implements(ops.argmax)
def argmax(logits):
    token = torch.empty(logits.shape[:-1], dtype=torch.int32, device=logits.device)
    v = logits.shape[-1]
    launch(argmax_kernel, token.numel(), (token,), (logits,), v, **tile(v))
    return token


@triton.jit
def argmax_kernel(token_pointer, logits_pointer, V, BLOCK: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    row = program * V
    best = row_maximum(logits_pointer + row, V, BLOCK)
    first = tl.full([BLOCK], 65536, tl.int32)
    for start in range(0, V, BLOCK):
        index = start + tl.arange(0, BLOCK)
        first = tl.where(load_logits(logits_pointer + row, index, V) == best, tl.minimum(first, index), first)
    tl.store(token_pointer + program, tl.min(first))


PHILOX_BLOCK = 256


@implements(ops.philox4x32)
def philox4x32(counter, *, key0, key1):
    word = torch.empty(counter.shape, dtype=torch.int32, device=counter.device)
    size = word.numel() // 4
    keys = key_pattern(key0), key_pattern(key1)
    launch(philox4x32_kernel, ceil_div(size, PHILOX_BLOCK), (word,), (counter,), *keys, size, BLOCK=PHILOX_BLOCK)
    return word


@triton.jit(do_not_specialize=["key0", "key1"])
def philox4x32_kernel(word_pointer, counter_pointer, key0, key1, size, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < size
    first = counter_pointer + 4 * index
    c0 = tl.load(first, mask=inside, other=0).to(tl.uint32)
    c1 = tl.load(first + 1, mask=inside, other=0).to(tl.uint32)
    c2 = tl.load(first + 2, mask=inside, other=0).to(tl.uint32)
    c3 = tl.load(first + 3, mask=inside, other=0).to(tl.uint32)
    c0, c1, c2, c3 = philox_words(c0, c1, c2, c3, key0, key1)
    first = word_pointer + 4 * index
    tl.store(first, c0.to(tl.int32), mask=inside)
    tl.store(first + 1, c1.to(tl.int32), mask=inside)
    tl.store(first + 2, c2.to(tl.int32), mask=inside)
    tl.store(first + 3, c3.to(tl.int32), mask=inside)


@implements(ops.sample)
def sample(logits, stream, position, *, seed, f, num, shift, top_k, top_p):
    rows, v = logits.shape
    token = torch.empty(rows, dtype=torch.int32, device=logits.device)
    keys = key_pattern(seed & MASK), key_pattern(seed >> 32)
    block = triton.next_power_of_2(v)
    constants = {"f": f, "BLOCK": block, "num_warps": max(1, min(32, block // 512))}
    arrays = (logits, stream, position)
    launch(sample_kernel, rows, (token,), arrays, *keys, num, shift, top_k, top_p, v, **constants)
    return token


@triton.jit
def smallest_threshold(key, weight, target):
    """Smallest T such that the weights of the keys up to T sum to the target or more; all together they must."""
    low = tl.min(key).to(tl.int64)
    high = tl.max(key).to(tl.int64)
    while low < high:
        middle = (low + high) >> 1
        reached = tl.sum(tl.where(key <= middle.to(tl.int32), weight, 0).to(tl.int64)) >= target
        low = tl.where(reached, low, middle + 1)
        high = tl.where(reached, middle, high)
    return high.to(tl.int32)


@triton.jit(do_not_specialize=["key0", "key1", "num", "shift", "top_k", "top_p"])
def sample_kernel(
    token_pointer,
    logits_pointer,
    stream_pointer,
    position_pointer,
    key0,
    key1,
    num,
    shift,
    top_k,
    top_p,
    V,
    f: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, BLOCK)
    logits = load_logits(logits_pointer + row * V, index, V)
    distance = tl.max(logits) - logits
    weight = tl.where(index < V, pow2_weights(integers.shift_round(distance * num, shift), f), 0)

    # Ordered as (distance, index) and distinct: distances reach 2**16, so 2**15 less fits int32.
    key = ((distance - 32768) << 16) | index
    if top_k < V:
        last = smallest_threshold(key, tl.where(index < V, 1, 0), top_k)
        weight = tl.where(key <= last, weight, 0)
    if top_p < 65536:
        target = (tl.sum(weight.to(tl.int64)) * top_p + 65535) >> 16
        last = smallest_threshold(key, weight, target)
        weight = tl.where(key <= last, weight, 0)

    position = tl.load(position_pointer + row).to(tl.uint32)
    stream = tl.load(stream_pointer + row).to(tl.uint32)
    zero = tl.full([], 0, tl.uint32)
    domain = tl.full([], SAMPLING_DOMAIN, tl.uint32)
    word, _, _, _ = philox_words(position, zero, stream, domain, key0, key1)
    u = ((word >> 1).to(tl.int64) * tl.sum(weight.to(tl.int64))) >> 31
    token = smallest_threshold(index, weight, u + 1)
    tl.store(token_pointer + row, token)


__all__ = ["argmax", "philox4x32", "sample"]
