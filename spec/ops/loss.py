"""Base-2 softmax and cross-entropy: the integer part of an exponent is a shift, its fraction a small polynomial."""

from __future__ import annotations

import numpy as np

from .. import integers
from ..arrays import Int16Array, Int32Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op

VOCABULARY = (1, 1 << 16)
FARTHEST = 2 * Interval.signed(16).high

# 2**-x = 1 - SLOPE x + CURVE x**2 in Q.16: exact at 0 and 1, within 1/313 of the truth between.
ONE = 1 << 16
SLOPE = 44025
CURVE = 11257


def pow2_weights(d, f):
    """Return about ``2**(16 - d / 2**f)`` for ``0 <= d < 2**31`` in Q.f, f in [0, 8]; it never rises with d.

    The quadratic of the fraction is within 1/313 of the truth; shifting it by the integer part rounds down.
    """
    fraction = d & ((1 << f) - 1)
    mantissa = ONE - ((SLOPE * fraction) >> f) + ((CURVE * fraction * fraction) >> (2 * f))
    return mantissa >> np.minimum(d >> f, 31)


def log2_q16(total):
    """Return ``log2(total)`` in Q.16, rounded down, for ``2**16 <= total <= 2**32``.

    The mantissa, in Q.30, is squared 16 times; each square that reaches 2 is halved and gives a one bit. It stays
    below 2**31, so its square below 2**62. Truncation can only lower it: the logarithm is too small by less than
    ``2**-16 + 2**-28``.
    """
    log = integers.bit_length(total) - 1
    mantissa = (total << 14) >> (log - 16)
    for _ in range(16):
        square = (mantissa * mantissa) >> 30
        bit = square >> 31
        mantissa = square >> bit
        log = (log << 1) + bit
    return log


def distance_range(v: int) -> Interval:
    """Return the range of ``max(logits) - logits``; one logit alone is its own maximum."""
    return Interval(0, FARTHEST if v > 1 else 0)


def weight_range(distance: Interval, f: int) -> Interval:
    low, high = pow2_weights(np.array([distance.high, distance.low], np.int64), f).tolist()
    return Interval(low, high)


def weight_sum_range(weight: Interval, count: int) -> Interval:
    """Return the range of the sum of ``count`` weights, the first of which is that of the maximum."""
    return Interval(ONE + (count - 1) * weight.low, count * ONE)


def log_of(total: int) -> int:
    return int(log2_q16(np.int64(total)))


def softmax_pow2_widths(at):
    distance = distance_range(at.V)
    weight = weight_range(distance, at.f)
    total = weight_sum_range(weight, at.V)
    numerator = (weight << at.q) + Interval(total.low >> 1, total.high >> 1)
    return {
        "distance": Width(distance, "int32"),
        "weight": Width(weight, "int32"),
        "sum": Width(total, "int64"),
        "numerator": Width(numerator, "int64"),
        "p": Width(Interval(0 if at.V > 1 else 1 << at.q, 1 << at.q), "int32"),
    }


@op(
    inputs=(Tensor("logits", "int16", "... V", meaning="logits to the base 2, Q.f: one more doubles the probability"),),
    outputs=(Tensor("p", "int32", "... V", 0, "2**q", "probabilities, Q.q"),),
    parameters=(
        Parameter("f", 0, 8, "fraction bits of logits"),
        Parameter("q", 1, 30, "fraction bits of p"),
    ),
    sizes={"V": VOCABULARY},
    clauses={
        "C1": "d = max(logits) - logits over the row",
        "C2": "e = (65536 - floor(44025 r / 2**f) + floor(11257 r*r / 4**f)) >> min(d >> f, 31), r = d mod 2**f",
        "C3": "p = floor(e * 2**q / S + 1/2), S the sum of e, one floor division of e * 2**q + floor(S/2)",
    },
    widths=softmax_pow2_widths,
)
def softmax_pow2(logits: Int16Array, /, *, f: int, q: int) -> Int32Array:
    """Apply the softmax to the base 2 along rows: ``p = 2**logits / sum(2**logits)``, in Q.q.

    With the distances ``d`` to the row's maximum (C1) and their weights ``e = pow2_weights(d)`` (C2),
    ``p = floor((e * 2**q + floor(S / 2)) / S)`` (C3). A row's probabilities sum to ``2**q`` within V/2.

    Notes
    -----
    The weights' quadratic meets 2**-x at 0 and 1 and is within 1/313 of it between; a weight below
    2**-16 of the greatest is zero.

    Examples
    --------
    >>> softmax_pow2(np.array([256, 0, 0, -32767], np.int16), f=8, q=8).tolist()
    [128, 64, 64, 0]
    """
    # ACCUMULATE
    wide = logits.astype(np.int64)
    weight = pow2_weights(wide.max(axis=-1, keepdims=True) - wide, f)
    total = weight.sum(axis=-1, keepdims=True)
    # ROUND
    p = integers.floor_div((weight << q) + (total >> 1), total)
    return p.astype(np.int32)


def cross_entropy_pow2_widths(at):
    distance = distance_range(at.V)
    weight = weight_range(distance, at.f)
    total = weight_sum_range(weight, at.V)
    distance_bits = distance << (16 - at.f)
    # A target so far away weighs nothing, and all the others may share the maximum.
    farthest = distance_bits.high + log_of(max(at.V - 1, 1) * ONE) - (16 << 16)
    loss = Interval(0, farthest)
    return {
        "distance": Width(distance, "int32"),
        "weight": Width(weight, "int32"),
        "sum": Width(total, "int64"),
        "log": Width(Interval(log_of(total.low), log_of(total.high)), "int32"),
        "distance_bits": Width(distance_bits, "int64"),
        "bits": Width(loss, "int64"),
        "loss": Width(loss.saturate(32), "int32"),
    }


@op(
    inputs=(
        Tensor("logits", "int16", "... V", meaning="logits to the base 2, Q.f: one more doubles the probability"),
        Tensor("target", "int32", "...", low=0, high="V - 1", meaning="the right token"),
    ),
    outputs=(Tensor("loss", "int32", "...", 0, meaning="bits, Q.16"),),
    parameters=(Parameter("f", 0, 8, "fraction bits of logits"),),
    sizes={"V": VOCABULARY},
    clauses={
        "C1": "S is the sum of the weights of softmax_pow2",
        "C2": "L = log2(S) in Q.16 by 16 squarings of the mantissa in Q.30, each truncated",
        "C3": "loss = d[target] * 2**(16-f) + L - 16 * 2**16",
        "C4": "loss is saturated to 2**31 - 1, which is 32768 bits",
    },
    widths=cross_entropy_pow2_widths,
)
def cross_entropy_pow2(logits: Int16Array, target: Int32Array, /, *, f: int) -> Int32Array:
    """Compute the cross-entropy of targets in bits: ``loss = -log2(softmax_pow2(logits)[target])``, in Q.16.

    With ``S`` the sum of the row's weights (C1) and ``L`` its logarithm in Q.16 (C2),
    ``loss = (d[target] << (16 - f)) + L - (16 << 16)`` (C3), saturated to 32 bits (C4). The distance enters
    itself, not through its weight, so that a target of weight zero still has its full loss. The loss is at least 0.

    Notes
    -----
    ``L`` is too small by less than ``2**-16 + 2**-28`` bits. Saturation needs f <= 1 and a target 32768 bits away.
    The logarithm by repeated squaring: D. E. Knuth, The Art of Computer Programming 1, section 1.2.2.

    Examples
    --------
    >>> logits = np.array([[256, 0, 0, -32767]] * 3, np.int16)
    >>> cross_entropy_pow2(logits, np.array([0, 1, 3], np.int32), f=8).tolist()
    [65536, 131072, 8519424]
    """
    # ACCUMULATE
    wide = logits.astype(np.int64)
    distance = wide.max(axis=-1, keepdims=True) - wide
    total = pow2_weights(distance, f).sum(axis=-1)
    target_distance = np.take_along_axis(distance, target[..., None].astype(np.int64), axis=-1)[..., 0]
    # ROUND
    loss = (target_distance << (16 - f)) + log2_q16(total) - (16 << 16)
    # SATURATE
    return integers.saturate(loss, 32).astype(np.int32)


__all__ = ["cross_entropy_pow2", "softmax_pow2"]
