"""Plans of ``spec.ops.loss``."""

from collections.abc import Iterator

import numpy as np

from mamba_integer.spec.ops.loss import VOCABULARY

from .plan import ROW_SIZES, Extreme, Plan

FRACTIONS = (8, *range(9))
VOCABULARIES = (2, *ROW_SIZES)
LARGE = ({"...": 3, "V": 4097}, {"...": 130, "V": 66}, *({"...": 3, "V": size} for size in (2048, 4096, 16384)))
END = 32767


def extreme_logits(v: int) -> np.ndarray:
    """Return rows of v logits: all equal, one at the top of its range and the rest at the bottom, and the reverse."""
    logits = np.full((3, v), END, np.int16)
    logits[1, :-1] = -END
    logits[2, -1] = -END
    return logits


def softmax_extremes() -> Iterator[Extreme]:
    for v, f, q in ((2, 8, 1), (129, 0, 30), (5, 4, 16), (1, 8, 30)):
        yield Extreme([(extreme_logits(v),)], {"f": f, "q": q})


def cross_entropy_extremes() -> Iterator[Extreme]:
    for v, f in ((2, 8), (129, 0), (5, 1), (1, 8)):
        yield Extreme([(extreme_logits(v), np.array([0, v - 1, v - 1], np.int32))], {"f": f})


# Multiples of one by which the weight is shifted: the last that leaves any, and those that lost bits of a shift.
EXPONENTS = np.array([1, 2, 8, 14, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256])


def distances(f: int) -> np.ndarray:
    """Return distances in Q.f: every fraction, and fractions about exponents where the weight vanishes."""
    about = (EXPONENTS[:, None] << f) + np.arange(-1, 2)
    return np.unique([*range(1 << f), *about[about < 2 * END], 2 * END])


def two_logits(f: int) -> np.ndarray:
    """Return rows of a logit and a greater one by each of the distances."""
    d = distances(f)
    return np.stack([END - d, np.full(d.size, END)], axis=1).astype(np.int16)


def logits_of_sums(sums: list[int], v: int) -> np.ndarray:
    """Return rows of v logits, Q.0, whose weights add up to the given sums."""
    logits = np.full((len(sums), v), -END, np.int16)
    for row, total in zip(logits, sums, strict=True):
        ones, bits = total >> 16, [i for i in range(16) if total >> i & 1]
        row[:ones] = 0
        row[ones : ones + len(bits)] = np.array(bits) - 16
    return logits


# Sums about a power of two; and some of which a logarithm that isn't truncated as it should be is another.
SUMS = [2**17 - 1, 2**17, 2**17 + 1, 2**22 - 1, 2**22, 100062, 151189, 3278507]
ODD_SUMS = [2**24 + 10**6 + i for i in range(1, 40, 6)]  # a float32 doesn't hold them
ALL_EQUAL = np.zeros((1, VOCABULARY[1]), np.int16)  # the weights' sum is 2**32


def softmax_edges() -> Iterator[Extreme]:
    """Every fraction of a weight, ties, and sums that a float32, int32 or uint32 doesn't hold."""
    yield Extreme([((END - distances(8)[None]).astype(np.int16),)], {"f": 8, "q": 30}, "every fraction of a weight")
    sums = [2**20, 2**20 + 1, 2**20 - 1]
    yield Extreme([(logits_of_sums(sums, 33),)], {"f": 0, "q": 3}, "probabilities at ties, and beside them")
    purpose = "sums of weights that a float32, an int32 or a uint32 doesn't hold"
    yield Extreme([(logits_of_sums(ODD_SUMS, 300),), (ALL_EQUAL,)], {"f": 0, "q": 30}, purpose)
    rising = np.arange(700, dtype=np.int16)
    purpose = "a maximum that grows along the row: sums of parts can't be rescaled exactly"
    yield Extreme([(np.stack([rising, rising[::-1]]),)], {"f": 8, "q": 30}, purpose)


def cross_entropy_edges() -> Iterator[Extreme]:
    """Every fraction of a weight, sums whose logarithms are hard, the loss about its end, a target anywhere."""
    logits = two_logits(5)
    yield Extreme([(logits, np.arange(len(logits), dtype=np.int32) % 2)], {"f": 5}, "every fraction of a weight")
    nearly_equal = ALL_EQUAL.copy()
    nearly_equal[0, 40000] = -3
    calls = [(logits_of_sums(SUMS, 80), np.arange(len(SUMS), dtype=np.int32) % 2)]
    calls += [(a, np.array([40000], np.int32)) for a in (ALL_EQUAL, nearly_equal)]
    calls += [(np.array([[0, d, b]], np.int16), np.array([1], np.int32)) for d in (-END, 1 - END) for b in (0, -1, d)]
    yield Extreme(calls, {"f": 0}, "logarithms about a last place, and losses about the greatest")
    # The target is each of the lanes of a whole tile, no two of which have the same logit.
    every = np.tile(np.arange(128, dtype=np.int16) * 3, (128, 1))
    yield Extreme([(every, np.arange(128, dtype=np.int32))], {"f": 4}, "a target in each lane of a tile")


PLANS = {
    "softmax_pow2": Plan(
        sizes={"V": VOCABULARIES},
        parameters={"f": FRACTIONS, "q": (16, 1, 2, 15, 24, 29, 30)},
        extremes=softmax_extremes,
        edges=softmax_edges,
        large=LARGE,
    ),
    "cross_entropy_pow2": Plan(
        sizes={"V": VOCABULARIES},
        parameters={"f": FRACTIONS},
        extremes=cross_entropy_extremes,
        edges=cross_entropy_edges,
        large=LARGE,
    ),
}
