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


def padded(D: int, *values: int) -> np.ndarray:
    return np.array([*values] + [0] * (D - len(values)), np.int32)


def edges() -> Iterator[Extreme]:
    """Results of 8 bits, which `norm_quantize` keeps as they are."""
    small = (np.arange(24 * 33) * 7919 % 10007 % 11 - 5).astype(np.int32).reshape(24, 33)
    yield Extreme([(small, (np.arange(33) * 37 % 255 - 127).astype(np.int16))], {"b": 3, "s": 4})

    # The scale is 2**-8, so y is gamma over 16: ties and their neighbours.
    gamma = np.array([8 * odd + near for odd in (-245, -3, -1, 1, 3, 245) for near in (-1, 0, 1)], np.int16)
    yield Extreme(
        [(np.resize([256, 256, -256, -256], (1, 36)).astype(np.int32), np.repeat(gamma, 2))], {"b": 3, "s": 4}
    )

    # D is 21 squared: 21**2 times the mean square is just the target, or would be more if fewer of its bits were cut.
    peak = 2**19
    rows = [padded(441, peak, peak, -peak, -peak, rest, -rest) for rest in (0, 100, 150, 200)]
    yield Extreme([(np.array(rows), np.full(441, -9, np.int16))], {"b": 3, "s": 0})

    # Sums beyond int32, and a sum of squares that a float64 rounds down to 2**54.
    full = np.full(515, LIMIT, np.int32)
    yield Extreme([(np.array([full, -full]), np.full(515, 3, np.int16))], {"b": 3, "s": 0})
    halves = np.repeat(np.array([1, -1], np.int32), 512) << 22
    halves[[0, -1]] += 1
    yield Extreme([(halves[None], np.full(1024, 101, np.int16))], {"b": 0, "s": 0})


NORM = Plan(
    sizes={"D": (*ROW_SIZES, 1023, 1025)},
    parameters={"b": MANTISSAS, "s": range(16)},
    extremes=extremes,
    edges=edges,
    large=LARGE,
)
PLANS = {"bitshift_norm": NORM, "norm_quantize": NORM}
