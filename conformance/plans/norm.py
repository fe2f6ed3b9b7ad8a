"""Plans of ``spec.ops.norm``."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from mamba_integer.spec.ops.norm import row_scale

from .activation import EVERY, closest
from .plan import ROW_SIZES, Extreme, Plan, ties

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


def level(size: int, gamma: list[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a row of a number and its negative, alternating, for a gamma each."""
    return np.resize([size, -size], (1, 2 * len(gamma))).astype(np.int32), np.repeat(gamma, 2).astype(np.int16)


def at_ties(size: int, b: int, s: int) -> tuple[np.ndarray, np.ndarray]:
    """Return such a row, and the gammas whose results are closest to a tie from either side."""
    _, k, m = row_scale(level(size, [0])[0], b)
    shift = k.item() + b + s
    past_tie = size * m.item() * EVERY - (1 << (shift - 1))
    return level(size, np.concatenate([closest(distance % (1 << shift), 20) for distance in (past_tie, -1 - past_tie)]))


def edges() -> Iterator[Extreme]:
    """Results of 8 bits, which `norm_quantize` keeps as they are."""
    small = (np.arange(24 * 33) * 7919 % 10007 % 11 - 5).astype(np.int32).reshape(24, 33)
    gamma = (np.arange(33) * 37 % 255 - 127).astype(np.int16)
    yield Extreme([(small, gamma)], {"b": 3, "s": 4}, "small rows, whose results have 8 bits")

    # Few elements that are not zero, and means that are whole, -3 among them: -21 times a seventh in float32 is less.
    few = np.array([[*row, 0, 0, 0] for row in product((0, 1, 2), repeat=4)], np.int32)
    rows = np.concatenate([few, -few, few - 3])
    yield Extreme([(rows, np.full(7, 9999, np.int16))], {"b": 3, "s": 0}, "rows of small digits; means that are whole")

    # The scale is 2**-8, so y is gamma over 16: ties, also of the exponent that `norm_quantize` gives a row, and peaks
    # of either sign, in the last place alone, at and beside powers of two.
    calls = []
    for peak in (127, -127, 128, -128, 255, 256, -256, 2047):
        e = max(0, peak.bit_length() - 7)
        small = np.concatenate([ties(4, 0, 2047), ties(4 + e, 0, 2047) - 8 * (e > 0)])
        row, gamma = level(256, [*small[abs(small) < 8 * abs(peak)], 16 * peak])
        gamma[-2] = 0
        calls.append((row, gamma))
    # Other scales: the closest to ties of the one rounding, of small products and of those that no float32 holds.
    calls += [at_ties(size, b=3, s=4) for size in (3, 201 << 12, 7_000_003)]
    yield Extreme(calls, {"b": 3, "s": 4}, "results at ties, beside a peak at and about a power of two")

    # D is 21 squared: 21**2 times the mean square is just the target, or would be more if fewer of its bits were cut.
    peak = 2**19
    close = [padded(441, peak, peak, -peak, -peak, rest, -rest) for rest in (0, 100, 150, 200)]
    purpose = "a sum of squares that just meets the target of its mantissa, or misses it by a little"
    yield Extreme([(np.array(close), np.full(441, -9, np.int16))], {"b": 3, "s": 0}, purpose)

    # Sums beyond int32, and a sum of squares that a float64 rounds down to 2**54.
    full = np.full(515, LIMIT, np.int32)
    yield Extreme([(np.array([full, -full]), np.full(515, 3, np.int16))], {"b": 3, "s": 0}, "sums that no int32 holds")
    halves = np.repeat(np.array([1, -1], np.int32), 512) << 22
    halves[[0, -1]] += 1
    purpose = "a sum of squares that a float64 rounds down to a power of four"
    yield Extreme([(halves[None], np.full(1024, 101, np.int16))], {"b": 0, "s": 0}, purpose)


NORM = Plan(
    sizes={"D": (*ROW_SIZES, 1023, 1025)},
    parameters={"b": MANTISSAS, "s": range(16)},
    extremes=extremes,
    edges=edges,
    large=LARGE,
)
PLANS = {"bitshift_norm": NORM, "norm_quantize": NORM}
