"""Rotations of coordinate pairs by three integer shears, which undo themselves bit for bit.

A shear adds to one coordinate a function of the other, so subtracting the same function takes it back, whatever the
rounding. The coefficients come from ``spec.tables``: see `rotation_coefficients` for what angle they turn.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from ..arrays import Int8Array, Int16Array, Int32Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op
from ..formula import Formula

DOMAIN = 3 * 2**28 - 1
ROUND_TRIP = 2**28 - 1
FORWARD, INVERSE = 1, -1


# The least integers that are at least 0.4143 * 2**s, where tan(pi/8) is 0.41421, and 0.7072 * 2**s, where sin(pi/4) is
# 0.70711.
LAM = "ceil_div(4143 * 2**s, 10000)"
GAM = "ceil_div(7072 * 2**s, 10000)"

lam_limit, gam_limit = Formula(LAM), Formula(GAM)


def quarter_turns(x, y, quadrant):
    """Return (x, y) turned by ``quadrant`` right angles."""
    return np.choose(quadrant, [x, -y, -x, y]), np.choose(quadrant, [y, x, -y, -x])


def shears(x, y, lam, gam, s, direction):
    """Return (x, y) after three shears, or undo them: the same shears in the same order, with the other sign."""
    x = x + direction * ((y * lam) >> s)
    y = y + direction * ((x * gam) >> s)
    x = x + direction * ((y * lam) >> s)
    return x, y


def turn(pairs, lam, gam, quadrant, s, direction):
    """Rotate int64 pairs along the last axis."""
    x, y = pairs[..., 0], pairs[..., 1]
    if direction == FORWARD:
        x, y = quarter_turns(x, y, quadrant)
    x, y = shears(x, y, lam, gam, s, direction)
    if direction == INVERSE:
        x, y = quarter_turns(x, y, (4 - quadrant) & 3)
    return np.stack([x, y], axis=-1)


def shear_steps(limit: int, at, direction: int) -> dict[str, Interval]:
    """Return the range of every intermediate of the shears for coordinates in [-limit, limit].

    An intermediate is a sum of coordinates and floored products. It is furthest from zero where all its terms have one
    sign, and there it grows with the magnitude of every factor: its extremes lie at corners of the box of inputs.
    """
    ends = [(-limit, limit), (-limit, limit), (-lam_limit(at), lam_limit(at)), (-gam_limit(at), gam_limit(at))]
    seen: dict[str, list[int]] = {}
    for x, y, lam, gam in product(*ends):
        product1 = y * lam
        x1 = x + direction * (product1 >> at.s)
        product2 = x1 * gam
        y1 = y + direction * (product2 >> at.s)
        product3 = y1 * lam
        x2 = x1 + direction * (product3 >> at.s)
        for name, value in dict(product1=product1, x1=x1, product2=product2, y1=y1, product3=product3, x2=x2).items():
            seen.setdefault(name, []).append(value)
    return {name: Interval(min(values), max(values)) for name, values in seen.items()}


def widths(at, direction: int) -> dict[str, Width]:
    return {
        name: Width(interval, "int64" if name.startswith("product") else "int32")
        for name, interval in shear_steps(DOMAIN, at, direction).items()
    }


def forward_widths(at):
    return widths(at, FORWARD)


def inverse_widths(at):
    return widths(at, INVERSE)


def coefficients(shape: str) -> tuple[Tensor, ...]:
    return (
        Tensor("lam", "int32", shape, f"-{LAM}", LAM, "-tan(r/2) in Q.s, r the rest of the angle"),
        Tensor("gam", "int32", shape, f"-{GAM}", GAM, "sin(r) in Q.s"),
        Tensor("quadrant", "int8", shape, 0, 3, "number of right angles in the angle"),
    )


def coordinates(shape: str, meaning: str = "pairs (x, y), any Q format") -> Tensor:
    return Tensor("x", ("int32", "int16"), shape, -DOMAIN, DOMAIN, meaning)


SHIFT = Parameter("s", 2, 30, "fraction bits of lam and gam")
EXACT = "rotation and inverse undo each other wherever both results lie in the domain; for |x| < 2**28 they always do"


@op(
    inputs=(coordinates("... P 2"), *coefficients("P")),
    outputs=(Tensor("y", "int32", "... P 2", meaning="rotated pairs, the format of x"),),
    parameters=(SHIFT,),
    clauses={
        "C1": "quadrant times, (x, y) becomes (-y, x)",
        "C2": "x += floor(y lam / 2**s), y += floor(x gam / 2**s), x += floor(y lam / 2**s), one after the other",
        "C3": EXACT,
    },
    widths=forward_widths,
)
def dyadic_rotate(
    x: Int32Array | Int16Array, lam: Int32Array, gam: Int32Array, quadrant: Int8Array, /, *, s: int
) -> Int32Array:
    """Rotate pairs of coordinates by an angle each: quarter turns (C1), then three floored shears (C2).

    Notes
    -----
    Lifting: F. A. M. L. Bruekers and A. W. M. van den Enden, "New networks for perfect inversion and perfect
    reconstruction", 1992. Each floor is off by less than one unit, the three together by less than 3.1.

    Examples
    --------
    >>> lam, gam = np.array([-6786], np.int32), np.array([11585], np.int32)  # 45 degrees in Q.14
    >>> dyadic_rotate(np.array([[100, 0]], np.int32), lam, gam, np.array([0], np.int8), s=14).tolist()
    [[71, 70]]
    >>> dyadic_rotate(np.array([[100, 0]], np.int32), lam, gam, np.array([1], np.int8), s=14).tolist()
    [[-71, 70]]
    """
    # ACCUMULATE
    y = turn(x.astype(np.int64), lam.astype(np.int64), gam.astype(np.int64), quadrant, s, FORWARD)
    return y.astype(np.int32)


@op(
    inputs=(coordinates("... P 2"), *coefficients("P")),
    outputs=(Tensor("y", "int32", "... P 2", meaning="rotated pairs, the format of x"),),
    parameters=(SHIFT,),
    clauses={
        "C1": "x -= floor(y lam / 2**s), y -= floor(x gam / 2**s), x -= floor(y lam / 2**s), one after the other",
        "C2": "then, quadrant times, (x, y) becomes (y, -x)",
        "C3": EXACT,
    },
    widths=inverse_widths,
    inverse_of="dyadic_rotate",
    round_trip=ROUND_TRIP,
)
def dyadic_rotate_inverse(
    x: Int32Array | Int16Array, lam: Int32Array, gam: Int32Array, quadrant: Int8Array, /, *, s: int
) -> Int32Array:
    """Undo `dyadic_rotate` exactly: take back its shears (C1), then its quarter turns (C2).

    Examples
    --------
    >>> lam, gam = np.array([-6786], np.int32), np.array([11585], np.int32)
    >>> dyadic_rotate_inverse(np.array([[-71, 70]], np.int32), lam, gam, np.array([1], np.int8), s=14).tolist()
    [[100, 0]]
    """
    # ACCUMULATE
    y = turn(x.astype(np.int64), lam.astype(np.int64), gam.astype(np.int64), quadrant, s, INVERSE)
    return y.astype(np.int32)


@op(
    inputs=(coordinates("B L 2*P", "channels, any Q format"), *coefficients("L P")),
    outputs=(Tensor("y", "int32", "B L 2*P", meaning="rotated channels, the format of x"),),
    parameters=(SHIFT,),
    clauses={
        "C1": "channels 2i and 2i+1 of position l are a pair, turned as by dyadic_rotate with coefficients [l, i]",
        "C2": EXACT,
    },
    widths=forward_widths,
    composed_of=("dyadic_rotate",),
    composed_along="L",
)
def rope(x: Int32Array | Int16Array, lam: Int32Array, gam: Int32Array, quadrant: Int8Array, /, *, s: int) -> Int32Array:
    """Apply the rotary position embedding: rotate neighbouring channels by their position's angle (C1).

    Notes
    -----
    J. Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021.

    Examples
    --------
    >>> x = np.array([[[100, 0], [100, 0]]], np.int16)
    >>> lam, gam = np.array([[0], [4807]], np.int32), np.array([[0], [-8852]], np.int32)  # positions 0, 1 in Q.14
    >>> rope(x, lam, gam, np.array([[0], [1]], np.int8), s=14).tolist()
    [[[100, 0], [53, 84]]]
    """
    pairs = x.reshape(len(x), lam.size, 2)
    turned = dyadic_rotate.golden(pairs, lam.reshape(-1), gam.reshape(-1), quadrant.reshape(-1), s=s)
    return turned.reshape(x.shape)


@op(
    inputs=(coordinates("B L 2*P", "channels, any Q format"), *coefficients("L P")),
    outputs=(Tensor("y", "int32", "B L 2*P", meaning="rotated channels, the format of x"),),
    parameters=(SHIFT,),
    clauses={
        "C1": "channels 2i and 2i+1 of position l are turned as by dyadic_rotate_inverse with coefficients [l, i]",
        "C2": EXACT,
    },
    widths=inverse_widths,
    composed_of=("dyadic_rotate_inverse",),
    composed_along="L",
    inverse_of="rope",
    round_trip=ROUND_TRIP,
)
def rope_inverse(
    x: Int32Array | Int16Array, lam: Int32Array, gam: Int32Array, quadrant: Int8Array, /, *, s: int
) -> Int32Array:
    """Undo `rope` exactly (C1).

    Examples
    --------
    >>> lam, gam = np.array([[4807]], np.int32), np.array([[-8852]], np.int32)
    >>> rope_inverse(np.array([[[53, 84]]], np.int32), lam, gam, np.array([[1]], np.int8), s=14).tolist()
    [[[100, 0]]]
    """
    pairs = x.reshape(len(x), lam.size, 2)
    turned = dyadic_rotate_inverse.golden(pairs, lam.reshape(-1), gam.reshape(-1), quadrant.reshape(-1), s=s)
    return turned.reshape(x.shape)


__all__ = ["dyadic_rotate", "dyadic_rotate_inverse", "rope", "rope_inverse"]
