"""Plans of ``spec.ops.residual_backward``."""

from collections.abc import Iterator

import numpy as np

from .activation import FLAT
from .plan import LONG_FLAT, Extreme, Plan, ties
from .residual import GATES

ENDS = np.array([-(2**31) + 1, 0, 2**31 - 1], np.int32)


def extremes() -> Iterator[Extreme]:
    for num in (-32767, -1, 0, 1, 32767):
        for shift in (0, 1, 31, 47):
            yield Extreme([(ENDS,)], {"num": num, "shift": shift})


def edges() -> Iterator[Extreme]:
    """Ties of either sign, small and at the ends of 16 bits, of products past int32 too, and of a shift past 32."""
    for num, shift in ((1, 0), (1, 1), (1, 15), (-3, 4), (-3, 17), (32767, 28), (-32767, 44)):
        dr = ties(shift, 32767, 2**31 - 1, num).astype(np.int32)
        yield Extreme([(dr,)], {"num": num, "shift": shift}, "ties of either sign, small and at the ends of 16 bits")


PLANS = {
    "residual_add_backward": Plan(
        parameters={"num": GATES, "shift": range(48)}, leading=FLAT, extremes=extremes, edges=edges, large=LONG_FLAT
    )
}
