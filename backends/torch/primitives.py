"""Torch versions of ``spec.ops.primitives``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers


@implements(ops.shift_round)
def shift_round(x, *, s):
    return integers.shift_round(x.long(), s).to(torch.int32)


@implements(ops.saturate)
def saturate(x, *, bits):
    return integers.saturate(x, bits)


@implements(ops.bit_length)
def bit_length(x):
    return integers.bit_length(x.long()).to(torch.int32)


@implements(ops.isqrt)
def isqrt(v):
    return integers.isqrt(v.long()).to(torch.int32)


__all__ = ["bit_length", "isqrt", "saturate", "shift_round"]
