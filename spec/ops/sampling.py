"""Sampling: the greatest logit, a draw by counter, and the generator behind it."""

from __future__ import annotations

import numpy as np

from .. import integers
from ..arrays import Int16Array, Int32Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op
from ..philox import MASK, MULTIPLIER_0, MULTIPLIER_1, philox_words
from .loss import ONE, VOCABULARY, distance_range, pow2_weights, weight_range, weight_sum_range

# Word 3 of the counters that sampling uses, so that its words are no other consumer's under the same seed.
SAMPLING_DOMAIN = 1


@op(
    inputs=(Tensor("logits", "int16", "... V", meaning="logits, any Q format"),),
    outputs=(Tensor("token", "int32", "...", 0, "V - 1", "token number"),),
    sizes={"V": VOCABULARY},
    clauses={"C1": "token is the smallest index at which logits is greatest"},
    widths=lambda at: {"token": Width(Interval(0, at.V - 1), "int32")},
)
def argmax(logits: Int16Array, /) -> Int32Array:
    """Find each row's greatest logit; return the smallest index at which it stands (C1).

    Examples
    --------
    >>> argmax(np.array([[3, 7, 7], [5, -1, 5]], np.int16)).tolist()
    [1, 0]
    """
    return np.argmax(logits, axis=-1).astype(np.int32)


def philox4x32_widths(at):
    word = Interval(0, MASK)
    return {
        "product0": Width(word * MULTIPLIER_0, "uint64"),
        "product1": Width(word * MULTIPLIER_1, "uint64"),
        "word": Width(Interval(-(1 << 31), (1 << 31) - 1), "int32"),
    }


@op(
    inputs=(
        Tensor(
            "counter", "int32", "... 4", low=-(1 << 31), meaning="counters, bit patterns, least significant word first"
        ),
    ),
    outputs=(Tensor("word", "int32", "... 4", low=-(1 << 31), meaning="random words, bit patterns"),),
    parameters=(Parameter("key0", 0, MASK, "low key word"), Parameter("key1", 0, MASK, "high key word")),
    clauses={"C1": "word is Philox 4x32-10 of counter under (key0, key1), all as 32-bit patterns"},
    widths=philox4x32_widths,
)
def philox4x32(counter: Int32Array, /, *, key0: int, key1: int) -> Int32Array:
    """Generate the four random words of Philox 4x32-10 for each counter (C1).

    All 2**32 patterns are words here, as two's complement int32: the one op whose domain is not symmetric.

    Notes
    -----
    J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Examples
    --------
    >>> [hex(w & 0xFFFFFFFF) for w in philox4x32(np.zeros(4, np.int32), key0=0, key1=0).tolist()]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    words = philox_words(counter.view(np.uint32), key0, key1)
    return words.astype(np.uint32).view(np.int32)


def kept_weights(logits, f, num, shift, top_k, top_p):
    """Return the weights of one row's tokens, int64 in vocabulary order, zero where top_k or top_p drops the token."""
    wide = logits.astype(np.int64)
    distance = wide.max() - wide
    weight = pow2_weights(integers.shift_round(distance * num, shift), f)
    order = np.argsort(distance, kind="stable")[:top_k]
    running = np.cumsum(weight[order])
    too_small = (running << 16) < top_p * running[-1]
    nucleus = order[: 1 + too_small.sum()]
    kept = np.zeros_like(weight)
    kept[nucleus] = weight[nucleus]
    return kept


def token_at(kept, word):
    """Return the token that a word of [0, 2**31) draws: each has a share of the words in proportion to its weight."""
    running = np.cumsum(kept)
    u = (word * running[-1]) >> 31
    return np.argmax(running > u)


def sample_widths(at):
    count = min(at.top_k, at.V)
    distance = distance_range(at.V)
    scaled_sum = distance * at.num + ((1 << at.shift) >> 1)
    scaled = (distance * at.num).shift_round(at.shift)
    weight = weight_range(scaled, at.f)
    top_k_sum = weight_sum_range(weight, count)
    # The prefix has at most ceil(top_p count / 2**16) tokens: one less of the heaviest has that share already.
    kept_sum = Interval(
        max(ONE, -(-at.top_p * top_k_sum.low >> 16)),
        -(-at.top_p * count >> 16) * ONE,
    )
    product = Interval(0, (1 << 31) - 1) * kept_sum.high
    return {
        "distance": Width(distance, "int32"),
        "scaled_sum": Width(scaled_sum, "int32"),
        "scaled": Width(scaled, "int32"),
        "weight": Width(weight, "int32"),
        "top_k_sum": Width(top_k_sum, "int64"),
        "kept_sum": Width(kept_sum, "int64"),
        "word": Width(Interval(0, (1 << 31) - 1), "int32"),
        "product": Width(product, "int64"),
        "u": Width(product >> 31, "int64"),
        "token": Width(Interval(0, at.V - 1), "int32"),
    }


@op(
    inputs=(
        Tensor("logits", "int16", "B V", meaning="logits, Q.f, to the base 2"),
        Tensor("stream", "int32", "B", low=0, meaning="number of the sequence that a row belongs to"),
        Tensor("position", "int32", "B", low=0, meaning="position of the row in its sequence"),
    ),
    outputs=(Tensor("token", "int32", "B", 0, "V - 1", "token number"),),
    parameters=(
        Parameter("seed", 0, (1 << 64) - 1, "key of the generator"),
        Parameter("f", 0, 8, "fraction bits of logits"),
        Parameter("num", 1, (1 << 15) - 1, "numerator of the inverse temperature"),
        Parameter("shift", 0, 15, "the inverse temperature is num / 2**shift"),
        Parameter("top_k", 1, 1 << 16, "greatest number of tokens kept; 1 is argmax, V or more keeps all"),
        Parameter("top_p", 1, 1 << 16, "share of the weight that is kept, Q.16; 65536 keeps all"),
    ),
    sizes={"V": VOCABULARY},
    clauses={
        "C1": "e = pow2_weights(floor(d * num / 2**shift + 1/2)), d = max(logits) - logits over the row",
        "C2": "the first min(top_k, V) tokens in the order of (d, index) stay",
        "C3": "of these stays the shortest prefix whose weight times 2**16 is at least top_p times the weight of all",
        "C4": "word is the first Philox word of counter (position, 0, stream, 1) under key seed, over 2, rounded down",
        "C5": "u = floor(word * S / 2**31), S the weight that stayed",
        "C6": "token is the smallest index at which the running sum, by index, of the weights that stayed exceeds u",
    },
    widths=sample_widths,
)
def sample(
    logits: Int16Array,
    stream: Int32Array,
    position: Int32Array,
    /,
    *,
    seed: int,
    f: int,
    num: int,
    shift: int,
    top_k: int,
    top_p: int,
) -> Int32Array:
    """Sample one token per row from ``2**(logits * num / 2**shift)``, over the tokens that top_k and top_p keep.

    The distances d to the maximum, times the inverse temperature, give the weights (C1). In the order of (d, index)
    the first top_k stay (C2), and of these the shortest prefix of share top_p or more (C3). A 31-bit word that
    depends on seed, stream and position alone (C4) falls on u in [0, S) (C5) and so on a token (C6).

    Notes
    -----
    With C the running sums by index, token j is drawn by exactly ``ceil(C[j] 2**31 / S) - ceil(C[j-1] 2**31 / S)``
    of the 2**31 words. A row's token does not depend on the rows beside it, nor on how many tokens were drawn before.

    Examples
    --------
    >>> logits, row = np.array([[0, 512, 256]] * 4, np.int16), np.arange(4, dtype=np.int32)
    >>> sample(logits, 0 * row, row, seed=9, f=8, num=1, shift=0, top_k=2, top_p=65536).tolist()
    [2, 1, 2, 1]
    """
    rows = logits.shape[0]
    counter = np.zeros((rows, 4), np.uint64)
    counter[:, 0] = position
    counter[:, 2] = stream
    counter[:, 3] = SAMPLING_DOMAIN
    words = philox_words(counter, seed & MASK, seed >> 32)[:, 0].astype(np.int64) >> 1
    token = np.empty(rows, np.int32)
    for row in range(rows):
        kept = kept_weights(logits[row], f, num, shift, top_k, top_p)
        token[row] = token_at(kept, words[row])
    return token


__all__ = ["argmax", "philox4x32", "sample"]
