"""Torch versions of ``spec.ops.sampling``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops.sampling import SAMPLING_DOMAIN
from mamba_integer.spec.philox import MASK

from . import integers
from .loss import distances, pow2_weights
from .philox import philox_words


def first_index(condition):
    """Return the smallest index of each row at which the condition holds; one must exist."""
    index = torch.arange(condition.shape[-1], device=condition.device)
    return torch.where(condition, index, condition.shape[-1]).amin(dim=-1)


@implements(ops.argmax)
def argmax(logits):
    return first_index(logits == logits.amax(dim=-1, keepdim=True)).to(torch.int32)


@implements(ops.philox4x32)
def philox4x32(counter, *, key0, key1):
    c0, c1, c2, c3 = (counter.long() & MASK).unbind(-1)
    words = torch.stack(philox_words(c0, c1, c2, c3, key0, key1), dim=-1)
    return (words - ((words >> 31) << 32)).to(torch.int32)


@implements(ops.sample)
def sample(logits, stream, position, *, seed, f, num, shift, top_k, top_p):
    distance = distances(logits)
    weight = pow2_weights(integers.shift_round(distance * num, shift), f).long()
    order = distance.sort(dim=-1, stable=True).indices[:, :top_k]
    ranked = weight.gather(-1, order)
    running = ranked.cumsum(dim=-1)
    # A token stays unless the prefix before it has the share already.
    before = running - ranked
    ranked = torch.where((before << 16) < top_p * running[:, -1:], ranked, 0)
    cumulative = torch.zeros_like(weight).scatter(-1, order, ranked).cumsum(dim=-1)

    zero = torch.zeros_like(position, dtype=torch.int64)
    counter = position.long(), zero, stream.long(), zero + SAMPLING_DOMAIN
    word = philox_words(*counter, seed & MASK, seed >> 32)[0] >> 1
    u = (word * cumulative[:, -1]) >> 31
    return first_index(cumulative > u[:, None]).to(torch.int32)


__all__ = ["argmax", "philox4x32", "sample"]
