"""Plans of ``spec.ops.linear``."""

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np

from mamba_integer import spec

from .activation import FLAT
from .plan import LEADING, LONG_FLAT, LONG_ROWS, ROW_SIZES, Choice, Extreme, Plan, ties

DEPTHS = (1, 3, 4, 5, 31, 32, 33, 64, 127, 129, 257)
COLUMNS = (1, 2, 5, 16, 33, 64, 65)
# Few rows, many and very many take different paths in a fast backend, and many end inside a tile of 64 or 256.
LARGE = ({"...": 5, "K": 1025, "N": 259}, {"...": 130, "K": 66, "N": 67})
ROWS = (*LEADING, (9,), (65,), (2, 40), (257,))


def scale_shift(random: Random, at: Any) -> int:
    """Mostly shifts that bring a full accumulator near 16 bits, so that results are neither 0 nor saturated."""
    return random.choice((at.num.bit_length(), at.num.bit_length() + 8, 0, 1, 15, 24, 47))


SCALE: dict[str, Choice] = {"num": (1, 181, 32767, 16384, 3), "shift": scale_shift}


def quantize_extremes() -> Iterator[Extreme]:
    yield Extreme([(np.array([[-32767, 5], [32767, -32767], [0, 0]], np.int16),)])


def requantize_extremes() -> Iterator[Extreme]:
    for shift in (0, 2, 31):
        yield Extreme([(np.array([-(2**31) + 1, 0, 2**31 - 1], np.int32),)], {"shift": shift})


def requantize_edges() -> Iterator[Extreme]:
    for shift in (0, 1, 8, 23, 31):
        yield Extreme([(ties(shift, 127, 2**31 - 1).astype(np.int32),)], {"shift": shift})


def quantize_edges() -> Iterator[Extreme]:
    """Rows whose largest magnitude, of either sign, is at and beside a power of two, and ties of their exponent."""
    rows = []
    for bits in range(7, 16):
        e = max(0, bits - 6)
        rest = np.resize(ties(max(1, e - 1), 126, 2**bits - 2), 40)
        rows += [
            [sign * peak, *rest] for peak in (2**bits - 2, 2**bits - 1, 2**bits) if peak < 2**15 for sign in (-1, 1)
        ]
    yield Extreme([(np.array(rows, np.int16),)])


def full_rows(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and weights whose sum is the greatest and the least that K digits allow."""
    return np.full((2, k), 127, np.int8), spec.pack_ternary(np.array([[1] * k, [-1] * k], np.int8))


def linear_extremes() -> Iterator[Extreme]:
    for k, num, shift in ((1, 1, 0), (5, 32767, 47), (64, 181, 12)):
        q, w = full_rows(k)
        yield Extreme([(q, np.array([0, 15], np.int32), w)], {"num": num, "shift": shift})


def requant_extremes() -> Iterator[Extreme]:
    q, w = full_rows(64)
    quiet = (np.zeros_like(q), np.array([0, 15], np.int32), w)
    yield Extreme([(q, np.array([0, 15], np.int32), w), quiet], {"num": 32767, "shift": 0})


PLANS = {
    "quantize_rows": Plan(
        sizes={"K": ROW_SIZES}, leading=LEADING, extremes=quantize_extremes, edges=quantize_edges, large=LONG_ROWS
    ),
    "requantize": Plan(
        parameters={"shift": range(32)},
        leading=FLAT,
        extremes=requantize_extremes,
        edges=requantize_edges,
        large=LONG_FLAT,
    ),
    "ternary_linear": Plan(
        sizes={"K": DEPTHS, "N": (*COLUMNS, 0)}, parameters=SCALE, leading=ROWS, extremes=linear_extremes, large=LARGE
    ),
    "ternary_linear_requant": Plan(
        sizes={"K": DEPTHS, "N": COLUMNS}, parameters=SCALE, leading=ROWS, extremes=requant_extremes, large=LARGE
    ),
}
