"""Torch versions of ``spec.ops.residual``."""

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.integers import RESIDUAL_BITS

from . import integers


@implements(ops.residual_add)
def residual_add(r, x, *, num, shift):
    return integers.saturate(r + integers.shift_round(x.int() * num, shift), RESIDUAL_BITS)


__all__ = ["residual_add"]
