"""Torch versions of ``spec.ops.loss_backward``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops.loss_backward import CERTAIN, FRACTION_BITS

from . import integers
from .loss import distances, pow2_weights
from .philox import rounding_words


@implements(ops.cross_entropy_pow2_backward)
def cross_entropy_pow2_backward(logits, target, *, f, seed, step, stream, first):
    rows, v = target.numel(), logits.shape[-1]
    weight = pow2_weights(distances(logits.reshape(rows, v)), f).long()
    total = weight.sum(dim=-1, keepdim=True)
    words = rounding_words(rows, v, seed, step, stream, first, logits.device)
    dither = ((words >> 1) * total) >> 31
    p = torch.div((weight << FRACTION_BITS) + dither, total, rounding_mode="floor")
    at_target = torch.arange(v, device=logits.device) == target.reshape(rows, 1)
    return integers.saturate(p - CERTAIN * at_target, 16).to(torch.int16).reshape(logits.shape)


__all__ = ["cross_entropy_pow2_backward"]
