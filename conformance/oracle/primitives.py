"""``spec.ops.primitives`` on unbounded integers."""

from . import integers
from .integers import elementwise
from .observe import see


def shift_round(x, *, s):
    return elementwise(lambda x: see("y", integers.shift_round(see("sum", x + 2**s // 2) - 2**s // 2, s)), "int32", x)


def saturate(x, *, bits):
    return elementwise(lambda x: see("y", integers.saturate(x, bits)), "int32", x)


def bit_length(x):
    return elementwise(lambda x: see("y", abs(x).bit_length()), "int32", x)


def isqrt(v):
    return elementwise(lambda v: see("r", integers.isqrt(v)), "int32", v)


__all__ = ["bit_length", "isqrt", "saturate", "shift_round"]
