"""Plans of ``spec.ops.optimizer``."""

from collections.abc import Iterator
from itertools import product
from math import gcd
from random import Random
from typing import Any

import numpy as np

from mamba_integer.spec.ops.optimizer import decay_share

from .activation import FLAT
from .gradient import GRADIENT_ENDS, REDUCED
from .plan import LONG_FLAT, Extreme, Plan, beside_ties

LARGEST_WEIGHT = 2**28
MOMENTUM_ENDS = np.array([-(2**27) + 1, 0, 2**27 - 1], np.int32)
LOWS = (-LARGEST_WEIGHT, -1, 0, -1000, 5, LARGEST_WEIGHT)
MANY = 65_601
STEPS = (0, 1, 2, 7, 1000, 2**31 - 2)


def project_extremes() -> Iterator[Extreme]:
    for size in (2, 5):
        count = 3 * size
        # One weight is just half the mean size: 2 count (count - 1) = (count - 1) + (count - 1) (2 count - 1).
        tied = np.full((3, size), 2 * count - 1, np.int32)
        tied[0, 0] = count - 1
        large = tied * (LARGEST_WEIGHT // (2 * count - 1))
        ends = (np.full((3, size), end, np.int32) for end in (-LARGEST_WEIGHT, 0))
        calls = [(w,) for w in (*ends, tied, -tied, large, -large)]
        yield Extreme(calls, purpose="weights at their ends, and one that is just half of the mean size")


def project_edges() -> Iterator[Extreme]:
    """A weight is half the mean size but for one, in a matrix whose sums need more bits than a float32 has."""
    count, size = 15, LARGEST_WEIGHT // 29
    for offset, other in ((-1, 0), (0, 0), (1, 0), (0, -1), (0, 1)):
        w = np.full((3, 5), size * (2 * count - 1), np.int32)
        w[0, 0], w[2, 4] = size * (count - 1) + offset, w[2, 4] + other
        yield Extreme([(w,), (-w,)], purpose="a weight at half of the mean size, or beside it, among sums of many bits")
    half, beside, rest = (1 << 26) + 1, 100, 65 * 65 - 200
    near = np.repeat(np.array([half, half + 1], np.int32), beside)
    total = 2 * 65 * 65 * half - int(near.sum(dtype=np.int64))
    others = np.full(rest, total // rest, np.int32)
    others[: total % rest] += 1
    matrix = np.concatenate([near, others]).reshape(65, 65)
    lighter = matrix.copy()
    lighter[64, 64] -= 1  # so that a weight at the half before is above it now, by less than one
    yield Extreme(
        [(matrix,), (lighter,)],
        purpose="many weights at half of the mean size, or one above, of more bits than a float32",
    )


def greatest_weight(random: Random, at: Any) -> int:
    return random.choice([high for high in (LARGEST_WEIGHT, 0, 999, 2**15) if high >= at.low] or [at.low])


def lion_extremes() -> Iterator[Extreme]:
    for low, high in ((-LARGEST_WEIGHT, LARGEST_WEIGHT), (0, 2**20), (-7, -5), (9, 9)):
        ends = np.array([low, high], np.int32)
        w, m, g = (np.ascontiguousarray(a) for a in np.meshgrid(ends, MOMENTUM_ENDS, GRADIENT_ENDS))
        for lr, decay in ((0, 0), (2**24, 0), (8192, 6554), (2**24, 2**16 - 1)):
            for m_shift, g_up, g_down in ((0, 0, 0), (-3, 27, 62), (28, 0, 62), (1, 5, 62)):
                parameters = {"lr": lr, "m_shift": m_shift, "g_up": g_up, "g_down": g_down}
                yield Extreme([(w, m, g)], parameters | {"low": low, "high": high, "decay": decay})


def lion_edges() -> Iterator[Extreme]:
    """Losses that are ties of either sign, votes that the new momentum would cast otherwise, a gradient of 61 bits."""
    whole = {"low": -LARGEST_WEIGHT, "high": LARGEST_WEIGHT, "m_shift": 0, "g_up": 0}
    halves = np.array([-3, -1, 1, 3], np.int32) << 15
    still = np.zeros(4, np.int32), np.zeros(4, np.int64)
    yield Extreme([(halves, *still)], whole | {"lr": 2**24, "decay": 3, "g_down": 0}, "losses that are ties")
    m, g = np.array([1000, -1000], np.int32), np.array([-6950, 6950])
    purpose = "a vote that the new momentum would cast otherwise"
    yield Extreme([(np.zeros(2, np.int32), m, g)], whole | {"lr": 8192, "decay": 0, "g_down": 0}, purpose)
    g = np.array([63 * 2**55 - 1, 63 * 2**55, 1 - 63 * 2**55])
    call = np.zeros(3, np.int32), np.zeros(3, np.int32), g
    yield Extreme([call], whole | {"lr": 0, "decay": 0, "g_down": 56}, "a gradient of 61 bits about a tie")
    # The share lost is 7.5 of 2**32, rounded to 8, half of which the heaviest weight loses.
    heaviest = np.array([LARGEST_WEIGHT, -LARGEST_WEIGHT, 0, 1], np.int32)
    purpose = "a share lost that is a tie, and the heaviest weights"
    yield Extreme([(heaviest, *still)], whole | {"lr": 15, "decay": 128, "g_down": 0}, purpose)
    # More weights are clamped than 16 bits count, and all of each block.
    clamped = np.full(MANY, LARGEST_WEIGHT, np.int32), np.full(MANY, -1, np.int32), np.full(MANY, -1)
    yield Extreme([clamped], whole | {"lr": 1, "decay": 0, "g_down": 0}, "more clamped weights than 16 bits count")
    for shift in range(1, 28):
        parameters = whole | {"m_shift": -shift, "g_up": shift, "g_down": 0, "lr": 8192, "decay": 0}
        most = MOMENTUM_ENDS[::2], np.array([1, -1])
        yield Extreme(
            [(np.zeros(2, np.int32), *most)], parameters, "momenta and gradients that gain bits at their ends"
        )
    rate = {"lr": 2**24 - 129, "decay": 2**16 - 1}  # of which an odd share is lost
    heavy = beside_ties(32, LARGEST_WEIGHT, decay_share(**rate)).astype(np.int32)
    resting = np.zeros(heavy.size, np.int32), np.zeros(heavy.size, np.int64)
    yield Extreme([(heavy, *resting)], whole | rate | {"g_down": 0}, "losses beside ties, of more bits than a float64")


def last_rate(random: Random, at: Any) -> int:
    return random.choice((0, at.peak, at.peak >> 4))


def run_length(random: Random, at: Any) -> int:
    return random.choice((at.warmup + 1, min(at.warmup + 7, 2**31 - 1), 2**31 - 1))


def rate_extremes() -> Iterator[Extreme]:
    for warmup, total in ((0, 1), (1, 2), (7, 100), (1000, 2**31 - 2)):
        steps = np.array([0, max(warmup - 1, 0), warmup, total - 1, total], np.int32)
        for peak, last in ((0, 0), (2**24, 0), (8192, 512), (100, 100)):
            yield Extreme([(steps,)], {"peak": peak, "last": last, "warmup": warmup, "total": total})


def beside_half(run: int, beside: int) -> tuple[int, int]:
    """Return a peak and a number of steps, of so many, whose rate is half a unit but for half of one step's share.

    Of the greatest peaks it is the first for which a float64 has too few bits for the quotient.
    """
    for peak in range(2**24 - 3, 0, -2):
        if gcd(peak, run) == 1:
            count = (run + beside) // 2 * pow(peak, -1, run) % run
            numerator = peak * count + (run >> 1)
            if int(float(numerator) / run) != numerator // run:
                break
    return peak, count


def rate_edges() -> Iterator[Extreme]:
    """Ties on the way up and down, and steps after the last, at which a steep schedule must not fall on."""
    for peak, last in ((9, 0), (9, 2), (9, 4)):
        steps = np.arange(7, dtype=np.int32)
        schedule = {"peak": peak, "last": last, "warmup": 2, "total": 6}
        yield Extreme([(steps,)], schedule, "rates that are ties, on the way up and down")
    steps = np.array([9, 10, 11, 12, 2**31 - 2], np.int32)
    schedule = {"peak": 2**24, "last": 100, "warmup": 0, "total": 10}
    yield Extreme([(steps,)], schedule, "steps about the last one and far after it")
    longest = 2**31 - 3
    for (warmup, run), beside in product(((longest, longest + 1), (0, longest)), (-1, 1)):
        peak, count = beside_half(longest, beside)
        steps = np.array([count - 1 if warmup else longest - count], np.int32)
        schedule = {"peak": peak, "last": 0, "warmup": warmup, "total": run}
        yield Extreme([(steps,)], schedule, "rates beside ties, of more bits than a float64")


def error_edges() -> Iterator[Extreme]:
    """Errors around the greatest of a width, and around the sizes from which they are coarse or fine."""
    for bits in (4, 8, 16, 32):
        largest = np.array(sorted({max(0, 2**t + near) for t in range(bits + 1) for near in (-2, -1, 0, 1, 2)}))
        purpose = "errors about every power of two, where they become coarse or fine"
        yield Extreme([(np.full(largest.shape, 5, np.int32), largest)], {"bits": bits}, purpose)


def error_extremes() -> Iterator[Extreme]:
    exponent, largest = np.meshgrid(np.array([-40, 60], np.int32), np.array([0, 1, 2**63 - 1]))
    for bits in (4, 8, 16, 32):
        yield Extreme([(np.ascontiguousarray(exponent), np.ascontiguousarray(largest))], {"bits": bits})


def momentum_extremes() -> Iterator[Extreme]:
    ends = np.array([-100, 200], np.int32)
    magnitudes = np.array([0, 1, 2**62 - 1]), np.array([0, 1, 2**27 - 1])
    yield Extreme([tuple(np.ascontiguousarray(a) for a in np.meshgrid(ends, ends, *magnitudes))])


def momentum_edges() -> Iterator[Extreme]:
    """Every power of two and its neighbours, against a momentum that is less, and the reverse."""
    for most, least in ((62, 0), (27, 3)):
        wide = np.array(sorted({max(0, 2**t + near) for t in range(most) for near in (-1, 0, 1)}))
        magnitudes = (wide, np.full(wide.shape, least)) if most == 62 else (np.full(wide.shape, least), wide)
        exponents = np.full(wide.shape, 4, np.int32), np.full(wide.shape, 9, np.int32)
        yield Extreme([(*exponents, *magnitudes)], purpose="magnitudes about every power of two, against a smaller one")


PLANS = {
    "ternary_project": Plan(
        sizes={"N": (1, 2, 3, 7, 33), "K": (1, 2, 3, 4, 5, 8, 63, 64, 65, 130)},
        extremes=project_extremes,
        edges=project_edges,
        large=({"N": 67, "K": 1025},),
    ),
    "lion_update": Plan(
        parameters={
            "lr": (0, 1, 8192, 2**24),
            "m_shift": (0, 1, -1, 5, -27, 28, -300, 300),
            "g_up": (0, 1, 13, 27),
            "g_down": (0, 1, 7, 31, 32, 62),
            "low": LOWS,
            "high": greatest_weight,
            "decay": (0, 1, 6554, 2**16 - 1),
        },
        leading=REDUCED,
        extremes=lion_extremes,
        edges=lion_edges,
        large=LONG_FLAT,
    ),
    "learning_rate": Plan(
        parameters={
            "peak": (8192, 0, 1, 2**24),
            "last": last_rate,
            "warmup": (0, 1, 20, 2**31 - 2),
            "total": run_length,
        },
        leading=FLAT,
        extremes=rate_extremes,
        edges=rate_edges,
        large=LONG_FLAT,
    ),
    "gradient_exponent": Plan(
        parameters={"bits": (8, 16, 4, 5, 32)},
        leading=FLAT,
        extremes=error_extremes,
        edges=error_edges,
        large=LONG_FLAT,
    ),
    "momentum_exponent": Plan(leading=FLAT, extremes=momentum_extremes, edges=momentum_edges, large=LONG_FLAT),
}
