"""The integer optimizer: Lion on int32 master weights, its schedule and its exponents.

An integer at exponent G stands for itself over ``2**G``, so a greater exponent is a finer one.
"""

from __future__ import annotations

import numpy as np

from .. import integers
from ..arrays import Int32Array, Int64Array, UInt8Array
from ..bounds import Interval, Width
from ..contract import PackedTernary, Parameter, Tensor, op
from .gradient import GRADIENT, GRADIENT_BITS
from .linear import LARGEST_ROW
from .packing import pack_ternary

# Master weights and learning rates: 1 is 2**24.
LARGEST_WEIGHT = 1 << 28
WEIGHT = Interval.symmetric(LARGEST_WEIGHT)
LARGEST_RATE = 1 << 24
LARGEST_DECAY = (1 << 16) - 1
# A step takes a share of each weight off it: in Q.32, the rate in Q.24 times the decay in Q.16.
SHARE_BITS = 32
SHARE_SHIFT = 24 + 16 - SHARE_BITS
# With 28 bits the vote of momentum and gradient fits int32.
MOMENTUM_BITS = 28
MOMENTUM = Interval.signed(MOMENTUM_BITS)
VOTES = 7
LAG_SHIFT = 6
MOST_UP, MOST_DOWN = MOMENTUM_BITS - 1, GRADIENT_BITS - 1
# Bits that the larger of momentum and gradient has at least and at most when they meet.
FEWEST_BITS, MOST_BITS = 21, MOMENTUM_BITS - 1
MOMENTUM_EXPONENT = Interval(-100, 200)
LARGEST_MOVE = MOMENTUM_EXPONENT.high - MOMENTUM_EXPONENT.low
GRADIENT_EXPONENT = Interval(-40, 60)
GRADIENT_EXPONENTS = GRADIENT_EXPONENT.low, GRADIENT_EXPONENT.high
MOMENTUM_EXPONENTS = MOMENTUM_EXPONENT.low, MOMENTUM_EXPONENT.high


def ternary_project_widths(at):
    magnitude = Interval(0, LARGEST_WEIGHT)
    return {
        "magnitude": Width(magnitude, "int32"),
        "sum": Width(magnitude.sum(at.N * at.K), "int64"),
        "doubled": Width(magnitude * (2 * at.N * at.K), "int64"),
    } | dict(pack_ternary.widths(at))


@op(
    inputs=(Tensor("w", "int32", "N K", low=WEIGHT.low, high=WEIGHT.high, meaning="master weights"),),
    outputs=(PackedTernary("packed", "uint8", "N K/4", meaning="ternary weights as pack_ternary gives them"),),
    sizes={"N": (1, LARGEST_ROW), "K": (1, LARGEST_ROW)},
    clauses={
        "C1": "t = sign(w) if |w| * 2 * N * K > sum of |w| over the matrix, else 0",
        "C2": "packed = pack_ternary(t)",
    },
    widths=ternary_project_widths,
)
def ternary_project(w: Int32Array, /) -> UInt8Array:
    """Project master weights to packed ternary weights: ``t = sign(w)`` where ``|w| > mean |w| / 2``, else 0.

    Notes
    -----
    BitNet b1.58 (S. Ma et al., 2024) rounds ``w / mean |w|`` and clips it, which differs at ties alone. The gradient
    of w is that of t, straight through.

    Examples
    --------
    >>> unpack_ternary(ternary_project(np.array([[100, -3, 60], [-50, 30, 20]], np.int32)), K=3).tolist()
    [[1, 0, 1], [-1, 1, 0]]
    """
    wide = w.astype(np.int64)
    magnitude = np.abs(wide)
    # ACCUMULATE
    total = magnitude.sum()
    # ROUND
    digits = np.where(magnitude * (2 * w.size) > total, np.sign(wide), 0)
    return pack_ternary.golden(digits.astype(np.int8))


def decay_share(lr: int, decay: int) -> int:
    """Return the share of itself that a weight loses in a step, in Q.32 and below one."""
    return integers.shift_round(lr * decay, SHARE_SHIFT)


def shifts(m_shift: int) -> tuple[int, int]:
    """Return by how many bits to shift momenta down and up; more would not change what comes of them."""
    return min(max(m_shift, 0), MOMENTUM_BITS), min(max(-m_shift, 0), MOST_UP)


def lion_update_widths(at):
    weight, share = Interval(at.low, at.high), decay_share(at.lr, at.decay)
    loss = weight * share
    kept = weight.union(Interval(0, 0)) if share else weight
    down, up = shifts(at.m_shift)
    momentum = (MOMENTUM.shift_round(down) << up).saturate(MOMENTUM_BITS)
    gradient = (GRADIENT.shift_round(at.g_down).saturate(MOMENTUM_BITS) << at.g_up).saturate(MOMENTUM_BITS)
    # The new momentum rises with both of what it comes from.
    ends = zip((momentum.low, momentum.high), (gradient.low, gradient.high), strict=True)
    return {
        "momentum": Width(momentum, "int32"),
        "gradient": Width(gradient, "int32"),
        "vote": Width(momentum * VOTES + gradient, "int32"),
        "lag": Width(gradient - momentum, "int32"),
        "m": Width(Interval(*(a + integers.shift_round(b - a, LAG_SHIFT) for a, b in ends)), "int32"),
        "loss": Width(loss, "int64"),
        "lost": Width(loss.shift_round(SHARE_BITS), "int32"),
        "sum": Width(kept + Interval.symmetric(at.lr), "int32", attained=share == 0),
        "w": Width(weight, "int32", attained=share == 0),
    }


MOMENTA = Tensor("m", "int32", "...", low=MOMENTUM.low, high=MOMENTUM.high, meaning="momentum")
WEIGHTS = Tensor("w", "int32", "...", low="low", high="high", meaning="master weights, Q.24")


@op(
    inputs=(
        WEIGHTS,
        MOMENTA,
        Tensor("g", "int64", "...", low=GRADIENT.low, high=GRADIENT.high, meaning="gradients, any exponent"),
    ),
    outputs=(WEIGHTS, MOMENTA, Tensor("clipped", "int64", "1", low=0, meaning="number of weights that were clamped")),
    parameters=(
        Parameter("lr", 0, LARGEST_RATE, "learning rate, Q.24"),
        Parameter("m_shift", -LARGEST_MOVE, LARGEST_MOVE, "bits that the momentum loses; if negative, gains"),
        Parameter("g_up", 0, MOST_UP, "bits that the gradient gains"),
        Parameter("g_down", 0, MOST_DOWN, "bits that the gradient loses"),
        Parameter("low", -LARGEST_WEIGHT, LARGEST_WEIGHT, "least weight"),
        Parameter("high", "low", LARGEST_WEIGHT, "greatest weight"),
        Parameter("decay", 0, LARGEST_DECAY, "weight decay, Q.16"),
    ),
    clauses={
        "C1": "a = m / 2**m_shift to the nearest integer, ties toward plus infinity, saturated to 28 bits",
        "C2": "b = floor(g / 2**g_down + 1/2) * 2**g_up, saturated to 28 bits",
        "C3": "u = sign(7 * a + b), 0 for a vote of 0",
        "C4": "the new m = a + floor((b - a) / 2**6 + 1/2)",
        "C5": "d = floor(w * s / 2**32 + 1/2), s = floor(lr * decay / 2**8 + 1/2)",
        "C6": "the new w = w - lr * u - d, clamped to [low, high]; clipped counts those that the clamp changes",
    },
    widths=lion_update_widths,
)
def lion_update(
    w: Int32Array,
    m: Int32Array,
    g: Int64Array,
    /,
    *,
    lr: int,
    m_shift: int,
    g_up: int,
    g_down: int,
    low: int,
    high: int,
    decay: int,
) -> tuple[Int32Array, Int32Array, Int64Array]:
    """Update master weights and momenta by one step of Lion: ``w -= lr * sign(7/8 m + 1/8 g) + decay * lr * w``.

    Momentum (C1) and gradient (C2), brought to one exponent, vote on the step's sign (C3); then the momentum goes a
    64th of the way to the gradient (C4). The weight loses its share ``lr * decay`` (C5) and moves by lr (C6).

    Notes
    -----
    X. Chen et al., "Symbolic discovery of optimization algorithms", 2023, with momentum factors 7/8 and 63/64. A sign
    has no scale: nothing is divided, and the gradient's exponent matters to the vote alone. Decay is rounded to
    nearest, so a weight below ``2**31 / s`` units keeps what it has. `momentum_exponent` settles the shifts.

    Examples
    --------
    >>> w, m, g = np.array([1000, -1000, 9], np.int32), np.array([64, -64, 0], np.int32), np.array([0, 512, 0])
    >>> how = {"m_shift": 0, "g_up": 0, "g_down": 0, "low": -1003, "high": 1003, "decay": 0}
    >>> [a.tolist() for a in lion_update(w, m, g, lr=10, **how)]
    [[990, -1003, 9], [63, -55, 0], [1]]
    """
    wide = w.astype(np.int64)
    down, up = shifts(m_shift)
    # ROUND
    momentum = integers.saturate(integers.shift_round(m.astype(np.int64), down) << up, MOMENTUM_BITS)
    # A value that saturates before the shift to the left would do so after it.
    gradient = integers.saturate(integers.shift_round(g, g_down), MOMENTUM_BITS) << g_up
    gradient = integers.saturate(gradient, MOMENTUM_BITS)
    new_m = momentum + integers.shift_round(gradient - momentum, LAG_SHIFT)
    lost = integers.shift_round(wide * decay_share(lr, decay), SHARE_BITS)
    # ACCUMULATE
    total = wide - lr * np.sign(VOTES * momentum + gradient) - lost
    # SATURATE
    new_w = np.minimum(np.maximum(total, low), high)
    clipped = (new_w != total).sum(dtype=np.int64).reshape(1)
    return new_w.astype(np.int32), new_m.astype(np.int32), clipped


def learning_rate_widths(at):
    begun = min(at.warmup, 1)
    first = integers.round_div(at.peak, at.warmup) if begun else at.peak
    return {
        "risen": Width(Interval(at.peak * begun, at.peak * at.warmup), "int64"),
        "left": Width(Interval(0, at.total - at.warmup), "int32"),
        "fallen": Width(Interval(0, (at.peak - at.last) * (at.total - at.warmup)), "int64"),
        "lr": Width(Interval(min(first, at.last), at.peak), "int32"),
    }


@op(
    inputs=(Tensor("step", "int32", "...", low=0, high=2**31 - 2, meaning="steps done"),),
    outputs=(Tensor("lr", "int32", "...", low=0, high=LARGEST_RATE, meaning="learning rates, Q.24"),),
    parameters=(
        Parameter("peak", 0, LARGEST_RATE, "greatest rate"),
        Parameter("last", 0, "peak", "rate from step total on"),
        Parameter("warmup", 0, 2**31 - 2, "steps up to the greatest rate"),
        Parameter("total", "warmup + 1", 2**31 - 1, "steps of the run"),
    ),
    clauses={
        "C1": "before step warmup, lr = floor(peak * (step + 1) / warmup + 1/2)",
        "C2": "from it on, lr = last + floor((peak - last) * max(total - step, 0) / (total - warmup) + 1/2)",
    },
    widths=learning_rate_widths,
)
def learning_rate(step: Int32Array, /, *, peak: int, last: int, warmup: int, total: int) -> Int32Array:
    """Compute the learning rate of a step: linear warm-up to the peak (C1), then linear decay to the last rate (C2).

    Notes
    -----
    Step ``warmup - 1`` is the first with the greatest rate; from step total on the rate is the last.

    Examples
    --------
    >>> learning_rate(np.arange(8, dtype=np.int32), peak=100, last=10, warmup=2, total=6).tolist()
    [50, 100, 100, 78, 55, 33, 10, 10]
    """
    wide = step.astype(np.int64)
    risen = peak * np.minimum(wide + 1, warmup)
    left = np.minimum(np.maximum(total - wide, 0), total - warmup)
    # ROUND
    up = integers.round_div(risen, max(warmup, 1))
    down = last + integers.round_div((peak - last) * left, total - warmup)
    return np.where(wide < warmup, up, down).astype(np.int32)


def gradient_exponent_widths(at):
    rise = max((at.bits - 2) >> 1, 1)
    return {
        "used": Width(Interval(0, 63), "int32"),
        "moved": Width(GRADIENT_EXPONENT + Interval(-1, rise), "int32"),
        "y": Width(GRADIENT_EXPONENT, "int32"),
    }


@op(
    inputs=(
        Tensor("exponent", "int32", "...", *GRADIENT_EXPONENTS, "exponents of gradient tensors in this step"),
        Tensor("largest", "int64", "...", low=0, meaning="their largest magnitudes"),
    ),
    outputs=(Tensor("y", "int32", "...", *GRADIENT_EXPONENTS, "exponents for the next step"),),
    parameters=(Parameter("bits", 4, 32, "width that holds the gradients"),),
    clauses={
        "C1": "if largest >= 2**(bits-1) - 1, y = exponent - 1",
        "C2": "if 0 < largest < 2**(bits-3), y = exponent + floor((n + 1) / 2), n = bits - 2 - bit_length(largest)",
        "C3": "if largest = 0, y = exponent + 1",
        "C4": "else y = exponent; y is clamped to [-40, 60]",
    },
    widths=gradient_exponent_widths,
)
def gradient_exponent(exponent: Int32Array, largest: Int64Array, /, *, bits: int) -> Int32Array:
    """Choose the exponents of gradients for the next step: coarser if they saturated (C1), finer if they are small.

    An exponent is known before its step begins, so it doesn't depend on how the step's batch is cut. A step takes up
    half of the unused bits, rounded down (C2), so that one quiet batch doesn't make the next saturate.

    Notes
    -----
    An exponent rests while the largest gradient fills its width to within two bits (C4). Gradients that are all zero
    may have been rounded to zero, so the exponent creeps up (C3). Else both moves end in that range, so the exponent of
    an unchanging gradient comes to rest.

    Examples
    --------
    >>> largest = np.array([127, 126, 32, 31, 7, 0])
    >>> gradient_exponent(np.full(6, 20, np.int32), largest, bits=8).tolist()
    [19, 20, 20, 21, 22, 21]
    """
    used = integers.bit_length(largest)
    fall = largest >= (1 << (bits - 1)) - 1
    rise = np.where(used > 0, np.maximum(bits - 1 - used, 0) >> 1, 1)
    moved = exponent.astype(np.int64) + rise - fall
    # SATURATE
    return np.minimum(np.maximum(moved, GRADIENT_EXPONENT.low), GRADIENT_EXPONENT.high).astype(np.int32)


def momentum_exponent_widths(at):
    width = Interval(1, GRADIENT_BITS - 1)
    top = width - MOMENTUM_EXPONENT
    return {
        "top": Width(top, "int32"),
        "fitting": Width(Interval(MOST_BITS - top.high, FEWEST_BITS - top.low), "int32"),
        "y": Width(MOMENTUM_EXPONENT, "int32"),
    }


@op(
    inputs=(
        Tensor("exponent", "int32", "...", *MOMENTUM_EXPONENTS, "exponents of momenta before this step"),
        Tensor("g_exponent", "int32", "...", *MOMENTUM_EXPONENTS, "exponents of their gradients"),
        Tensor("largest_g", "int64", "...", low=0, high=GRADIENT.high, meaning="the gradients' largest magnitudes"),
        Tensor("largest_m", "int64", "...", low=0, high=MOMENTUM.high, meaning="the momenta's largest magnitudes"),
    ),
    outputs=(Tensor("y", "int32", "...", *MOMENTUM_EXPONENTS, "exponents of the momenta from this step on"),),
    clauses={
        "C1": "top is the greater of bit_length(largest_m) - exponent and bit_length(largest_g) - g_exponent; "
        "a largest of 0 has none",
        "C2": "y is the integer of [21 - top, 27 - top] nearest to exponent; with no top it is exponent",
        "C3": "y is clamped to [-100, 200]",
    },
    widths=momentum_exponent_widths,
)
def momentum_exponent(
    exponent: Int32Array, g_exponent: Int32Array, largest_g: Int64Array, largest_m: Int64Array, /
) -> Int32Array:
    """Choose the exponents to which `lion_update` brings momenta and gradients, and at which the momenta stay.

    The larger of the two (C1) has from 21 to 27 bits there, so neither saturates, and the smaller keeps most of its
    bits. While the larger has such a width, the exponent stays (C2).

    Notes
    -----
    The momentum then loses ``exponent - y`` bits and the gradient ``g_exponent - y``. A negative number is a gain. A
    gain is at most 26 bits, unless the array is all zeros.

    Examples
    --------
    >>> largest_g, largest_m = np.array([2**40 - 1, 2**19, 7, 0]), np.array([0, 2**20, 2**26, 0])
    >>> momentum_exponent(np.full(4, 60, np.int32), np.full(4, 14, np.int32), largest_g, largest_m).tolist()
    [1, 21, 38, 60]
    """
    m_exponent = exponent.astype(np.int64)
    m_top = integers.bit_length(largest_m) - m_exponent
    g_top = integers.bit_length(largest_g) - g_exponent
    top = np.where(largest_m == 0, g_top, np.where(largest_g == 0, m_top, np.maximum(m_top, g_top)))
    fitting = np.minimum(np.maximum(m_exponent, FEWEST_BITS - top), MOST_BITS - top)
    y = np.where((largest_m == 0) & (largest_g == 0), m_exponent, fitting)
    # SATURATE
    return np.minimum(np.maximum(y, MOMENTUM_EXPONENT.low), MOMENTUM_EXPONENT.high).astype(np.int32)


__all__ = ["gradient_exponent", "learning_rate", "lion_update", "momentum_exponent", "ternary_project"]
