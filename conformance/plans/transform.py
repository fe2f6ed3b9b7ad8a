"""Plans of ``spec.ops.transform``."""

from collections.abc import Iterator

import numpy as np

from mamba_integer.spec.ops.transform import DOMAIN, cached_twiddles

from .plan import Extreme, Plan

SHIFTS = (15, 8, 9, 16, 29, 30)


CORNERS = DOMAIN * np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)], np.int32)


def aligned_extremes(sign: int) -> Iterator[Extreme]:
    """In row k every point is as far out as it can be, at the corner nearest to where sum k would reach furthest."""
    for m, s in ((1, 8), (3, 15), (6, 8), (6, 30)):
        n = 2**m
        turns = sign * np.outer(np.arange(n), np.arange(n))
        quarters = (8 * turns + n) // (2 * n) % 4
        yield Extreme([(CORNERS[quarters], *cached_twiddles(n, s))], {"s": s}, "points whose sums reach furthest")


def plan(sign: int) -> Plan:
    return Plan(
        sizes={"m": (1, 2, 3, 4, 5, 6, 7)},
        parameters={"s": SHIFTS},
        leading=((), (0,), (1,), (2,), (1, 2)),
        extremes=lambda: aligned_extremes(sign),
        large=({"...": 3, "m": 9}, {"...": 1, "m": 12}),
    )


PLANS = {"dyadic_transform": plan(1), "dyadic_transform_inverse": plan(-1)}
