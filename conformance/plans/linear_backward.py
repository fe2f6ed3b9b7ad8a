"""Plans of ``spec.ops.linear_backward``."""

from collections.abc import Iterator

import numpy as np

from mamba_integer import spec

from .linear import COLUMNS, DEPTHS, ROWS, SCALE
from .plan import Extreme, Plan

END = 32767


def backward_extremes() -> Iterator[Extreme]:
    for n, num, shift in ((1, 1, 0), (5, 32767, 47), (64, 181, 12)):
        w = spec.pack_ternary(np.array([[1, -1]] * n, np.int8))
        yield Extreme([(np.full((1, n), END, np.int16), w)], {"K": 2, "num": num, "shift": shift})


def weight_extremes() -> Iterator[Extreme]:
    # The sums of the last two leave int32.
    for rows, bits in ((1, 2), (5, 8), (64, 16), (1030, 16), (133200, 8)):
        end = 2 ** (bits - 1) - 1
        dy = np.full((rows, 2), end, np.int16) * np.array([1, -1], np.int16)
        yield Extreme([(dy, np.full((rows, 1), 127, np.int8))], {"bits": bits})


PLANS = {
    "ternary_linear_backward": Plan(
        sizes={"N": DEPTHS}, parameters={"K": COLUMNS, **SCALE}, leading=ROWS, extremes=backward_extremes
    ),
    "ternary_linear_backward_weight": Plan(
        sizes={"N": (*COLUMNS, 0), "K": (*COLUMNS, 0)},
        parameters={"bits": (16, 8, 2, 9)},
        leading=(*ROWS, (130,)),
        extremes=weight_extremes,
    ),
}
