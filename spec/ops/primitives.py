"""The number system as ops, so that a stranger's implementation can be checked from the ground up."""

from __future__ import annotations

import numpy as np

from .. import integers
from ..arrays import Int32Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op

WORD = Interval.signed(32)


def shift_round_widths(at):
    return {
        "sum": Width(WORD + ((1 << at.s) >> 1), "int64"),
        "y": Width(WORD.shift_round(at.s), "int32"),
    }


@op(
    inputs=(Tensor("x", "int32", "..."),),
    outputs=(Tensor("y", "int32", "..."),),
    parameters=(Parameter("s", 0, 31, "shift"),),
    clauses={"C1": "y = floor(x / 2**s + 1/2): ties toward plus infinity, for x of either sign"},
    widths=shift_round_widths,
)
def shift_round(x: Int32Array, /, *, s: int) -> Int32Array:
    """Divide x by ``2**s`` and round to the nearest integer, ties toward plus infinity (C1).

    Examples
    --------
    >>> shift_round(np.array([-3, -2, -1, 1, 2, 3], np.int32), s=1).tolist()
    [-1, -1, 0, 1, 1, 2]
    """
    # ROUND
    return integers.shift_round(x.astype(np.int64), s).astype(np.int32)


@op(
    inputs=(Tensor("x", "int32", "..."),),
    outputs=(Tensor("y", "int32", "...", "-(2**(bits - 1) - 1)", "2**(bits - 1) - 1"),),
    parameters=(Parameter("bits", 2, 32, "width of the result, sign included"),),
    clauses={"C1": "y is the integer of [-(2**(bits-1) - 1), 2**(bits-1) - 1] nearest to x"},
    widths=lambda at: {"y": Width(Interval.signed(at.bits), "int32")},
)
def saturate(x: Int32Array, /, *, bits: int) -> Int32Array:
    """Clamp x to the symmetric range of ``bits`` bits (C1); ``-2**(bits-1)`` never appears.

    Examples
    --------
    >>> saturate(np.array([-128, -127, 128], np.int32), bits=8).tolist()
    [-127, -127, 127]
    """
    # SATURATE
    return integers.saturate(x.astype(np.int64), bits).astype(np.int32)


@op(
    inputs=(Tensor("x", "int32", "..."),),
    outputs=(Tensor("y", "int32", "...", 0, 31),),
    clauses={"C1": "y is the smallest b >= 0 with |x| < 2**b"},
    widths=lambda at: {"y": Width(Interval(0, 31), "int32")},
)
def bit_length(x: Int32Array, /) -> Int32Array:
    """Count the bits of x: the smallest b with ``abs(x) < 2**b`` (C1).

    Examples
    --------
    >>> bit_length(np.array([0, 1, -2, 255, 256], np.int32)).tolist()
    [0, 1, 2, 8, 9]
    """
    return integers.bit_length(x.astype(np.int64)).astype(np.int32)


@op(
    inputs=(Tensor("v", "int32", "...", low=0),),
    outputs=(Tensor("r", "int32", "...", 0, 46340),),
    clauses={"C1": "r is the largest integer with r*r <= v"},
    widths=lambda at: {"r": Width(Interval(0, 46340), "int32")},
)
def isqrt(v: Int32Array, /) -> Int32Array:
    """Compute the integer square root: the largest r with ``r * r <= v`` (C1).

    Notes
    -----
    Newton-Raphson for the reciprocal root, without a table: see `mamba_integer.spec.integers.isqrt`.

    Examples
    --------
    >>> isqrt(np.array([0, 1, 2, 3, 4, 2147483647], np.int32)).tolist()
    [0, 1, 1, 1, 2, 46340]
    """
    # ROUND
    return integers.isqrt(v.astype(np.int64)).astype(np.int32)


__all__ = ["bit_length", "isqrt", "saturate", "shift_round"]
