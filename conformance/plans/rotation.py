"""Plans of ``spec.ops.rotation``."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np

from mamba_integer.spec.ops.rotation import DOMAIN, gam_limit, lam_limit

from .plan import BATCH_SIZES, Extreme, Plan

SHIFTS = (14, 2, 3, 8, 15, 16, 29, 30)
PAIRS = (1, 2, 3, 8, 31, 33, 0)
SIGNS = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])


def corners(s: int) -> tuple[np.ndarray, ...]:
    """Return every sign of full coordinates, shape (4, 4, 2), against every sign of full coefficients, shape (4,)."""
    at = SimpleNamespace(s=s)
    x = np.broadcast_to(SIGNS[:, None, :] * DOMAIN, (4, 4, 2)).astype(np.int32)
    lam, gam = (SIGNS * [lam_limit(at), gam_limit(at)]).astype(np.int32).T
    return x, lam.copy(), gam.copy(), np.zeros(4, np.int8)


def pair_extremes() -> Iterator[Extreme]:
    for s in SHIFTS:
        yield Extreme([corners(s)], {"s": s})


def channel_extremes() -> Iterator[Extreme]:
    for s in SHIFTS:
        x, *coefficients = corners(s)
        yield Extreme([(x.reshape(4, 1, 8), *(a[None] for a in coefficients))], {"s": s})


PAIR_PLAN = Plan(sizes={"P": PAIRS}, parameters={"s": SHIFTS}, extremes=pair_extremes, large=({"...": 130, "P": 65},))
CHANNEL_PLAN = Plan(
    sizes={"B": BATCH_SIZES, "L": (1, 2, 5, 0), "P": PAIRS},
    parameters={"s": SHIFTS},
    extremes=channel_extremes,
    large=({"B": 2, "L": 67, "P": 65},),
)
PLANS = {
    "dyadic_rotate": PAIR_PLAN,
    "dyadic_rotate_inverse": PAIR_PLAN,
    "rope": CHANNEL_PLAN,
    "rope_inverse": CHANNEL_PLAN,
}
