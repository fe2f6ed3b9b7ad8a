"""Torch versions of ``spec.ops.conv_backward``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers


@implements(ops.causal_conv1d_backward)
def causal_conv1d_backward(dy, x, w, bias, state, *, s):
    length = x.shape[1]
    known = torch.cat([state, x], dim=1).int()
    inputs = [known[:, j : j + length] for j in range(4)]
    taps = w.int().unbind(1)
    total = bias.expand(x.shape)
    for tap, value in zip(taps, inputs, strict=True):
        total = total + value * tap
    saturated = integers.shift_round(total, s).abs() > 32767
    g = dy.long().masked_fill(saturated, 0)
    later = torch.nn.functional.pad(g, (0, 0, 0, 3))
    back = sum(later[:, 3 - j : 3 - j + length] * tap for j, tap in enumerate(taps))
    dw = torch.stack([(g * value).sum((0, 1)) for value in inputs], dim=1)
    return integers.saturate(integers.shift_round(back, s), 32).int(), dw, g.sum((0, 1))


__all__ = ["causal_conv1d_backward"]
