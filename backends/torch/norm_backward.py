"""Torch versions of ``spec.ops.norm_backward``."""

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops.norm_backward import CUT_BITS, UNIT_BITS, final_shifts

from . import integers
from .norm import row_scale


@implements(ops.bitshift_norm_backward)
def bitshift_norm_backward(x, gamma, dy, dr, *, b, e):
    D = x.shape[-1]
    centred, k, m = row_scale(x, b)
    unit = integers.shift_round((centred * m) << UNIT_BITS, k + b)
    error = dy.long()
    g = integers.shift_round(error * gamma, CUT_BITS)
    mean = integers.round_div(g.sum(dim=-1, keepdim=True), D)
    energy = (unit * unit).sum(dim=-1, keepdim=True)
    divisor = integers.shift_round(energy, UNIT_BITS).clamp(min=1)
    slope = integers.round_div((g * unit).sum(dim=-1, keepdim=True), divisor)
    across = g - mean - integers.shift_round(unit * slope, UNIT_BITS)
    up, down = final_shifts(e)
    update = integers.shift_round((across * m) << up, k + b + down)
    return integers.saturate(dr + update, 32).int(), (error * unit).reshape(-1, D).sum(dim=0)


__all__ = ["bitshift_norm_backward"]
