"""Torch versions of ``spec.ops.optimizer``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import optimizer as golden

from . import integers
from .packing import pack_ternary


@implements(ops.ternary_project)
def ternary_project(w):
    magnitude = w.abs()
    digits = w.sign() * (magnitude.long() * (2 * w.numel()) > magnitude.sum(dtype=torch.int64))
    return pack_ternary.kernel(digits.to(torch.int8))


@implements(ops.lion_update)
def lion_update(w, m, g, *, lr, m_shift, g_up, g_down, low, high, decay):
    down, up = golden.shifts(m_shift)
    momentum = integers.saturate(integers.shift_round(m.long(), down) << up, golden.MOMENTUM_BITS)
    gradient = integers.saturate(integers.shift_round(g, g_down), golden.MOMENTUM_BITS) << g_up
    gradient = integers.saturate(gradient, golden.MOMENTUM_BITS)
    new_m = momentum + integers.shift_round(gradient - momentum, golden.LAG_SHIFT)
    lost = integers.shift_round(w.long() * golden.decay_share(lr, decay), golden.SHARE_BITS)
    total = w - lr * (golden.VOTES * momentum + gradient).sign() - lost
    new_w = total.clamp(low, high)
    return new_w.int(), new_m.int(), (new_w != total).sum().reshape(1)


@implements(ops.learning_rate)
def learning_rate(step, *, peak, last, warmup, total):
    wide = step.long()
    up = integers.round_div(peak * (wide + 1).clamp(max=warmup), max(warmup, 1))
    left = (total - wide).clamp(0, total - warmup)
    down = last + integers.round_div((peak - last) * left, total - warmup)
    return torch.where(wide < warmup, up, down).int()


@implements(ops.gradient_exponent)
def gradient_exponent(exponent, largest, *, bits):
    used = integers.bit_length(largest)
    fall = (largest >= (1 << (bits - 1)) - 1).long()
    rise = torch.where(used > 0, (bits - 1 - used).clamp(min=0) >> 1, 1)
    return (exponent + rise - fall).clamp(golden.GRADIENT_EXPONENT.low, golden.GRADIENT_EXPONENT.high).int()


@implements(ops.momentum_exponent)
def momentum_exponent(exponent, g_exponent, largest_g, largest_m):
    current = exponent.long()
    m_top, g_top = integers.bit_length(largest_m) - current, integers.bit_length(largest_g) - g_exponent
    top = torch.where(largest_m == 0, g_top, torch.where(largest_g == 0, m_top, torch.maximum(m_top, g_top)))
    fitting = torch.minimum(torch.maximum(current, golden.FEWEST_BITS - top), golden.MOST_BITS - top)
    y = torch.where((largest_m == 0) & (largest_g == 0), current, fitting)
    return y.clamp(golden.MOMENTUM_EXPONENT.low, golden.MOMENTUM_EXPONENT.high).int()


__all__ = ["gradient_exponent", "learning_rate", "lion_update", "momentum_exponent", "ternary_project"]
