"""Torch versions of ``spec.ops.residual_backward``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers


@implements(ops.residual_add_backward)
def residual_add_backward(dy, *, num, shift):
    return integers.saturate(integers.shift_round(dy.long() * num, shift), 16).to(torch.int16)


__all__ = ["residual_add_backward"]
