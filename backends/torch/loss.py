"""Torch versions of ``spec.ops.loss``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops.loss import CURVE, ONE, SLOPE

from . import integers


def pow2_weights(d, f):
    fraction = d & ((1 << f) - 1)
    mantissa = ONE - ((SLOPE * fraction) >> f) + ((CURVE * fraction * fraction) >> (2 * f))
    return mantissa >> (d >> f).clamp(max=31)


def distances(logits):
    """Return how far each logit lies below its row's maximum."""
    wide = logits.int()
    return wide.amax(dim=-1, keepdim=True) - wide


@implements(ops.softmax_pow2)
def softmax_pow2(logits, *, f, q):
    weight = pow2_weights(distances(logits), f).long()
    total = weight.sum(dim=-1, keepdim=True)
    return torch.div((weight << q) + (total >> 1), total, rounding_mode="floor").to(torch.int32)


def log2_q16(total):
    log = integers.bit_length(total) - 1
    mantissa = (total << 14) >> (log - 16)
    for _ in range(16):
        square = (mantissa * mantissa) >> 30
        bit = square >> 31
        mantissa = square >> bit
        log = (log << 1) + bit
    return log


@implements(ops.cross_entropy_pow2)
def cross_entropy_pow2(logits, target, *, f):
    distance = distances(logits)
    total = pow2_weights(distance, f).sum(dim=-1)
    target_distance = distance.gather(-1, target.long()[..., None])[..., 0].long()
    loss = (target_distance << (16 - f)) + log2_q16(total) - (16 << 16)
    return integers.saturate(loss, 32).to(torch.int32)


__all__ = ["cross_entropy_pow2", "softmax_pow2"]
