"""Triton versions of ``spec.ops.loss_backward``: one program per row, which it reads tile by tile."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import loss_backward as golden
from mamba_integer.spec.philox import MASK
from mamba_integer.spec.philox import ROUNDING_DOMAIN as DOMAIN

from . import integers
from .launch import launch
from .loss import load_logits, pow2_weights, row_statistics, weighing_tile
from .philox import key_pattern, philox_words

FRACTION_BITS = tl.constexpr(golden.FRACTION_BITS)
CERTAIN = tl.constexpr(golden.CERTAIN)
ROUNDING_DOMAIN = tl.constexpr(DOMAIN)
NARROW_ROW = 1 << 14  # elements: of fewer the weights' sum is below 2**30


@implements(ops.cross_entropy_pow2_backward)
def cross_entropy_pow2_backward(logits, target, *, f, seed, step, stream, first):
    dlogits = torch.empty(logits.shape, dtype=torch.int16, device=logits.device)
    v = logits.shape[-1]
    words = (key_pattern(word) for word in (step, stream, seed & MASK, seed >> 32))
    rows = target.numel()
    launch(cross_entropy_pow2_backward_kernel, rows, (dlogits,), (logits, target), first, *words, v, f=f, **blocks(v))
    return dlogits


def blocks(size):
    """Return the launch constants of a tile that is made of whole blocks of four words."""
    return weighing_tile(size, least=4) | {"NARROW": size < NARROW_ROW}


@triton.jit
def quotient(a, b, reciprocal):
    """Floor of a / b for int64 a >= 0 and b > 0, at most 2**15; reciprocal is that of b in float32.

    Three roundings leave the estimate within 2**-7 of the quotient, so its integer part within one of the floor.
    """
    estimate = (a.to(tl.float32) * reciprocal).to(tl.int64)
    rest = a - estimate * b
    return estimate + tl.where(rest < 0, -1, tl.where(rest >= b, 1, 0))


@triton.jit
def narrow_quotient(a, b, reciprocal):
    """The same for uint32 a and uint32 b below 2**30, so that what an estimate leaves fits int32."""
    estimate = (a.to(tl.float32) * reciprocal).to(tl.int32)
    rest = (a - estimate.to(tl.uint32) * b).to(tl.int32, bitcast=True)
    return estimate + tl.where(rest < 0, -1, tl.where(rest >= b.to(tl.int32), 1, 0))


@triton.jit(do_not_specialize=["first", "step", "stream", "key0", "key1"])
def cross_entropy_pow2_backward_kernel(
    dlogits_pointer,
    logits_pointer,
    target_pointer,
    first,
    step,
    stream,
    key0,
    key1,
    V,
    f: tl.constexpr,
    BLOCK: tl.constexpr,
    EVEN: tl.constexpr,
    WIDE: tl.constexpr,
    NARROW: tl.constexpr,
):
    program, step = tl.program_id(0).to(tl.int64), integers.scalar(step)
    row = program * V
    best, total = row_statistics(logits_pointer + row, V, f, BLOCK, EVEN, WIDE)
    reciprocal = 1.0 / total.to(tl.float32)
    target = tl.load(target_pointer + program)
    first_counter = (integers.scalar(first) + program) * tl.cdiv(V, 4)
    for start in range(0, V, BLOCK):
        counter = (first_counter + start // 4 + tl.arange(0, BLOCK // 4)).to(tl.uint32)
        c2, c3 = tl.zeros_like(counter) + stream.to(tl.uint32), tl.full([BLOCK // 4], ROUNDING_DOMAIN, tl.uint32)
        w0, w1, w2, w3 = philox_words(counter, tl.zeros_like(counter) + step.to(tl.uint32), c2, c3, key0, key1)
        word = tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), [BLOCK])
        index = start + tl.arange(0, BLOCK)
        weight = pow2_weights(best - load_logits(logits_pointer + row, index, V, EVEN), f)
        if NARROW:
            # 2 floor(w / 2) times the sum over 2**32 is floor(w / 2) times it over 2**31.
            narrow_total = total.to(tl.uint32)
            dither = tl.umulhi(word & 0xFFFFFFFE, tl.zeros_like(word) + narrow_total)
            p = narrow_quotient((weight.to(tl.uint32) << FRACTION_BITS) + dither, narrow_total, reciprocal)
        else:
            dither = ((word >> 1).to(tl.int64) * total) >> 31
            p = quotient((weight.to(tl.int64) << FRACTION_BITS) + dither, total, reciprocal)
        difference = tl.where(index == target, p - CERTAIN, p)
        tl.store(dlogits_pointer + row + index, integers.saturate(difference, 16).to(tl.int16), mask=index < V)


__all__ = ["cross_entropy_pow2_backward"]
