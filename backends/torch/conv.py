"""Torch versions of ``spec.ops.conv``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers


@implements(ops.causal_conv1d)
def causal_conv1d(x, w, bias, state, *, s):
    length = x.shape[1]
    known = torch.cat([state, x], dim=1)
    total = bias.expand(x.shape)
    for j, tap in enumerate(w.int().unbind(1)):
        total = total + known[:, j : j + length] * tap
    y = integers.saturate(integers.shift_round(total, s), 16).to(torch.int16)
    return y, known[:, length:].clone()


@implements(ops.conv1d_step)
def conv1d_step(x, w, bias, state, *, s):
    y, state = causal_conv1d.kernel(x[:, None], w, bias, state, s=s)
    return y[:, 0], state


__all__ = ["causal_conv1d", "conv1d_step"]
