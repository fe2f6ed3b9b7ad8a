"""Plans of ``spec.ops.norm``."""

from collections.abc import Iterator

import numpy as np

from .plan import ROW_SIZES, Extreme, Plan

LIMIT = 2**23 - 1
LARGE = ({"...": 3, "D": 2049}, {"...": 130, "D": 65})
MANTISSAS = (3, 0, 1, 2, 4)


def extreme_rows(D: int) -> np.ndarray:
    """Return rows that attain the bounds of means, sums of squares, exponents and mantissas."""
    one_against_all = np.full(D, -LIMIT)
    one_against_all[0] = LIMIT
    halves = np.where(np.arange(D) < (D + 1) // 2, LIMIT, -LIMIT)
    powers = [np.where(np.arange(D) < (D + 1) // 2, power, -power) for power in (1, 256)]
    rows = [np.full(D, LIMIT), np.full(D, -LIMIT), one_against_all, -one_against_all, halves, -halves, *powers]
    return np.array(rows, np.int32)


def extremes() -> Iterator[Extreme]:
    for D in (2, 3, 129):
        calls = [(extreme_rows(D), np.full(D, 32767, np.int16))]
        for b, s in (*((b, 0) for b in range(5)), (4, 15)):
            yield Extreme(calls, {"b": b, "s": s})


NORM = Plan(
    sizes={"D": (*ROW_SIZES, 1023, 1025)}, parameters={"b": MANTISSAS, "s": range(16)}, extremes=extremes, large=LARGE
)
PLANS = {"bitshift_norm": NORM, "norm_quantize": NORM}
