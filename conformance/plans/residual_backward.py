"""Plans of ``spec.ops.residual_backward``."""

from collections.abc import Iterator

import numpy as np

from .activation import FLAT
from .plan import LONG_FLAT, Extreme, Plan
from .residual import GATES

ENDS = np.array([-(2**31) + 1, 0, 2**31 - 1], np.int32)


def extremes() -> Iterator[Extreme]:
    for num in (-32767, -1, 0, 1, 32767):
        for shift in (0, 1, 31, 47):
            yield Extreme([(ENDS,)], {"num": num, "shift": shift})


PLANS = {
    "residual_add_backward": Plan(
        parameters={"num": GATES, "shift": range(48)}, leading=FLAT, extremes=extremes, large=LONG_FLAT
    )
}
