"""Plans of ``spec.ops.embedding``."""

from collections.abc import Iterator

import numpy as np

from .plan import Extreme, Plan


def extremes() -> Iterator[Extreme]:
    ids, table = np.array([0, 2], np.int32), np.array([[-32767], [0], [32767]], np.int16)
    for shift in (0, 3, 8):
        yield Extreme([(ids, table)], {"shift": shift})


PLANS = {
    "embedding": Plan(
        sizes={"V": (1, 2, 3, 127, 256), "D": (1, 2, 3, 64, 129, 1023, 1025)},
        parameters={"shift": range(9)},
        extremes=extremes,
        large=({"...": 300, "V": 513, "D": 65},),
    )
}
