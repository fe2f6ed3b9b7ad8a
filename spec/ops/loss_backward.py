"""Backward of the cross-entropy: probabilities less the target, each rounded stochastically."""

from __future__ import annotations

from math import prod

import numpy as np

from .. import integers
from ..arrays import Int16Array, Int32Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op
from ..philox import rounding_words
from .loss import VOCABULARY, distance_range, pow2_weights, weight_range, weight_sum_range

FRACTION_BITS = 15
CERTAIN = 1 << FRACTION_BITS
LARGEST_WORD = 2**32 - 1
FIRST_ROW = "number of the first row in the whole batch; (first + rows) * ceil(V / 4) is at most 2**32"


def cross_entropy_pow2_backward_widths(at):
    distance = distance_range(at.V)
    weight = weight_range(distance, at.f)
    total = weight_sum_range(weight, at.V)
    dither = Interval(0, total.high - 1)
    several = at.V > 1
    blocks, rows = -(-at.V // 4), prod(at.leading)
    return {
        "counter": Width(Interval(0, max(rows * blocks - 1, 0)) + at.first * blocks, "uint32"),
        "distance": Width(distance, "int32"),
        "weight": Width(weight, "int32"),
        "sum": Width(total, "int64"),
        # Which sums meet which words decides how near these come to their bounds.
        "dither": Width(dither, "int64", attained=False),
        "numerator": Width((weight << FRACTION_BITS) + dither, "int64", attained=False),
        "p": Width(Interval(0 if several else CERTAIN, CERTAIN), "int32"),
        "difference": Width(Interval.symmetric(CERTAIN if several else 0), "int32"),
        "dlogits": Width(Interval.symmetric(CERTAIN - 1 if several else 0), "int16"),
    }


@op(
    inputs=(
        Tensor("logits", "int16", "... V", meaning="logits to the base 2, Q.f"),
        Tensor("target", "int32", "...", low=0, high="V - 1", meaning="the right token"),
    ),
    outputs=(Tensor("dlogits", "int16", "... V", meaning="gradient of the logits, Q.15, in (-1, 1)"),),
    parameters=(
        Parameter("f", 0, 8, "fraction bits of logits"),
        Parameter("seed", 0, 2**64 - 1, "key of the stochastic rounding"),
        Parameter("step", 0, LARGEST_WORD, "step of the training run"),
        Parameter("stream", 0, LARGEST_WORD, "number of this tensor among those that are rounded in a step"),
        Parameter("first", 0, LARGEST_WORD, FIRST_ROW, numbers_rows=True),
    ),
    sizes={"V": VOCABULARY},
    clauses={
        "C1": "e are the weights of softmax_pow2, S their sum",
        "C2": "u = floor(floor(w / 2) * S / 2**31), w the token's rounding word",
        "C3": "p = floor((e * 2**15 + u) / S)",
        "C4": "dlogits = p - 2**15 at the target, p elsewhere, saturated to [-32767, 32767]",
        "C5": "the word of token n of row r is word n mod 4 of Philox counter"
        " ((first + r) * ceil(V/4) + floor(n/4), step, stream, 3) under the key seed",
    },
    widths=cross_entropy_pow2_backward_widths,
    backward_of="cross_entropy_pow2",
)
def cross_entropy_pow2_backward(
    logits: Int16Array, target: Int32Array, /, *, f: int, seed: int, step: int, stream: int, first: int
) -> Int16Array:
    """Compute the gradient of `cross_entropy_pow2`: ``dlogits = p - onehot(target)``, stochastically rounded to Q.15.

    With the weights ``e = pow2_weights(d)`` of `softmax_pow2`, their sum ``S`` (C1) and a uniform ``u`` in [0, S) (C2),
    ``p = floor((e * 2**15 + u) / S)`` (C3), less ``2**15`` at the target (C4). In a large vocabulary most probabilities
    are below ``2**-16``. Rounded to nearest they would all vanish; rounded stochastically they are right in the mean.
    The words of a row follow from its number in the whole batch, which may be cut anywhere (C5).

    Notes
    -----
    The gradient of the true base-2 cross-entropy with the probabilities of `softmax_pow2`: straight through the steps
    of the weights' quadratic, the truncated logarithm, and the saturation of the loss. Loss and logits have the base 2,
    so no logarithm of 2 enters. The mean of p over all words is the rational, less at most 2**-31 of a unit.
    Against the gradient in floats: cosine above 0.9999, and more than 99 % of the signs.

    Examples
    --------
    >>> logits, target = np.array([256, 0, 0, -32767], np.int16), np.array(1, np.int32)
    >>> cross_entropy_pow2_backward(logits, target, f=8, seed=1, step=0, stream=0, first=0).tolist()
    [16384, -24576, 8192, 0]
    """
    rows, v = prod(target.shape), logits.shape[-1]
    # ACCUMULATE
    wide = logits.reshape(rows, v).astype(np.int64)
    weight = pow2_weights(wide.max(axis=-1, keepdims=True) - wide, f)
    total = weight.sum(axis=-1, keepdims=True)
    # ROUND
    words = rounding_words(rows, v, seed=seed, step=step, stream=stream, first=first).astype(np.int64)
    dither = ((words >> 1) * total) >> 31
    difference = integers.floor_div((weight << FRACTION_BITS) + dither, total)
    difference[np.arange(rows), target.reshape(rows)] -= CERTAIN
    # SATURATE
    return integers.saturate(difference, 16).astype(np.int16).reshape(logits.shape)


__all__ = ["cross_entropy_pow2_backward"]
