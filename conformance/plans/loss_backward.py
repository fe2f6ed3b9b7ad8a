"""Plans of ``spec.ops.loss_backward``."""

from collections.abc import Iterator
from math import prod
from random import Random
from typing import Any

import numpy as np

from .loss import ALL_EQUAL, FRACTIONS, LARGE, VOCABULARIES, extreme_logits, two_logits
from .plan import Extreme, Plan
from .sampling import SEEDS

WORDS = (0, 1, 77, 2**31, 2**32 - 1)


def first_row(random: Random, at: Any) -> int:
    """Choose among the first rows and nearly the last that have words of their own."""
    last = 2**32 // -(-at.V // 4) - 1
    return random.choice((0, 1, 1000, last - prod(at.leading)))


def backward_extremes() -> Iterator[Extreme]:
    for v, f, first in ((2, 8, 0), (129, 0, 1000), (5, 4, 0), (1, 8, 2**32 - 3)):
        target = np.array([0, 0, v - 1], np.int32)
        parameters = {"f": f, "seed": 0, "step": 0, "stream": 0, "first": first}
        yield Extreme([(extreme_logits(v), target)], parameters)


# No two of these parameters may take each other's place, nor lose their high bits.
KEYS = {"seed": 2**63 + 12345, "step": 2**31 + 77777, "stream": 2**31 + 70001}
# The row of three equal tokens, one of whose words is just above and just below a third of 2**31, found by trying.
ABOVE_A_THIRD, BELOW_A_THIRD = 159388254, 85883646


def backward_edges() -> Iterator[Extreme]:
    """Every fraction of a weight, words at which p turns, rows whose counters pass 2**31, sums past int32, 3 axes."""
    logits = two_logits(5)[::2]
    target = np.arange(len(logits), dtype=np.int32) % 2
    yield Extreme(
        [(logits, target)], {"f": 5, "first": 2**31 - 9} | KEYS, "every fraction of a weight; rows about 2**31"
    )
    few = logits[:24].reshape(6, 8), target[:6]
    yield Extreme([few], {"f": 8, "first": 2**16 - 3} | KEYS, "rows about 2**16")
    for first in (ABOVE_A_THIRD, BELOW_A_THIRD):
        call = np.zeros((1, 3), np.int16), np.array([0], np.int32)
        yield Extreme([call], {"f": 8, "first": first} | KEYS, "a random word just about the probability that it meets")
    call = ALL_EQUAL, np.array([40000], np.int32)
    yield Extreme([call], {"f": 0, "first": 0} | KEYS, "the largest vocabulary, with a sum of weights of 2**32")
    small = (np.arange(2 * 2 * 3 * 7) ** 2 % 61 - 30).astype(np.int16).reshape(2, 2, 3, 7)
    targets = np.arange(12, dtype=np.int32).reshape(2, 2, 3) % 7
    yield Extreme([(small, targets)], {"f": 4, "first": 5} | KEYS, "rows under three leading dimensions")


PLANS = {
    "cross_entropy_pow2_backward": Plan(
        sizes={"V": VOCABULARIES},
        parameters={"f": FRACTIONS, "seed": SEEDS, "step": WORDS, "stream": WORDS, "first": first_row},
        extremes=backward_extremes,
        edges=backward_edges,
        large=LARGE,
    )
}
