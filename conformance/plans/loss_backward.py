"""Plans of ``spec.ops.loss_backward``."""

from collections.abc import Iterator
from math import prod
from random import Random
from typing import Any

import numpy as np

from .loss import FRACTIONS, LARGE, VOCABULARIES, extreme_logits
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


PLANS = {
    "cross_entropy_pow2_backward": Plan(
        sizes={"V": VOCABULARIES},
        parameters={"f": FRACTIONS, "seed": SEEDS, "step": WORDS, "stream": WORDS, "first": first_row},
        extremes=backward_extremes,
        large=LARGE,
    )
}
