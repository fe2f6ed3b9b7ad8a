"""Plans of ``spec.ops.primitives``."""

from collections.abc import Iterator

import numpy as np

from .activation import FLAT
from .plan import LONG_FLAT, Extreme, Plan

ENDS = np.array([-(2**31) + 1, 0, 2**31 - 1], np.int32)


def shift_extremes() -> Iterator[Extreme]:
    for s in (0, 1, 31):
        yield Extreme([(ENDS,)], {"s": s})


def saturate_extremes() -> Iterator[Extreme]:
    for bits in (2, 8, 32):
        yield Extreme([(ENDS,)], {"bits": bits})


PLANS = {
    "shift_round": Plan(parameters={"s": range(32)}, leading=FLAT, large=LONG_FLAT, extremes=shift_extremes),
    "saturate": Plan(parameters={"bits": range(2, 33)}, leading=FLAT, large=LONG_FLAT, extremes=saturate_extremes),
    "bit_length": Plan(leading=FLAT, large=LONG_FLAT, extremes=lambda: [Extreme([(ENDS,)])]),
    "isqrt": Plan(leading=FLAT, large=LONG_FLAT, extremes=lambda: [Extreme([(ENDS[1:],)])]),
}
