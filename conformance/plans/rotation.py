"""Plans of ``spec.ops.rotation``."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np

from mamba_integer.spec.ops.rotation import DOMAIN, FORWARD, INVERSE, gam_limit, lam_limit

from .plan import BATCH_SIZES, Extreme, Plan

SHIFTS = (14, 2, 3, 8, 15, 16, 29, 30)
PAIRS = (1, 2, 3, 8, 31, 33, 0)
COEFFICIENTS = ((lam_limit, (-333_333_333, 99_999_999, -5)), (gam_limit, (-555_555_555, 11_111_111, -3)))
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


def just_below(coefficient: int) -> int:
    """Return the coordinate whose product with an odd coefficient in Q.30 is one below a multiple of 2**30."""
    return (pow(-coefficient, -1, 1 << 30) + (1 << 29)) % (1 << 30) - (1 << 29)


def before_two_shears(x: np.ndarray, y: np.ndarray, lam: np.ndarray, gam: np.ndarray, direction: int):
    """Return the coordinates that the first two shears, in Q.30, turn into x and y, which the third then meets."""
    y = y - direction * ((x * gam) >> 30)
    return x - direction * ((y * lam) >> 30), y


def pairs_of_every_quadrant() -> tuple[np.ndarray, ...]:
    """Return pairs whose products a float64 rounds up, and small ones, each with coefficients of either sign."""
    lam, gam = (np.resize([limit(SimpleNamespace(s=30)) - 1 | 1, *more], 16) for limit, more in COEFFICIENTS)
    quadrant = np.repeat(np.arange(4, dtype=np.int8), 4)
    zeros = np.zeros(16, np.int64)
    below_lam, below_gam = (np.array([*map(just_below, a.tolist())]) for a in (lam, gam))
    x = [(zeros, below_lam), (below_gam, zeros), (zeros - 3, zeros + 2)]
    x += [before_two_shears(zeros + 12345, below_lam, lam, gam, direction) for direction in (FORWARD, INVERSE)]
    pairs = np.stack([np.stack(pair, axis=-1) for pair in x])
    return pairs.astype(np.int32), lam.astype(np.int32), gam.astype(np.int32), quadrant


def narrow_pairs() -> np.ndarray:
    """Return pairs of int16, whose results are none."""
    pairs = np.array([*(32767 * SIGNS), (0, 32767), (-32767, 1), (-3, 2)], np.int16)
    return np.repeat(pairs[:, None], 16, axis=1)


def pair_edges() -> Iterator[Extreme]:
    x, *coefficients = pairs_of_every_quadrant()
    purpose = "products that a float64 rounds, small ones, and pairs of int16, in every quadrant"
    yield Extreme([(x, *coefficients), (narrow_pairs(), *coefficients)], {"s": 30}, purpose)


def channel_edges() -> Iterator[Extreme]:
    (pair_extreme,) = pair_edges()
    calls = [(x.reshape(-1, 4, 8), *(a.reshape(4, 4) for a in rest)) for x, *rest in pair_extreme.calls]
    yield Extreme(calls, pair_extreme.parameters, pair_extreme.purpose)


PAIR_PLAN = Plan(
    sizes={"P": PAIRS},
    parameters={"s": SHIFTS},
    extremes=pair_extremes,
    edges=pair_edges,
    large=({"...": 130, "P": 65},),
)
CHANNEL_PLAN = Plan(
    sizes={"B": BATCH_SIZES, "L": (1, 2, 5, 0), "P": PAIRS},
    parameters={"s": SHIFTS},
    extremes=channel_extremes,
    edges=channel_edges,
    large=({"B": 2, "L": 67, "P": 65},),
)
PLANS = {
    "dyadic_rotate": PAIR_PLAN,
    "dyadic_rotate_inverse": PAIR_PLAN,
    "rope": CHANNEL_PLAN,
    "rope_inverse": CHANNEL_PLAN,
}
