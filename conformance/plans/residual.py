"""Plans of ``spec.ops.residual``."""

from collections.abc import Iterator

import numpy as np

from .activation import ENDS, FLAT
from .plan import LONG_FLAT, Extreme, Plan

RESIDUAL_ENDS = np.array([-(2**23) + 1, 0, 2**23 - 1], np.int32)
GATES = (1, 0, -1, 2, 3, 1024, -1023, 16384, 32767, -32767)


def extremes() -> Iterator[Extreme]:
    r, x = (np.ascontiguousarray(a) for a in np.meshgrid(RESIDUAL_ENDS, ENDS))
    for num in (-32767, -1, 0, 1, 32767):
        for shift in (0, 1, 15, 30):
            yield Extreme([(r, x)], {"num": num, "shift": shift})


PLANS = {
    "residual_add": Plan(
        parameters={"num": GATES, "shift": range(31)}, leading=FLAT, extremes=extremes, large=LONG_FLAT
    )
}
