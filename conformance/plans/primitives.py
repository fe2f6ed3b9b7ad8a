"""Plans of ``spec.ops.primitives``."""

from collections.abc import Iterator

import numpy as np

from .activation import FLAT
from .plan import LONG_FLAT, Extreme, Plan, ties

ENDS = np.array([-(2**31) + 1, 0, 2**31 - 1], np.int32)


def shift_extremes() -> Iterator[Extreme]:
    for s in (0, 1, 31):
        yield Extreme([(ENDS,)], {"s": s})


def saturate_extremes() -> Iterator[Extreme]:
    for bits in (2, 8, 32):
        yield Extreme([(ENDS,)], {"bits": bits})


def shift_edges() -> Iterator[Extreme]:
    """Ties and the integers beside them, of the smallest and of the largest quotients."""
    for s in (1, 2, 5, 16, 24, 30, 31):
        yield Extreme(
            [(ties(s, (2**31 - 1) >> s, 2**31 - 1).astype(np.int32),)],
            {"s": s},
            "ties of a shift, and their neighbours",
        )


def around(*middles: int) -> np.ndarray:
    """Return the integers at, just below and just above the given ones and their negatives."""
    near_ties = {sign * (middle + beside) for middle in middles for beside in range(-2, 3) for sign in (-1, 1)}
    return np.array(sorted(x for x in near_ties if abs(x) < 2**31), np.int32)


def limits() -> Iterator[Extreme]:
    for bits in (2, 3, 8, 16, 17, 25, 31, 32):
        yield Extreme([(around(0, (1 << (bits - 1)) - 1),)], {"bits": bits}, "values about zero and about both limits")


def powers() -> Iterator[Extreme]:
    yield Extreme([(around(*(1 << b for b in range(32))),)], purpose="values about every power of two")


def squares() -> Iterator[Extreme]:
    """Every square up to 64**2, and larger ones up to the last, with what is just below, just above and halfway on."""
    roots = np.array([*range(65), *range(67, 46340, 997), *(1 << b for b in range(7, 16)), 46339, 46340])
    around_squares = roots[:, None] ** 2 + np.arange(-2, 4)
    v = np.concatenate([around_squares.ravel(), roots * (roots + 1), roots * (roots + 1) + 1])
    distinct = np.unique(v[(v >= 0) & (v < 2**31)]).astype(np.int32)
    yield Extreme([(distinct,)], purpose="values about squares, and halfway on")


PLANS = {
    "shift_round": Plan(
        parameters={"s": range(32)}, leading=FLAT, extremes=shift_extremes, edges=shift_edges, large=LONG_FLAT
    ),
    "saturate": Plan(
        parameters={"bits": range(2, 33)},
        leading=FLAT,
        extremes=saturate_extremes,
        edges=limits,
        large=LONG_FLAT,
    ),
    "bit_length": Plan(leading=FLAT, extremes=lambda: [Extreme([(ENDS,)])], edges=powers, large=LONG_FLAT),
    "isqrt": Plan(leading=FLAT, extremes=lambda: [Extreme([(ENDS[1:],)])], edges=squares, large=LONG_FLAT),
}
