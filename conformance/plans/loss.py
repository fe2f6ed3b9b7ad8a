"""Plans of ``spec.ops.loss``."""

from collections.abc import Iterator

import numpy as np

from .plan import ROW_SIZES, Extreme, Plan

FRACTIONS = (8, *range(9))
VOCABULARIES = (2, *ROW_SIZES)
LARGE = ({"...": 3, "V": 4097}, {"...": 130, "V": 66})
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


PLANS = {
    "softmax_pow2": Plan(
        sizes={"V": VOCABULARIES},
        parameters={"f": FRACTIONS, "q": (16, 1, 2, 15, 24, 29, 30)},
        extremes=softmax_extremes,
        large=LARGE,
    ),
    "cross_entropy_pow2": Plan(
        sizes={"V": VOCABULARIES}, parameters={"f": FRACTIONS}, extremes=cross_entropy_extremes, large=LARGE
    ),
}
