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


def sum_edges() -> Iterator[Extreme]:
    """Sums around a tie beyond 2**24, which a float32 doesn't tell apart."""
    dy = np.full((9, 513), END, np.int16)
    dy[:, 512] = 1024 + np.arange(-4, 5)
    yield Extreme([(dy, spec.pack_ternary(np.ones((513, 1), np.int8)))], {"K": 1, "num": 1, "shift": 10})


def weight_extremes() -> Iterator[Extreme]:
    # The sums of the last two leave int32.
    for rows, bits in ((1, 2), (5, 8), (64, 16), (1030, 16), (133200, 8)):
        end = 2 ** (bits - 1) - 1
        dy = np.full((rows, 2), end, np.int16) * np.array([1, -1], np.int16)
        yield Extreme([(dy, np.full((rows, 1), 127, np.int8))], {"bits": bits})


PLANS = {
    "ternary_linear_backward": Plan(
        sizes={"N": DEPTHS},
        parameters={"K": COLUMNS, **SCALE},
        leading=ROWS,
        extremes=backward_extremes,
        edges=sum_edges,
        large=({"...": 5, "N": 1025, "K": 259}, {"...": 130, "N": 66, "K": 67}),
    ),
    "ternary_linear_backward_weight": Plan(
        sizes={"N": (*COLUMNS, 0), "K": (*COLUMNS, 0)},
        parameters={"bits": (16, 8, 2, 9)},
        leading=(*ROWS, (130,)),
        extremes=weight_extremes,
        large=({"...": 259, "N": 66, "K": 67}, {"...": 33, "N": 130, "K": 259}),
    ),
}
