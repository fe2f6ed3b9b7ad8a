"""Plans of ``spec.ops.gradient``."""

from collections.abc import Iterator
from math import prod
from random import Random
from typing import Any

import numpy as np

from .activation import ENDS, FLAT
from .plan import LONG_FLAT, LONG_ROWS, ROW_SIZES, Extreme, Plan, ties
from .sampling import SEEDS

NEAR = np.array([-32767, -32766, -2, -1, 0, 1, 2, 32766, 32767], np.int16)
INT32_ENDS = np.array([-(2**31) + 1, 0, 2**31 - 1], np.int32)
GRADIENT_ENDS = np.array([-(2**62) + 1, 0, 2**62 - 1])
COUNTERS = (0, 1, 77, 2**31, 2**32 - 1)
# Past one program's share of a reduction.
REDUCED = (*FLAT, (4097,), (3, 8193))


def pairs(ends: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.ascontiguousarray(a) for a in np.meshgrid(ends, ends))


def near_sums() -> Iterator[Extreme]:
    yield Extreme([pairs(NEAR)], purpose="sums about zero and about both ends of int16")


def largest_extremes() -> Iterator[Extreme]:
    for bits in (8, 16, 32, 64):
        dtype = f"int{bits}"
        calls = [(np.zeros(1, np.int64),), (np.array([0, 1 - 2**63], np.int64),), (np.array([3], dtype),)]
        yield Extreme(calls, purpose=f"the least and the greatest magnitude, and an {dtype}")


def round_extremes() -> Iterator[Extreme]:
    for shift in (0, 1, 16, 31):
        yield Extreme([(INT32_ENDS,)], {"shift": shift})


def round_edges() -> Iterator[Extreme]:
    for shift in (0, 1, 2, 5, 15, 16, 17, 24, 30):
        yield Extreme(
            [(ties(shift, 32767, 2**31 - 1).astype(np.int32),)], {"shift": shift}, "ties, and ends of 16 bits"
        )


def saturate_extremes() -> Iterator[Extreme]:
    for shift in (0, 1, 16, 31):
        for ends in (np.array([-127, 0, 127], np.int8), np.array([-32767, 0, 32767], np.int16)):
            dy, y = np.meshgrid(INT32_ENDS, ends)
            yield Extreme([(np.ascontiguousarray(dy), np.ascontiguousarray(y))], {"shift": shift})


def wide_sums() -> Iterator[Extreme]:
    """Integers that a float64 doesn't tell apart."""
    call = np.array([2**53 + 1, -(2**53) - 1, 2**61 + 1]), np.array([0, 2, 1 - 2**60])
    yield Extreme([call], purpose="integers that no float64 tells apart")


def wide_magnitudes() -> Iterator[Extreme]:
    last = np.zeros(70001, np.int8)
    last[-1] = -3
    calls = [(np.array([3, 2**53 + 1]),), (np.array([-(2**61) - 1]),), (np.zeros(0, np.int64),), (last,), (last * 0,)]
    yield Extreme(calls, purpose="magnitudes that no float64 tells apart, no element at all, and the last one alone")


def narrow_errors() -> Iterator[Extreme]:
    """Errors of 16 bits, ties and ends among them, at the ends of either type; ties of long shifts."""
    for shift in (0, 1, 3):
        for ends in (np.array([-127, 0, 127], np.int8), np.array([-32767, 0, 32767], np.int16)):
            dy, y = np.meshgrid(np.array([-32767, -12, -4, -3, -1, 0, 1, 3, 4, 12, 32767], np.int16), ends)
            call = np.ascontiguousarray(dy), np.ascontiguousarray(y)
            yield Extreme([call], {"shift": shift}, "errors of 16 bits, at ties and ends, for every kind of y")
    for shift in (15, 16, 17, 24):
        dy = ties(shift, 32767, 2**31 - 1).astype(np.int32)
        yield Extreme([(dy, np.ones(dy.shape, np.int16))], {"shift": shift}, "ties of a long shift")


def first_row(random: Random, at: Any) -> int:
    """Choose among the first rows and nearly the last that have words of their own."""
    last = 2**32 // -(-at.K // 4) - 1
    return random.choice((0, 1, 1000, last - prod(at.leading)))


def stochastic_extremes() -> Iterator[Extreme]:
    x, e = np.repeat(ENDS[:, None], 5, axis=1), np.array([15, 0, 15], np.int32)
    for shift, bits, first in (
        (0, 16, 0),
        (0, 8, 2**31 - 3),
        (15, 16, 7),
        (15, 8, 7),
        (20, 8, 0),
        (24, 8, 0),
        (24, 2, 0),
    ):
        parameters = {"shift": shift, "bits": bits, "seed": 5, "step": 1, "stream": 2, "first": first}
        yield Extreme([(x, e)], parameters)


def long_shifts() -> Iterator[Extreme]:
    """Every bit of the rounding words' last 24 counts; at 8 bits a result is int8, at 9 no longer."""
    x = ((np.arange(8 * 33).reshape(8, 33) * 509) % 65535 - 32767).astype(np.int16)
    parameters = {"shift": 24, "bits": 16, "seed": 5, "step": 1, "stream": 2, "first": 3}
    yield Extreme([(x, np.full(8, 15, np.int32))], parameters, "a shift that takes every bit of a random word")
    # Nine blocks of words per row: past 2**31 of them the counter needs its sign bit.
    yield Extreme([(x, np.full(8, 15, np.int32))], parameters | {"first": 2**28}, "counters of blocks past 2**31")
    few = x[:, :4].copy(), np.full(8, 15, np.int32)
    yield Extreme([few], parameters | {"first": 2**32 - 8}, "the last rows that there can be")
    for bits in (8, 9):
        short = {"shift": 5, "bits": bits}
        yield Extreme([(x, np.zeros(8, np.int32))], parameters | short, "the widest int8, or the narrowest int16")


PLANS = {
    "saturating_add": Plan(
        leading=FLAT,
        extremes=lambda: [Extreme([pairs(ENDS)])],
        edges=near_sums,
        large=LONG_FLAT,
    ),
    "gradient_add": Plan(
        leading=FLAT, extremes=lambda: [Extreme([pairs(GRADIENT_ENDS)])], edges=wide_sums, large=LONG_FLAT
    ),
    "largest_magnitude": Plan(leading=REDUCED, extremes=largest_extremes, edges=wide_magnitudes, large=LONG_FLAT),
    "round_to_int16": Plan(
        parameters={"shift": range(32)}, leading=FLAT, extremes=round_extremes, edges=round_edges, large=LONG_FLAT
    ),
    "saturate_backward": Plan(
        parameters={"shift": range(32)}, leading=FLAT, extremes=saturate_extremes, edges=narrow_errors, large=LONG_FLAT
    ),
    "stochastic_round_rows": Plan(
        sizes={"K": ROW_SIZES},
        parameters={
            "shift": (0, 1, 3, 7, 8, 15, 16, 23, 24),
            "bits": (16, 8, 2, 7, 9),
            "seed": SEEDS,
            "step": COUNTERS,
            "stream": COUNTERS,
            "first": first_row,
        },
        extremes=stochastic_extremes,
        edges=long_shifts,
        large=LONG_ROWS,
    ),
}
