"""Plans of ``spec.ops.linear``."""

from collections.abc import Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np

from mamba_integer import spec
from mamba_integer.spec.ops.linear import ternary_linear_widths

from .activation import ENDS, FLAT
from .plan import LEADING, LONG_FLAT, LONG_ROWS, ROW_SIZES, Choice, Extreme, Plan, ties

DEPTHS = (1, 3, 4, 5, 31, 32, 33, 64, 127, 129, 257)
COLUMNS = (1, 2, 5, 16, 33, 64, 65)
# Few rows, many and very many take different paths in a fast backend, and many end inside a tile of 64 or 256; few rows
# of whole words of weights may be loaded at once, in shares of the depth.
LARGE = (
    {"...": 5, "K": 1025, "N": 259},
    {"...": 130, "K": 66, "N": 67},
    {"...": 7, "K": 4160, "N": 35},
    {"...": 27, "K": 1088, "N": 97},
    {"...": 9, "K": 1088, "N": 65},
    {"...": 13, "K": 2112, "N": 70},
    {"...": 20, "K": 640, "N": 3},
    *({"...": 3, "K": depth, "N": 2} for depth in (1088, 2112, 16448)),
)
# Rows that a fast backend holds in registers, by powers of two.
HELD_ROWS = (2049, 8193)
ROWS = (*LEADING, (9,), (65,), (2, 40), (257,))


def scale_shift(random: Random, at: Any) -> int:
    """Mostly shifts that bring a full accumulator near 16 bits, so that results are neither 0 nor saturated."""
    return random.choice((at.num.bit_length(), at.num.bit_length() + 8, 0, 1, 15, 24, 47))


# A float32 holds every integer up to here, and no odd one beyond.
FLOAT_END = 1 << 24
# What a digit adds to the bound of a sum, and the most digits whose sums, whole and in parts, a float32 holds.
OF_A_DIGIT = ternary_linear_widths(SimpleNamespace(K=1, num=1, shift=0))["accumulator"].range.high
LONGEST_IN_FLOATS = (FLOAT_END - 1) // OF_A_DIGIT
APART = 4096  # places between the parts of a row: tiles of a power of two add them up one by one

SCALE: dict[str, Choice] = {"num": (1, 181, 32767, 16384, 3), "shift": scale_shift}


def quantize_extremes() -> Iterator[Extreme]:
    yield Extreme([(np.array([[-32767, 5], [32767, -32767], [0, 0]], np.int16),)])


def requantize_extremes() -> Iterator[Extreme]:
    for shift in (0, 2, 31):
        yield Extreme([(np.array([-(2**31) + 1, 0, 2**31 - 1], np.int32),)], {"shift": shift})


def requantize_edges() -> Iterator[Extreme]:
    """Ties in either type, and the ends of int16, at which half of 2**shift must not be added in 16 bits."""
    for shift in (0, 1, 8, 15, 16, 23, 31):
        calls = [(ties(shift, 127, np.iinfo(dtype).max).astype(dtype),) for dtype in (np.int32, np.int16)]
        yield Extreme([*calls, (ENDS,)], {"shift": shift}, "ties in either type, and the ends of int16")


def quantize_edges() -> Iterator[Extreme]:
    """Rows with a peak of either sign, at and beside a power of two, anywhere; ties of its exponent, or zeros."""
    rows = []
    for bits in range(7, 16):
        rest = np.resize(ties(max(1, bits - 7), 126, 2**bits - 2), 58)
        peaks = [sign * (2**bits + near) for near in (0, -1, -2) for sign in (-1, 1) if 2**bits + near < 2**15]
        rows += [np.roll([*rest, peak], -11 * i) for i, peak in enumerate(peaks)]
    alone = np.zeros((8, 1025), np.int16)
    alone[:, [0, 31, 32, 127, 128, 512, 1023, 1024]] = np.diag([32, -127, 128, 255, -256, 16384, -32767, 300])
    purpose = "peaks of either sign at and beside powers of two, in any place; ties of their exponent"
    yield Extreme([(np.array(rows, np.int16),), (alone,)], purpose=purpose)


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


def summands(sums: list[int], k: int) -> np.ndarray:
    """Return rows of k integers of 8 bits that add up to the given sums."""
    wanted = np.array(sums)[:, None]
    return (np.sign(wanted) * np.clip(np.abs(wanted) - 127 * np.arange(k), 0, 127)).astype(np.int8)


# Sums and row exponents. Over 2**16: ties, their neighbours, and the ends of the result; with no shift: past int32.
SUMS_OVER_2_16 = [(a, 15) for a in (0, 1, 2, 3, 5, 65531, 65532, 65533, 65534, 65535, 65536, 65537)]
SUMS_OVER_2_16 += [(a, e) for e in (0, 7, 8) for a in (2 ** (15 - e) - 1, 2 ** (15 - e), 2 ** (15 - e) + 1)]
WIDE_SUMS = [(1, 0), (2, 0), (1, 1), (1, 15), (32769, 1), (65536, 1), (65535, 2), (65537, 15)]


def long_sums(num: int) -> tuple[np.ndarray, ...]:
    """Return a row whose sums, either side of ties of ``a * num / 2**32``, lie beyond what a float32 holds."""
    below = np.array([(2 * m + 1) * 2**31 // num for m in (65, 66, 67, 68)])
    sums = np.concatenate([below, -below - 1])
    assert (np.abs(sums) > 2**24).all()
    k, size = 18 * 2**20 // 127, np.abs(sums)[:, None]
    q = np.repeat([127, 1], [k, 127])[None].astype(np.int8)
    taken = np.hstack([np.arange(k) < size // 127, np.arange(127) < size % 127])
    w = spec.pack_ternary((np.sign(sums)[:, None] * taken).astype(np.int8))
    return q, np.array([15], np.int32), w


def past_floats(sums: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of given sums, and their digits: parts reach 2**24, then one more, alone in its tile, then fall."""
    depth = LONGEST_IN_FLOATS + 1
    rise = np.pad(summands([FLOAT_END], depth)[0], (0, -depth % APART))
    fall = summands([FLOAT_END + 1 - total for total in sums], APART)
    rows = np.array([np.concatenate([rise, [1], np.zeros(APART - 1), own]) for own in fall])
    return rows.astype(np.int8), np.where(np.arange(rows.shape[1]) < len(rise) + APART, 1, -1)


def float_edges(most: int) -> Iterator[Extreme]:
    """Sums at the end of what float32 adds exactly, and just beyond it, either side of ties; results up to ``most``.

    No other tie lies as near to 2**24: an error of one in the greatest sums of all isn't seen in a result.
    """
    k = LONGEST_IN_FLOATS
    # Of ties with results up to the most, the last below 2**24 lies between this sum and the next.
    below = FLOAT_END - 1 - FLOAT_END // (2 * most)
    about, beyond = (below, below + 1), (FLOAT_END, FLOAT_END + 1)
    rows = [summands([*sums, OF_A_DIGIT * depth], depth) for sums, depth in ((about, k), (beyond, k + 1))]
    for q, digits, shift, purpose in (
        (rows[0], np.ones(k, int), 24, "sums about the last tie that float32 adds up to exactly"),
        (rows[1], np.ones(k + 1, int), 25, "the tie at 2**24, and the first sum that float32 rounds"),
        (*past_floats(about), 24, "sums that float32 holds, of parts that it rounds"),
    ):
        w = spec.pack_ternary(np.array([digits, -digits], np.int8))
        yield Extreme([(q, np.zeros(len(q), np.int32), w)], {"num": most, "shift": shift}, purpose)


def linear_edges(most: int = 32767) -> Iterator[Extreme]:
    """Ties and the ends of the result, few rows and many; integers that int16, int32 or a float32 doesn't hold."""
    w = spec.pack_ternary(np.array([[1] * 517, [-1] * 517], np.int8))
    for sums, num, shift, purpose in (
        (SUMS_OVER_2_16, 1, 16, "sums at ties and about the ends of the result"),
        (WIDE_SUMS, 32767, 0, "products that no int32 holds"),
    ):
        q, e = summands([a for a, _ in sums], 517), np.array([e for _, e in sums], np.int32)
        yield Extreme([(q[:5], e[:5], w), (q, e, w)], {"num": num, "shift": shift}, purpose)
    yield Extreme([long_sums(16381)], {"num": 16381, "shift": 47}, "sums about ties that no float32 holds")
    yield from float_edges(most)


def requant_edges() -> Iterator[Extreme]:
    """Return those of `ternary_linear`, and ties of either rounding beside results at the ends of the exponents."""
    yield from linear_edges(most=127)  # results that 8 bits hold are quantised as they are
    largest = [0, 253, 254, 255, 256, 509, 510, 511, 512, 65533, 65535, 65537]
    sums = [(sign * a, b) for sign in (1, -1) for a in largest for b in (1, 2, 3, 5, 6, 7, 11, 255, 256, 257) if b <= a]
    q = np.hstack([summands([a for a, _ in sums], 517), summands([b for _, b in sums], 4)[:, ::-1]])
    w = np.zeros((3, 521), np.int8)
    w[:2, 517:], w[2, :517] = [[1], [-1]], 1
    e, packed = np.full(len(q), 15, np.int32), spec.pack_ternary(w)
    purpose = "ties of either rounding, in rows whose largest results are at the ends of the exponents"
    yield Extreme([(q[:5], e[:5], packed), (q, e, packed)], {"num": 1, "shift": 16}, purpose)


PLANS = {
    "quantize_rows": Plan(
        sizes={"K": ROW_SIZES},
        leading=LEADING,
        extremes=quantize_extremes,
        edges=quantize_edges,
        large=(*LONG_ROWS, *({"...": 1, "K": size} for size in HELD_ROWS)),
    ),
    "requantize": Plan(
        parameters={"shift": range(32)},
        leading=FLAT,
        extremes=requantize_extremes,
        edges=requantize_edges,
        large=LONG_FLAT,
    ),
    "ternary_linear": Plan(
        sizes={"K": DEPTHS, "N": (*COLUMNS, 0)},
        parameters=SCALE,
        leading=ROWS,
        extremes=linear_extremes,
        edges=linear_edges,
        large=LARGE,
    ),
    "ternary_linear_requant": Plan(
        sizes={"K": DEPTHS, "N": COLUMNS},
        parameters=SCALE,
        leading=ROWS,
        extremes=requant_extremes,
        edges=requant_edges,
        large=(*LARGE, *({"...": 2, "K": 5, "N": size} for size in HELD_ROWS)),
    ),
}
