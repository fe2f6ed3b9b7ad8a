"""The scans of state-space models: Mamba's selective scan, and Mamba-2's with one decay per head.

| Mamba paper               | here                   | meaning                                                     |
| ------------------------- | ---------------------- | ----------------------------------------------------------- |
| h                         | ``h``                  | the state, int32                                            |
| x, y                      | ``x``, ``y``           | input and output, int16                                     |
| exp(delta A)              | ``n`` / 2**k           | the decay of a state in one step, an integer in [0, n_max]  |
| A                         | ``base``               | the part of the decay that is a weight                      |
| delta                     | ``mod``                | the part of the decay that depends on the token             |
| delta B x                 | ``v``                  | the input to the state, ``x * b`` rounded                   |
| B, C                      | ``b``, ``c``           | input and output mixture, int8                              |
| D                         | ``skip``               | the weight of x in y                                        |
| batch, length             | ``B``, ``L``           | sizes                                                       |
| d_inner, d_state          | ``D``, ``N``           | sizes of `selective_scan`                                   |
| nheads, headdim, d_state  | ``H``, ``P``, ``S``    | sizes of `ssd_scan`                                         |

All the scans are one step, `advance`, on arrays of different shapes: ``ssd_scan`` is ``selective_scan`` of the channels
(h, p) with base 0 and the head's decay as modulation.
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace

import numpy as np

from .. import integers
from ..arrays import Int8Array, Int16Array, Int32Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op
from ..formula import Formula

ACTIVATION, MIXTURE = Interval.signed(16), Interval.signed(8)


def product_range(at) -> Interval:
    """Return the range of x b, in the finer of its own unit and the state's."""
    return (ACTIVATION * MIXTURE) << max(0, -at.s_v)


# The least and the greatest v, the rounded product of x and b that a step adds to a state.
LEAST_V = Formula("shift_round(-32767 * 127 * 2**max(0, -s_v), max(0, s_v))")
GREATEST_V = Formula("shift_round(32767 * 127 * 2**max(0, -s_v), max(0, s_v))")

# The least interval around 0 that no sequence leaves, whatever its length.
#
# A convex step ends between h and v, so it stays in v's range. An additive step from h <= H ends at
# floor(H n_max / 2**k) + v at most, which is at most H just if H (2**k - n_max) > (v - 1) 2**k. From h >= -L it ends
# at -ceil(L n_max / 2**k) - v at least, which is at least -L just if L (2**k - n_max) >= v 2**k. The least such H and L
# are fixed points of the step, and a state that starts at 0 reaches them.
LEAST_STATE = Formula("v_min if convex else v_min * 2**k // (2**k - n_max)", v_min=LEAST_V.text)
GREATEST_STATE = Formula("v_max if convex else (v_max - 1) * 2**k // (2**k - n_max) + 1", v_max=GREATEST_V.text)


def input_range(at) -> Interval:
    """Return the range of v, the rounded product of x and b that a step adds to a state."""
    return Interval(LEAST_V(at), GREATEST_V(at))


def state_range(at) -> Interval:
    """Return the domain of a state."""
    return Interval(LEAST_STATE(at), GREATEST_STATE(at))


def modulate_widths(at):
    return {
        "sum": Width(Interval(0, (1 << at.k) - 1) + ACTIVATION, "int32"),
        "n": Width(Interval(0, at.n_max), "int16"),
    }


def state_widths(at):
    v, h, unit = input_range(at), state_range(at), 1 << at.k
    return {
        "product": Width(product_range(at) + ((1 << max(0, at.s_v)) >> 1), "int32"),
        "v": Width(v, "int32"),
        "numerator": Width(v * unit if at.convex else h * at.n_max + v * unit, "int64"),
        "h": Width(h, "int32"),
    }


def scan_widths(at, states: int):
    term = (state_range(at) >> at.s_h) * MIXTURE
    total = term.sum(states) + ACTIVATION * ACTIVATION + ((1 << at.s_y) >> 1)
    return state_widths(at) | {
        "term": Width(term, "int64"),
        "sum": Width(total, "int64"),
        "y": Width((total >> at.s_y).saturate(16), "int16"),
    }


@lru_cache
def sum_dtypes(states: int, **parameters) -> tuple[str, str]:
    """Return the narrowest of int32 and int64 that holds the sum, and that holds it rounded, for faster backends."""
    at = SimpleNamespace(**parameters)
    total = scan_widths(at, states)["sum"].range
    first, second = ("int32" if width.fits("int32") else "int64" for width in (total, total >> at.s_y))
    return first, second


def selective_widths(at):
    return {"n": modulate_widths(at)["n"]} | scan_widths(at, at.N)


def ssd_widths(at):
    return scan_widths(at, at.S)


DECAY = (
    Parameter("k", 1, 15, "fraction bits of the decays"),
    Parameter("n_max", 0, "2**k - 1", "greatest decay, so the longest memory, Q.k"),
)
FORMATS = (
    Parameter("s_v", -8, 22, "fraction bits that x * b has more than the state; negative if it has fewer"),
    Parameter("s_h", 0, 30, "fraction bits of the state that the output drops"),
    Parameter("s_y", 0, 30, "fraction bits that the sum has more than y"),
    Parameter("convex", 0, 1, "1 weighs v by one minus the decay, 0 by one"),
)
BASE = Tensor("base", "int16", "D N", 0, "2**k - 1", "decays before modulation, Q.k")
MODULATION = Tensor("mod", "int16", "B L D", meaning="modulation of the decays, Q.k")


def state(shape: str) -> Tensor:
    meaning = "state, as in C5; zeros at the start of a sequence"
    return Tensor("h", "int32", shape, LEAST_STATE, GREATEST_STATE, meaning)


def selective_inputs(time: str) -> tuple[Tensor, ...]:
    return (
        Tensor("x", "int16", f"B {time} D", meaning="inputs, any Q format"),
        Tensor("mod", "int16", f"B {time} D", meaning="modulation of the decays, Q.k"),
        BASE,
        Tensor("b", "int8", f"B {time} N", meaning="input mixture, any Q format"),
        Tensor("c", "int8", f"B {time} N", meaning="output mixture, any Q format"),
        Tensor("skip", "int16", "D", meaning="weight of x in y, in the format of the sum over that of x"),
        state("B D N"),
    )


def ssd_inputs(time: str) -> tuple[Tensor, ...]:
    return (
        Tensor("x", "int16", f"B {time} H P", meaning="inputs of each head, any Q format"),
        Tensor("n", "int16", f"B {time} H", 0, "n_max", "decay of each head, Q.k"),
        Tensor("b", "int8", f"B {time} S", meaning="input mixture, any Q format"),
        Tensor("c", "int8", f"B {time} S", meaning="output mixture, any Q format"),
        Tensor("skip", "int16", "H", meaning="weight of x in y, in the format of the sum over that of x"),
        state("B H P S"),
    )


STEP = {
    "C1": "v = floor(x b / 2**s_v + 1/2)",
    "C2": "convex = 0: h becomes floor((h n + v 2**k) / 2**k), which is floor(h n / 2**k) + v",
    "C3": "convex = 1: h becomes floor((h n + v (2**k - n)) / 2**k)",
    "C4": "y = saturate(floor((sum over N of floor(h / 2**s_h) c + skip x) / 2**s_y + 1/2), 16), h the new state",
    "C5": "the domain of h holds every state that a sequence of any length reaches from 0, and its ends are reached",
    "C6": "h falls short of the same recurrence in rationals by less than 2**k / (2**k - n_max), and never exceeds it",
}
WHOLE = {"C7": "a sequence cut anywhere, or run step by step, the state carried over, gives the same integers"}
MODULATED = {"C8": "n = decay_modulate(base, mod)"}


def advance(h, n, x, b, c, skip, k, s_v, s_h, s_y, convex):
    """Return y and the new h of one step; the state is the last axis of h, n, b and c, which x and skip lack."""
    # ACCUMULATE
    v = integers.rescale(x[..., None].astype(np.int64) * b, s_v)
    weight = (1 << k) - n.astype(np.int64) if convex else 1 << k
    # ROUND
    h = (h.astype(np.int64) * n + v * weight) >> k
    # ACCUMULATE
    total = ((h >> s_h) * c).sum(axis=-1) + x.astype(np.int64) * skip
    # SATURATE
    y = integers.saturate(integers.shift_round(total, s_y), 16)
    return y.astype(np.int16), h.astype(np.int32)


@op(
    inputs=(BASE, MODULATION),
    outputs=(Tensor("n", "int16", "B L D N", 0, "n_max", "decays, Q.k"),),
    parameters=DECAY,
    clauses={"C1": "n = base + mod, clamped to [0, n_max]"},
    widths=modulate_widths,
)
def decay_modulate(base: Int16Array, mod: Int16Array, /, *, k: int, n_max: int) -> Int16Array:
    """Compute the decay of every channel and state, ``n = clamp(base + mod, 0, n_max)`` (C1).

    Examples
    --------
    >>> decay_modulate(np.array([[100, 200]], np.int16), np.array([[[-150], [80]]], np.int16), k=8, n_max=250).tolist()
    [[[[0, 50]], [[180, 250]]]]
    """
    # ACCUMULATE
    total = mod[..., None].astype(np.int64) + base
    # SATURATE
    return np.clip(total, 0, n_max).astype(np.int16)


@op(
    inputs=selective_inputs(""),
    outputs=(Tensor("y", "int16", "B D", meaning="output"), state("B D N")),
    parameters=DECAY + FORMATS,
    sizes={"N": (1, 1 << 16)},
    clauses=STEP | MODULATED,
    widths=selective_widths,
    step_of="selective_scan",
)
def selective_scan_step(
    x: Int16Array,
    mod: Int16Array,
    base: Int16Array,
    b: Int8Array,
    c: Int8Array,
    skip: Int16Array,
    h: Int32Array,
    /,
    *,
    k: int,
    n_max: int,
    s_v: int,
    s_h: int,
    s_y: int,
    convex: int,
) -> tuple[Int16Array, Int32Array]:
    """Run one step of the Mamba selective scan; return its output and the new state.

    The formulas are those of `selective_scan` (C1 to C4), for a single position.

    Examples
    --------
    >>> x, mod, base = np.array([[12800]], np.int16), np.array([[0]], np.int16), np.array([[128, 192]], np.int16)
    >>> b, c, skip = np.array([[2, -2]], np.int8), np.array([[1, 3]], np.int8), np.array([1], np.int16)
    >>> h = np.array([[[-5, 0]]], np.int32)
    >>> y, h = selective_scan_step(x, mod, base, b, c, skip, h, k=8, n_max=255, s_v=8, s_h=0, s_y=0, convex=0)
    >>> y.tolist(), h.tolist()
    ([[12597]], [[[97, -100]]])
    """
    n = decay_modulate.golden(base, mod[:, None], k=k, n_max=n_max)[:, 0]
    return advance(h, n, x, b[:, None], c[:, None], skip, k, s_v, s_h, s_y, convex)


@op(
    inputs=selective_inputs("L"),
    outputs=(Tensor("y", "int16", "B L D", meaning="outputs"), state("B D N")),
    parameters=DECAY + FORMATS,
    sizes={"N": (1, 1 << 16)},
    clauses=STEP | WHOLE | MODULATED,
    widths=selective_widths,
)
def selective_scan(
    x: Int16Array,
    mod: Int16Array,
    base: Int16Array,
    b: Int8Array,
    c: Int8Array,
    skip: Int16Array,
    h: Int32Array,
    /,
    *,
    k: int,
    n_max: int,
    s_v: int,
    s_h: int,
    s_y: int,
    convex: int,
) -> tuple[Int16Array, Int32Array]:
    """Run the Mamba selective scan over a sequence; return its outputs and final state.

    At each position, with ``n = decay_modulate(base, mod)`` (C8) and ``v = floor(x * b / 2**s_v + 1/2)`` (C1), the
    state becomes ``h = (h * n + v * 2**k) >> k`` (C2), or ``h = (h * n + v * (2**k - n)) >> k`` if convex (C3), and the
    output is ``y = saturate(shift_round(sum over N of (h >> s_h) * c + skip * x, s_y), 16)`` (C4).

    Notes
    -----
    A backend needn't store the decays: an array of shape (B, L, D, N) would be N times larger than the other inputs.

    Let g be the recurrence without the floor, in rationals. A step's floor takes off f, ``0 <= f < 1``, so
    ``e = g - h`` becomes ``e n / 2**k + f``, in both forms. With ``d = 2**k / (2**k - n_max)``, ``0 <= e < d``
    stays true, since ``d n_max / 2**k + 1 = d`` (C6). The largest additive state is about d times the largest v, so
    there the drift is about one part in the largest v at most, whatever the decay. A convex state is no larger than v,
    so there it is d times that, and a state stays where it is while ``(v - h) (2**k - n)`` is from 0 to ``2**k - 1``.
    All that a floor asks for is fraction bits in the state. A convex one has room for them: s_v may be negative.

    The average of g - h, in thousandths of the root mean square of g, with the floor and with a half added before the
    shift (k = 15, convex = 0, the last half of 8192 steps of 64 lanes, x uniform in +-1023 and b in +-127):

    ===========  ==============  ==============  ==============  ==============
    n / 2**15    s_v = 0         s_v = 4         s_v = 8         s_v = 12
    ===========  ==============  ==============  ==============  ==============
    0.5          0.01, -0.01     0.16, -0.16     2.55, -2.55     40.79, -40.78
    0.9          0.05, 0.00      0.80, 0.00      12.84, 0.01     199.04, 0.07
    0.99         0.16, 0.00      2.61, 0.00      41.69, -0.06    660.93, -2.40
    0.999        0.48, 0.00      7.71, -0.01     123.64, 0.18    1895.36, 19.03
    ===========  ==============  ==============  ==============  ==============

    So the recurrence floors, and s_v is to leave v in the thousands, as at s_v = 4: there the drift is under a
    hundredth up to a decay of 0.999. A half added would cost an addition for each state and step. At a decay of one
    half, where each fraction is 0 or a tie, it would err as much upwards.

    Examples
    --------
    >>> x, mod, base = np.array([[[12800], [0]]], np.int16), np.zeros((1, 2, 1), np.int16), np.array([[128]], np.int16)
    >>> b, c, skip = np.full((1, 2, 1), 2, np.int8), np.full((1, 2, 1), 3, np.int8), np.array([1], np.int16)
    >>> h = np.array([[[-5]]], np.int32)
    >>> y, h = selective_scan(x, mod, base, b, c, skip, h, k=8, n_max=255, s_v=8, s_h=0, s_y=0, convex=0)
    >>> y.tolist(), h.tolist()
    ([[[13091], [144]]], [[[48]]])
    """
    parameters = dict(k=k, n_max=n_max, s_v=s_v, s_h=s_h, s_y=s_y, convex=convex)
    y, h = np.empty(x.shape, np.int16), h.copy()
    for t in range(x.shape[1]):
        step = (x[:, t], mod[:, t], base, b[:, t], c[:, t], skip)
        y[:, t], h = selective_scan_step.golden(*step, h, **parameters)
    return y, h


@op(
    inputs=ssd_inputs(""),
    outputs=(Tensor("y", "int16", "B H P", meaning="output"), state("B H P S")),
    parameters=DECAY + FORMATS,
    sizes={"S": (1, 1 << 16)},
    clauses=STEP,
    widths=ssd_widths,
    step_of="ssd_scan",
)
def ssd_scan_step(
    x: Int16Array,
    n: Int16Array,
    b: Int8Array,
    c: Int8Array,
    skip: Int16Array,
    h: Int32Array,
    /,
    *,
    k: int,
    n_max: int,
    s_v: int,
    s_h: int,
    s_y: int,
    convex: int,
) -> tuple[Int16Array, Int32Array]:
    """Run one step of the Mamba-2 scan; return its output and the new state.

    The formulas are those of `ssd_scan` (C1 to C4), for a single position.

    Examples
    --------
    >>> x, n, skip = np.array([[[12800, 6400]]], np.int16), np.array([[128]], np.int16), np.array([1], np.int16)
    >>> b, c, h = np.array([[2]], np.int8), np.array([[3]], np.int8), np.array([[[[-5], [0]]]], np.int32)
    >>> y, h = ssd_scan_step(x, n, b, c, skip, h, k=8, n_max=255, s_v=8, s_h=0, s_y=0, convex=0)
    >>> y.tolist(), h.tolist()
    ([[[13091, 6550]]], [[[[97], [50]]]])
    """
    heads, mixtures = n[..., None, None], (b[:, None, None], c[:, None, None])
    return advance(h, heads, x, *mixtures, skip[:, None], k, s_v, s_h, s_y, convex)


@op(
    inputs=ssd_inputs("L"),
    outputs=(Tensor("y", "int16", "B L H P", meaning="outputs"), state("B H P S")),
    parameters=DECAY + FORMATS,
    sizes={"S": (1, 1 << 16)},
    clauses=STEP | WHOLE,
    widths=ssd_widths,
)
def ssd_scan(
    x: Int16Array,
    n: Int16Array,
    b: Int8Array,
    c: Int8Array,
    skip: Int16Array,
    h: Int32Array,
    /,
    *,
    k: int,
    n_max: int,
    s_v: int,
    s_h: int,
    s_y: int,
    convex: int,
) -> tuple[Int16Array, Int32Array]:
    """Run the Mamba-2 scan (SSD: one decay per head) over a sequence; return its outputs and final state.

    The formulas are those of `selective_scan` (C1 to C4) for each channel p of each head, where n is an input.

    Examples
    --------
    >>> x, n = np.array([[[[12800]], [[0]]]], np.int16), np.full((1, 2, 1), 128, np.int16)
    >>> skip = np.array([1], np.int16)
    >>> b, c, h = np.full((1, 2, 1), 2, np.int8), np.full((1, 2, 1), 3, np.int8), np.array([[[[-5]]]], np.int32)
    >>> y, h = ssd_scan(x, n, b, c, skip, h, k=8, n_max=255, s_v=8, s_h=0, s_y=0, convex=0)
    >>> y.tolist(), h.tolist()
    ([[[[13091]], [[144]]]], [[[[48]]]])
    """
    parameters = dict(k=k, n_max=n_max, s_v=s_v, s_h=s_h, s_y=s_y, convex=convex)
    y, h = np.empty(x.shape, np.int16), h.copy()
    for t in range(x.shape[1]):
        y[:, t], h = ssd_scan_step.golden(x[:, t], n[:, t], b[:, t], c[:, t], skip, h, **parameters)
    return y, h


__all__ = ["decay_modulate", "selective_scan", "selective_scan_step", "ssd_scan", "ssd_scan_step"]
