"""Rotations as three shears: the integers that stand for an angle.

A rotation is one by ``quadrant`` right angles, which is exact, and one by the rest r in [-pi/4, pi/4], which is three
shears with ``-tan(r/2)``, ``sin(r)``, ``-tan(r/2)``. The tangent t is rounded to the dyadic grid; the sine is then
that of this t, ``2t / (1 + t*t)`` (Cayley), so it belongs to the angle that is really turned.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .fixed_point import exp, log, nearest_integers, pi, sin_cos

WORD_BITS = 30  # of a sine, a cosine and a tangent in words
MOST_WORD_BITS = 18  # of a shear that words decide: with more, few would be certain


class Rotation(NamedTuple):
    """Rotations as the ops take them: shears ``lam`` and ``gam`` over 2**s (int32), ``quadrant`` in [0, 3] (int8)."""

    lam: np.ndarray
    gam: np.ndarray
    quadrant: np.ndarray


def rotation_coefficients(positions, pairs: int, *, base: int = 10000, s: int) -> Rotation:
    """Return the rotations by ``position * base**(-i / pairs)`` for each position and i = 0 .. pairs - 1.

    Parameters
    ----------
    positions : int array, shape (L,), each in [0, 2**30]
    pairs : int, at least 1
        Coordinate pairs of a row, half its channels.
    base : int, at least 2
    s : int in [2, 30]
        Fraction bits of the shears.

    Returns
    -------
    Rotation
        Arrays of shape (L, pairs). Each angle is off by at most ``2**-s`` radians: ``lam`` is rounded by half a unit.

    Raises
    ------
    ValueError
        An argument outside its range.

    Examples
    --------
    >>> turn = rotation_coefficients(np.array([0, 1, 2]), 2, s=14)
    >>> turn.lam.tolist(), turn.gam.tolist(), turn.quadrant.tolist()
    ([[0, 0], [4807, -82], [-3571, -164]], [[0, 0], [-8852, 164], [6818, 328]], [[0, 0], [1, 0], [1, 0]])
    """
    places = np.asarray(positions).astype(object)[:, None]
    if not (np.all(places >= 0) and np.all(places <= 1 << 30) and pairs >= 1 and base >= 2 and 2 <= s <= 30):
        raise ValueError(
            f"rotation_coefficients: {pairs} pairs, base {base}, s {s}, positions {positions}; "
            "needs pairs >= 1, base >= 2, s in [2, 30], positions in [0, 2**30]"
        )

    place, pair = (a.reshape(-1) for a in np.broadcast_arrays(places, np.arange(pairs)))
    tangent, quadrant, sure = _by_words(place, pair, base, pairs, s)
    (open_,) = np.nonzero(~sure)
    if open_.size:
        tangent[open_], quadrant[open_] = _by_integers(place[open_], pair[open_], base, pairs, s)
    shears = _shears(tangent, quadrant, s)
    return Rotation(*(array.reshape(len(places), pairs) for array in shears))


def _by_integers(place, pair, base: int, pairs: int, s: int):
    """Return the tangents of half the rests over 2**s and the quadrants, as Python integers."""

    def angles(bits: int):
        # A frequency within 3 units of 2**-(bits + 31), times a position up to 2**30, is within 2 units of 2**-bits.
        return place * exp(_exponents(base, pairs, bits + 31), bits + 31)[pair] >> 31

    quadrant = nearest_integers(lambda bits: (angles(2 * bits) << bits + 1) // pi(2 * bits))

    def half_rest(bits: int):
        return (angles(bits) - (quadrant * pi(bits + 31) >> 32)) >> 1

    return _tangents(half_rest, s), quadrant


def _by_words(place, pair, base: int, pairs: int, s: int):
    """Return what `_by_integers` does, int64, and where it is certain: the first round of Ziv's strategy, in words.

    An angle is held in turns over 2**64, of which a product keeps the fraction of a turn; a position up to 2**30 has an
    error below 2**30 there. The rest is in Q.30, and all truncations leave the tangent within 64 units.
    """
    if s > MOST_WORD_BITS:
        zeros = np.zeros(place.shape, object)
        return zeros, zeros.copy(), np.zeros(place.shape, bool)
    one = 1 << WORD_BITS
    bits = 192
    words = (exp(_exponents(base, pairs, bits), bits) << 63) // pi(bits)
    turn = place.astype(np.uint64) * words.astype(np.uint64)[pair]
    quadrant = (turn + np.uint64(1 << 61)) >> np.uint64(62)
    rest = (turn - (quadrant << np.uint64(62))).view(np.int64)
    half = ((rest >> 32) * pi(WORD_BITS)) >> 32
    square = (half * half) >> WORD_BITS
    sine, cosine = half.copy(), np.full_like(half, one)
    odd, even = sine, cosine
    for n in (2, 4, 6, 8):
        even = -((even * square) >> WORD_BITS) // (n * (n - 1))
        odd = -((odd * square) >> WORD_BITS) // (n * (n + 1))
        sine, cosine = sine + odd, cosine + even
    tangent = (sine << WORD_BITS) // cosine + (1 << (WORD_BITS - s - 1))
    place_of_tie = tangent & ((1 << (WORD_BITS - s)) - 1)
    sure = (place_of_tie >= 64) & (place_of_tie < (1 << (WORD_BITS - s)) - 64)
    sure &= np.abs(np.abs(rest) - (1 << 61)) > 1 << 32  # and the quadrant
    return tangent >> (WORD_BITS - s), quadrant.astype(np.int64), sure


def _exponents(base: int, pairs: int, bits: int):
    """Return the logarithms of the frequencies, ``base**(-i / pairs)``."""
    return -np.arange(pairs).astype(object) * log(base, bits) // pairs


def twiddles(size: int, s: int) -> Rotation:
    """Return the rotations by ``-2 pi k / size`` for k = 0 .. size/2 - 1: arrays of shape (size/2,).

    The quadrant is the nearest to the angle, the higher one at a tie. ``size`` is a power of two, s in [2, 30].
    """
    quarters = -4 * np.arange(size // 2).astype(object)
    quadrant = (2 * quarters + size) // (2 * size)
    return _rotation(lambda bits: (quarters - quadrant * size) * pi(bits) // (4 * size), quadrant, s)


@lru_cache
def eighth_turn(s: int) -> tuple[int, int]:
    """Return ``lam`` and ``gam`` of the rotation by -pi/4, the butterfly of the transform."""
    turn = _rotation(lambda bits: np.array([-pi(bits) >> 3]), np.array([0]), s)
    return int(turn.lam[0]), int(turn.gam[0])


def _rotation(half_angles, quadrant, s: int) -> Rotation:
    """Return the shears of rotations by twice ``half_angles(bits)``, with these quadrants."""
    return _shears(_tangents(half_angles, s), quadrant, s)


def _tangents(half_angles, s: int):
    def tangents(bits: int):
        sine, cosine = sin_cos(half_angles(bits + s), bits + s)
        return (sine << bits + s) // cosine

    return nearest_integers(tangents)


def _shears(tangent, quadrant, s: int) -> Rotation:
    # The nearest integer to 2**s * 2t / (1 + t*t) for t = tangent / 2**s, all in integers.
    square = (1 << (2 * s)) + tangent * tangent
    sine = ((tangent << (2 * s + 2)) + square) // (2 * square)
    return Rotation((-tangent).astype(np.int32), sine.astype(np.int32), (quadrant % 4).astype(np.int8))
