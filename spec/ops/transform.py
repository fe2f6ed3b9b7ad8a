"""The spectral transform: a unitary discrete Fourier transform made of rotations, so it undoes itself bit for bit."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..arrays import Int8Array, Int32Array
from ..bounds import Interval, Width
from ..contract import Constant, Parameter, Tensor, op
from ..tables import eighth_turn, twiddles
from .rotation import FORWARD, INVERSE, gam_limit, shears, turn

DOMAIN = 2**24 - 1
ROUND_TRIP = 2**17 - 1

cached_twiddles = cache(twiddles)


def magnitude_bound(limit: int, m: int, s: int) -> int:
    """Return a bound on the magnitude of every complex number after m stages, for coordinates in [-limit, limit].

    A stage adds or subtracts two numbers over sqrt(2), so magnitudes grow by at most sqrt(2) < 1.4143. The rounded
    coefficients turn and stretch by less than ``3 * 2**-s`` more (1 of it in the twiddle, 1.6 in the butterfly). Three
    floors shift a point by less than 3.1: in the twiddle, and in both planes of the butterfly; 9 in all, 10 with the
    rounding of this bound.
    """
    bound = 14143 * limit // 10000 + 1
    for _ in range(m):
        bound = 14143 * bound * (2**s + 3) // (10000 * 2**s) + 10
    return bound


def widths(at):
    # Between its shears a point leaves the circle by the factor sqrt(1 + tan(pi/8)**2) < 13/12.
    coordinate = magnitude_bound(DOMAIN, at.m, at.s) * 13 // 12 + 1
    return {
        "product": Width(Interval.symmetric(coordinate * gam_limit(at)), "int64", attained=False),
        "coordinate": Width(Interval.symmetric(coordinate), "int32", attained=False),
    }


TWIDDLES = "twiddles: those of spec.tables.twiddles(2**m, s)"
INPUTS = (
    Tensor("x", "int32", "... 2^m 2", -DOMAIN, DOMAIN, "complex numbers (real, imaginary), any Q format"),
    Constant("lam", "int32", "2^m/2", meaning=TWIDDLES, value=lambda at: cached_twiddles(2**at.m, at.s).lam),
    Constant("gam", "int32", "2^m/2", meaning=TWIDDLES, value=lambda at: cached_twiddles(2**at.m, at.s).gam),
    Constant("quadrant", "int8", "2^m/2", meaning=TWIDDLES, value=lambda at: cached_twiddles(2**at.m, at.s).quadrant),
)
OUTPUTS = (Tensor("y", "int32", "... 2^m 2", meaning="complex numbers, the format of x"),)
SHIFT = Parameter("s", 8, 30, "fraction bits of lam and gam")
SIZES = {"m": (1, 12)}
EXACT = "transform and inverse undo each other wherever both results lie in the domain; for |x| < 2**17 they always do"


def bit_reversed(z):
    """Return rows of 2**m points in bit-reversed order: point i where the m bits of i say, read backwards."""
    *leading, n, _ = z.shape
    m = n.bit_length() - 1
    bits = z.reshape(*leading, *[2] * m, 2)
    first = len(leading)
    return bits.transpose(*range(first), *range(first + m - 1, first - 1, -1), first + m).reshape(z.shape)


def stage(z, half, lam, gam, quadrant, s, direction):
    """Combine blocks of ``half`` points two by two: (a, b) becomes (a + w b, a - w b) / sqrt(2), or back.

    w is the twiddle, a rotation in the plane. The butterfly is a rotation by -pi/4 in the plane of a and b, for each
    coordinate, which gives (a + b, b - a) / sqrt(2), and an exact change of sign.
    """
    *leading, n, _ = z.shape
    step = n // (2 * half)
    blocks = z.reshape(*leading, step, 2, half, 2)
    a, b = blocks[..., 0, :, :], blocks[..., 1, :, :]
    w = (lam[::step], gam[::step], quadrant[::step])
    if direction == FORWARD:
        b = turn(b, *w, s, FORWARD)
        a, b = shears(a, b, *eighth_turn(s), s, FORWARD)
        b = -b
    else:
        a, b = shears(a, -b, *eighth_turn(s), s, INVERSE)
        b = turn(b, *w, s, INVERSE)
    return np.stack([a, b], axis=-3).reshape(z.shape)


@op(
    inputs=INPUTS,
    outputs=OUTPUTS,
    parameters=(SHIFT,),
    sizes=SIZES,
    widths=widths,
    clauses={
        "C1": "the points are put in bit-reversed order",
        "C2": "in stages of half = 1, 2, 4 ..: b is turned by the twiddle, (a, b) by -pi/4 in three shears, b negated",
        "C3": EXACT,
        "C4": "y is off the unitary DFT by at most m (6 + 2**(2-s) r), both as root mean square; r that of the |x|",
    },
)
def dyadic_transform(x: Int32Array, lam: Int32Array, gam: Int32Array, quadrant: Int8Array, /, *, s: int) -> Int32Array:
    """Transform rows by the unitary DFT: ``y[k] = sum_n x[n] e**(-2 pi i n k / N) / sqrt(N)``, N = 2**m.

    Points in bit-reversed order (C1) pass m stages of N/2 butterflies (C2): 3 N m / 2 shears in all.

    Notes
    -----
    J. W. Cooley and J. W. Tukey, 1965. Bound C4: a floor shifts a coordinate by less than 1, so the twiddles of a stage
    shift by at most 2.2 in root mean square and its butterflies by 3.1; the coefficients are off by less than
    ``3.2 * 2**-s`` of the row's norm; every later stage keeps norms to within ``1 + 2.2 * 2**-s``.

    Examples
    --------
    >>> from mamba_integer.spec.tables import twiddles
    >>> x = np.array([[1000, 0], [0, 0], [0, 0], [0, 0]], np.int32)
    >>> dyadic_transform(x, *twiddles(4, 15), s=15).tolist()
    [[498, 0], [500, 0], [500, 0], [501, 0]]
    """
    # ACCUMULATE
    lam, gam = lam.astype(np.int64), gam.astype(np.int64)
    z = bit_reversed(x.astype(np.int64))
    half = 1
    while half < x.shape[-2]:
        z = stage(z, half, lam, gam, quadrant, s, FORWARD)
        half *= 2
    return z.astype(np.int32)


@op(
    inputs=INPUTS,
    outputs=OUTPUTS,
    parameters=(SHIFT,),
    sizes=SIZES,
    widths=widths,
    inverse_of="dyadic_transform",
    round_trip=ROUND_TRIP,
    clauses={
        "C1": "in stages of half = N/2 .. 4, 2, 1: b is negated, (a, b) sheared back, b turned back by the twiddle",
        "C2": "the points are put in bit-reversed order",
        "C3": EXACT,
        "C4": "y is off the inverse DFT by at most m (6 + 2**(2-s) r), both as root mean square; r that of the |x|",
    },
)
def dyadic_transform_inverse(
    x: Int32Array, lam: Int32Array, gam: Int32Array, quadrant: Int8Array, /, *, s: int
) -> Int32Array:
    """Undo `dyadic_transform` exactly: take back its stages from the last (C1, C2).

    Examples
    --------
    >>> from mamba_integer.spec.tables import twiddles
    >>> x = np.array([[498, 0], [500, 0], [500, 0], [501, 0]], np.int32)
    >>> dyadic_transform_inverse(x, *twiddles(4, 15), s=15).tolist()
    [[1000, 0], [0, 0], [0, 0], [0, 0]]
    """
    # ACCUMULATE
    lam, gam = lam.astype(np.int64), gam.astype(np.int64)
    z = x.astype(np.int64)
    half = x.shape[-2] // 2
    while half >= 1:
        z = stage(z, half, lam, gam, quadrant, s, INVERSE)
        half //= 2
    return bit_reversed(z).astype(np.int32)


__all__ = ["dyadic_transform", "dyadic_transform_inverse"]
