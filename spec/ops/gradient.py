"""Gradients between the backward ops: their sums, their magnitudes, and their rounding to fewer bits."""

from __future__ import annotations

from math import prod

import numpy as np

from .. import integers
from ..arrays import Int8Array, Int16Array, Int32Array, Int64Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, VaryingResult, op
from ..philox import MASK, rounding_words
from .linear import LARGEST_ROW

ACTIVATION_GRADIENT = Interval.signed(16)
WORD = Interval.signed(32)
# Sums of weight gradients, in int64: two of them can be added.
GRADIENT_BITS = 63
GRADIENT = Interval.signed(GRADIENT_BITS)
LARGEST_EXPONENT = 15
LARGEST_ROUNDING = 24
FIRST_ROW = "number of the first row in the whole batch; (first + rows) * ceil(K / 4) is at most 2**32"


@op(
    inputs=(
        Tensor("a", "int16", "...", meaning="a gradient of x"),
        Tensor("b", "int16", "...", meaning="another gradient of x, at the same exponent"),
    ),
    outputs=(Tensor("y", "int16", "...", meaning="the sum of both"),),
    clauses={"C1": "y = a + b, saturated to [-32767, 32767]"},
    widths=lambda at: {
        "sum": Width(ACTIVATION_GRADIENT + ACTIVATION_GRADIENT, "int32"),
        "y": Width(ACTIVATION_GRADIENT, "int16"),
    },
)
def saturating_add(a: Int16Array, b: Int16Array, /) -> Int16Array:
    """Add two gradients of one activation and saturate: ``y = saturate(a + b, 16)`` (C1).

    Examples
    --------
    >>> saturating_add(np.array([100, 32767], np.int16), np.array([-3, 9], np.int16)).tolist()
    [97, 32767]
    """
    # ACCUMULATE
    total = a.astype(np.int64) + b.astype(np.int64)
    # SATURATE
    return integers.saturate(total, 16).astype(np.int16)


@op(
    inputs=(
        Tensor("a", "int64", "...", low=GRADIENT.low, high=GRADIENT.high, meaning="sum over the batches so far"),
        Tensor("b", "int64", "...", low=GRADIENT.low, high=GRADIENT.high, meaning="sum over one more batch"),
    ),
    outputs=(Tensor("y", "int64", "...", meaning="the sum of both"),),
    clauses={"C1": "y = a + b, exactly: batches may be summed in any order"},
    widths=lambda at: {"y": Width(GRADIENT + GRADIENT, "int64")},
)
def gradient_add(a: Int64Array, b: Int64Array, /) -> Int64Array:
    """Add two weight gradients exactly, ``y = a + b`` (C1): of micro-batches, or of the ranks of a parallel run.

    The sum never saturates, for then the order of summation would matter. A sum that reaches 2**62 is no input again.

    Examples
    --------
    >>> gradient_add(np.array([5, -(2**40)]), np.array([-7, 1])).tolist()
    [-2, -1099511627775]
    """
    # ACCUMULATE
    return a + b


@op(
    inputs=(Tensor("x", ("int64", "int32", "int16", "int8"), "...", meaning="any array"),),
    outputs=(Tensor("y", "int64", "1", low=0, meaning="the greatest magnitude"),),
    clauses={"C1": "y is the greatest |x|; 0 if there is no x"},
    widths=lambda at: {"y": Width(Interval(0, Interval.signed(64).high), "int64")},
)
def largest_magnitude(x: Int64Array | Int32Array | Int16Array | Int8Array, /) -> Int64Array:
    """Find the greatest absolute value of an array (C1), from which exponents follow.

    Examples
    --------
    >>> largest_magnitude(np.array([[3, -32767], [5, 0]], np.int16)).tolist()
    [32767]
    """
    magnitude = np.abs(x.astype(np.int64))
    return magnitude.max(initial=0).reshape(1)


def round_to_int16_widths(at):
    rounded = WORD.shift_even(at.shift)
    return {"rounded": Width(rounded, "int32"), "y": Width(rounded.saturate(16), "int16")}


@op(
    inputs=(Tensor("x", "int32", "...", meaning="Q.f"),),
    outputs=(Tensor("y", "int16", "...", meaning="Q.(f - shift)"),),
    parameters=(Parameter("shift", 0, 31, "fraction bits that are dropped"),),
    clauses={
        "C1": "y = x / 2**shift to the nearest integer, ties to the even one",
        "C2": "y is saturated to [-32767, 32767]",
    },
    widths=round_to_int16_widths,
)
def round_to_int16(x: Int32Array, /, *, shift: int) -> Int16Array:
    """Round gradients or master weights to int16: ``y = saturate(shift_even(x, shift), 16)`` (C1, C2).

    Examples
    --------
    >>> round_to_int16(np.array([5, 6, 10, -6, 999999], np.int32), shift=2).tolist()
    [1, 2, 2, -2, 32767]
    """
    # ROUND
    rounded = integers.shift_even(x.astype(np.int64), shift)
    # SATURATE
    return integers.saturate(rounded, 16).astype(np.int16)


def saturate_backward_widths(at):
    rounded = WORD.shift_even(at.shift)
    return {"rounded": Width(rounded, "int32"), "dx": Width(rounded.saturate(16), "int16")}


@op(
    inputs=(
        Tensor("dy", ("int32", "int16"), "...", meaning="gradient of y, times 2**G"),
        Tensor("y", ("int16", "int8"), "...", meaning="a result that was saturated to its type's range"),
    ),
    outputs=(Tensor("dx", "int16", "...", meaning="gradient of what was saturated, times 2**(G - shift)"),),
    parameters=(Parameter("shift", 0, 31, "bits that the gradient loses"),),
    clauses={
        "C1": "e = dy / 2**shift to the nearest integer, ties to the even one, saturated to [-32767, 32767]",
        "C2": "dx = max(e, 0) where y is the greatest of its type, min(e, 0) where it is the least, e elsewhere",
    },
    widths=saturate_backward_widths,
    backward_of="saturate",
)
def saturate_backward(dy: Int32Array | Int16Array, y: Int16Array | Int8Array, /, *, shift: int) -> Int16Array:
    """Compute the gradient of a saturated value: dy rounded to 16 bits (C1), 0 where it pushes past an end (C2).

    Inside the range the derivative is one. At an end of the range, only a gradient that moves the value inside passes
    (C2): descent goes against the gradient.

    Notes
    -----
    If all gradients passed, a value beyond its range would be pushed on for ever: its size there doesn't change the
    loss. If no gradient passed, the value would stay there.

    Examples
    --------
    >>> saturate_backward(np.array([6, 6, -6, 6], np.int32), np.array([0, 127, 127, -127], np.int8), shift=1).tolist()
    [3, 3, 0, 0]
    """
    limit = np.iinfo(y.dtype).max
    # ROUND
    rounded = integers.shift_even(dy.astype(np.int64), shift)
    # SATURATE
    e = integers.saturate(rounded, 16)
    dx = np.where((y == limit) & (e < 0) | (y == -limit) & (e > 0), 0, e)
    return dx.astype(np.int16)


def stochastic_round_rows_widths(at):
    scaled = ACTIVATION_GRADIENT.union(ACTIVATION_GRADIENT << LARGEST_EXPONENT)
    noise = Interval(0, (1 << at.shift) - 1)
    raised = scaled + noise
    rounded = raised >> at.shift
    blocks, rows = -(-at.K // 4), prod(at.leading)
    exact = at.shift <= LARGEST_EXPONENT  # the largest gradient is a multiple of what is dropped
    return {
        "counter": Width(Interval(0, max(rows * blocks - 1, 0)) + at.first * blocks, "uint32"),
        "scaled": Width(scaled, "int32"),
        # Which words there are decides how near these come to their bounds.
        "noise": Width(noise, "int32", attained=at.shift == 0),
        "raised": Width(raised, "int32", attained=at.shift == 0),
        "rounded": Width(rounded, "int32", attained=exact),
        "y": Width(rounded.saturate(at.bits), "int16", attained=exact or rounded.high >= 1 << (at.bits - 1)),
    }


@op(
    inputs=(
        Tensor("x", "int16", "... K", meaning="gradients, any exponent"),
        Tensor(
            "e",
            "int32",
            "...",
            low=0,
            high=LARGEST_EXPONENT,
            meaning="exponents of the factors 2**e: for gradients of weights those of the layer's rows, else zeros",
        ),
    ),
    outputs=(
        VaryingResult(
            "y",
            ("int16", "int8"),
            "... K",
            meaning="int8 if bits is at most 8",
            select=lambda at: "int8" if at.bits <= 8 else "int16",
        ),
    ),
    parameters=(
        Parameter("shift", 0, LARGEST_ROUNDING, "bits that are dropped"),
        Parameter("bits", 2, 16, "width of the result"),
        Parameter("seed", 0, 2**64 - 1, "key of the stochastic rounding"),
        Parameter("step", 0, MASK, "step of the training run"),
        Parameter("stream", 0, MASK, "number of this tensor among those that are rounded in a step"),
        Parameter("first", 0, MASK, FIRST_ROW, numbers_rows=True),
    ),
    sizes={"K": (1, LARGEST_ROW)},
    clauses={
        "C1": "y = floor((x * 2**e + u) / 2**shift), u = w mod 2**shift, w the element's rounding word",
        "C2": "y is saturated to [-(2**(bits-1) - 1), 2**(bits-1) - 1]",
        "C3": "the word of element k of row r is word k mod 4 of Philox counter"
        " ((first + r) * ceil(K/4) + floor(k/4), step, stream, 3) under the key seed",
    },
    widths=stochastic_round_rows_widths,
)
def stochastic_round_rows(
    x: Int16Array, e: Int32Array, /, *, shift: int, bits: int, seed: int, step: int, stream: int, first: int
) -> Int16Array | Int8Array:
    """Round rows to ``bits`` bits stochastically: ``x * 2**e / 2**shift``, up with probability equal to its fraction.

    A uniform u below ``2**shift`` is added before the shift (C1); the result is saturated (C2). A row's words belong to
    its number in the whole batch, which may be cut anywhere (C3).

    Notes
    -----
    Without saturation, the mean of y over all words is exactly ``x * 2**e / 2**shift``. A multiple of ``2**shift`` is
    never rounded.

    Examples
    --------
    >>> x, e = np.array([[100, -3, 127], [10, -20, 4]], np.int16), np.array([0, 3], np.int32)
    >>> stochastic_round_rows(x, e, shift=3, bits=5, seed=1, step=0, stream=0, first=0).tolist()
    [[12, 0, 15], [10, -15, 4]]
    """
    words = rounding_words(e.size, x.shape[-1], seed=seed, step=step, stream=stream, first=first).astype(np.int64)
    scaled = x.astype(np.int64) << e.astype(np.int64)[..., None]
    # ROUND
    rounded = integers.shift_floor(scaled + (words.reshape(x.shape) & ((1 << shift) - 1)), shift)
    # SATURATE
    return integers.saturate(rounded, bits).astype(np.int8 if bits <= 8 else np.int16)


__all__ = [
    "gradient_add",
    "largest_magnitude",
    "round_to_int16",
    "saturate_backward",
    "saturating_add",
    "stochastic_round_rows",
]
