"""Quantised rows times ternary weights: additions and subtractions, then one rounding."""

from __future__ import annotations

import numpy as np

from .. import integers
from ..arrays import Int8Array, Int16Array, Int32Array, UInt8Array
from ..bounds import Interval, Width
from ..contract import PackedTernary, Parameter, Tensor, op
from .packing import unpack_ternary

ACTIVATION = Interval.signed(16)
QUANTISED = Interval.signed(8)
LARGEST_ROW = 2**20
EXPONENT = Interval(0, 15)


def quantised_widths(row: Width):
    """Return the widths of quantising rows whose elements have the given one."""
    largest = row.range.magnitude()
    rounded = Interval(max(row.range.low, -128), min(row.range.high, 128))
    # Between 128 and the largest int16, which elements exist decides what their row's exponent leaves of them.
    attained = row.attained and (largest.high < 128 or row.range == ACTIVATION)
    return {
        "maximum": Width(largest, "int32", row.attained),
        "e": Width(Interval(0, max(largest.high.bit_length() - 7, 0)), "int32", row.attained),
        "rounded": Width(rounded, "int32", attained),
        "q": Width(rounded.saturate(8), "int8", attained),
    }


@op(
    inputs=(Tensor("x", "int16", "... K", meaning="any Q format"),),
    outputs=(
        Tensor("q", "int8", "... K", meaning="x over 2**e"),
        Tensor("e", "int32", "...", low=0, high=8, meaning="the row's exponent"),
    ),
    sizes={"K": (1, LARGEST_ROW)},
    clauses={
        "C1": "e = max(0, bit_length(max |x|) - 7): the least e >= 0 with |x| < 2**(e + 7)",
        "C2": "q = x / 2**e to the nearest integer, ties toward plus infinity",
        "C3": "q is saturated to [-127, 127]",
    },
    widths=lambda at: quantised_widths(Width(ACTIVATION, "int16")),
)
def quantize_rows(x: Int16Array, /) -> tuple[Int8Array, Int32Array]:
    """Quantise rows to int8 with one power of two per row: ``x ~ q * 2**e``.

    ``e`` is the least exponent with ``|x| < 2**(e + 7)`` in the row (C1), and ``q = saturate(shift_round(x, e), 8)``
    (C2, C3).

    Examples
    --------
    >>> q, e = quantize_rows(np.array([[100, -3], [1000, -20]], np.int16))
    >>> q.tolist(), e.tolist()
    ([[100, -3], [125, -2]], [0, 3])
    """
    wide = x.astype(np.int64)
    maximum = np.abs(wide).max(axis=-1)
    e = np.maximum(integers.bit_length(maximum) - 7, 0)
    # ROUND
    rounded = integers.shift_round(wide, e[..., None])
    # SATURATE
    return integers.saturate(rounded, 8).astype(np.int8), e.astype(np.int32)


def requantize_widths(at):
    # The widest input type stands for both.
    wide = Interval.signed(32)
    return {
        "rounded": Width(wide.shift_round(at.shift), "int64"),
        "q": Width(wide.shift_round(at.shift).saturate(8), "int8"),
    }


@op(
    inputs=(Tensor("x", ("int32", "int16"), "...", meaning="any Q format"),),
    outputs=(Tensor("q", "int8", "...", meaning="x over 2**shift"),),
    parameters=(Parameter("shift", 0, 31, "fraction bits that are dropped"),),
    clauses={
        "C1": "q = x / 2**shift to the nearest integer, ties toward plus infinity",
        "C2": "q is saturated to [-127, 127]",
    },
    widths=requantize_widths,
)
def requantize(x: Int32Array | Int16Array, /, *, shift: int) -> Int8Array:
    """Quantise to int8 in a static format: ``q = saturate(shift_round(x, shift), 8)``.

    Examples
    --------
    >>> requantize(np.array([5, 6, -6, 9999], np.int16), shift=2).tolist()
    [1, 2, -1, 127]
    """
    # ROUND
    rounded = integers.shift_round(x.astype(np.int64), shift)
    # SATURATE
    return integers.saturate(rounded, 8).astype(np.int8)


def ternary_linear_widths(at):
    accumulator = (QUANTISED * Interval(-1, 1)).sum(at.K)
    scaled = accumulator * at.num
    aligned = scaled.union(scaled << EXPONENT.high)
    rounded_sum = aligned.shift_round(at.shift)
    return {
        "accumulator": Width(accumulator, "int32"),
        "scaled": Width(scaled, "int64"),
        "aligned": Width(aligned, "int64"),
        "rounded_sum": Width(rounded_sum, "int64"),
        "y": Width(rounded_sum.saturate(16), "int16"),
    }


def ternary_linear_requant_widths(at):
    linear = ternary_linear_widths(at)
    return linear | quantised_widths(linear["y"])


SCALE = (
    Parameter("num", 1, 2**15 - 1, "numerator of the weights' scale"),
    Parameter("shift", 0, 47, "the scale is num / 2**shift"),
)
QUANTISED_ROWS = (
    Tensor("q", "int8", "... K", meaning="rows as quantize_rows gives them"),
    Tensor("e", "int32", "...", low=EXPONENT.low, high=EXPONENT.high, meaning="row exponents"),
    PackedTernary("w", "uint8", "N K/4", meaning="ternary weights as pack_ternary gives them"),
)


@op(
    inputs=QUANTISED_ROWS,
    outputs=(Tensor("y", "int16", "... N", meaning="the Q format of q * 2**e times the scale"),),
    parameters=SCALE,
    sizes={"K": (1, LARGEST_ROW)},
    clauses={
        "C1": "a[n] = sum over k of q[k] * w[n, k], exactly: additions and subtractions alone",
        "C2": "y = a * 2**e * num / 2**shift to the nearest integer, ties toward plus infinity, one rounding",
        "C3": "y is saturated to [-32767, 32767]",
    },
    widths=ternary_linear_widths,
)
def ternary_linear(q: Int8Array, e: Int32Array, w: UInt8Array, /, *, num: int, shift: int) -> Int16Array:
    """Multiply quantised rows by ternary weights, by additions alone: ``y = (q * 2**e) @ w.T * num / 2**shift``.

    The sum (C1) is exact in int32, so its order is free. The row's exponent and the weights' Dyadic scale are applied
    in one rounding, ``shift_round((a * num) << e, shift)`` (C2), saturated to 16 bits (C3).

    Notes
    -----
    The weights are those of BitNet b1.58 (S. Ma et al., "The era of 1-bit LLMs", 2024).

    Examples
    --------
    >>> w = pack_ternary(np.array([[1, -1, 0], [1, 1, 1]], np.int8))
    >>> ternary_linear(np.array([[10, 3, 5]], np.int8), np.array([1], np.int32), w, num=1, shift=1).tolist()
    [[7, 18]]
    """
    # ACCUMULATE
    digits = unpack_ternary.golden(w, K=q.shape[-1]).astype(np.int64)
    accumulator = q.astype(np.int64) @ digits.T
    # ROUND
    aligned = (accumulator * num) << e.astype(np.int64)[..., None]
    rounded_sum = integers.shift_round(aligned, shift)
    # SATURATE
    return integers.saturate(rounded_sum, 16).astype(np.int16)


@op(
    inputs=QUANTISED_ROWS,
    outputs=(
        Tensor("r", "int8", "... N", meaning="y over 2**s"),
        Tensor("s", "int32", "...", low=0, high=8, meaning="the row's exponent"),
    ),
    parameters=SCALE,
    sizes={"K": (1, LARGEST_ROW), "N": (1, LARGEST_ROW)},
    clauses={"C1": "(r, s) = quantize_rows(ternary_linear(q, e, w))"},
    widths=ternary_linear_requant_widths,
    composed_of=("ternary_linear", "quantize_rows"),
)
def ternary_linear_requant(
    q: Int8Array, e: Int32Array, w: UInt8Array, /, *, num: int, shift: int
) -> tuple[Int8Array, Int32Array]:
    """Multiply quantised rows by ternary weights and quantise the result again: ``quantize_rows(ternary_linear)``.

    Exactly ``quantize_rows(ternary_linear(q, e, w, num=num, shift=shift))`` (C1).

    Examples
    --------
    >>> w = pack_ternary(np.array([[1, -1, 0], [1, 1, 1]], np.int8))
    >>> r, s = ternary_linear_requant(np.array([[10, 3, 5]], np.int8), np.array([6], np.int32), w, num=1, shift=0)
    >>> r.tolist(), s.tolist()
    ([[28, 72]], [4])
    """
    return quantize_rows.golden(ternary_linear.golden(q, e, w, num=num, shift=shift))


__all__ = ["quantize_rows", "requantize", "ternary_linear", "ternary_linear_requant"]
