"""Plans of ``spec.ops.packing``."""

from collections.abc import Iterator

import numpy as np

from mamba_integer import spec

from .plan import LEADING, LONG_ROWS, Extreme, Plan

DIGIT_COUNTS = (1, 2, 3, 4, 5, 6, 9, 10, 16, 17, 63, 64, 65, 130)
ENDS = np.array([[-1] * 5, [0] * 5, [1] * 5], np.int8)


def pack_extremes() -> Iterator[Extreme]:
    yield Extreme([(ENDS,)])
    yield Extreme([(ENDS[:, :2],)])


def unpack_extremes(pack) -> Iterator[Extreme]:
    yield Extreme([(pack(ENDS),)], {"K": 5})


PLANS = {
    "pack_ternary": Plan(sizes={"K": DIGIT_COUNTS}, leading=LEADING, extremes=pack_extremes, large=LONG_ROWS),
    "unpack_ternary": Plan(
        parameters={"K": DIGIT_COUNTS},
        leading=LEADING,
        extremes=lambda: unpack_extremes(spec.pack_ternary),
        large=LONG_ROWS,
    ),
    "pack_trits": Plan(sizes={"K": DIGIT_COUNTS}, leading=LEADING, extremes=pack_extremes, large=LONG_ROWS),
    "unpack_trits": Plan(
        parameters={"K": DIGIT_COUNTS},
        leading=LEADING,
        extremes=lambda: unpack_extremes(spec.pack_trits),
        large=LONG_ROWS,
    ),
}
