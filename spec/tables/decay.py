"""Decays of a diagonal state-space model, as integers out of 2**k."""

from fractions import Fraction

import numpy as np

from .fixed_point import exp, log, nearest_integers


def hippo_decays(states: int, dt: Fraction, k: int) -> np.ndarray:
    """Return ``2**k * exp(-(n + 1) dt)`` for n = 0 .. states - 1, to the nearest integer, at most ``2**k - 1``.

    The eigenvalues of the HiPPO-LegS matrix are -1, -2, -3 ...; state n decays by ``exp(-(n + 1) dt)`` a step.

    Parameters
    ----------
    states : int, at least 1
    dt : Fraction (or int), positive
        The step of the discretisation.
    k : int in [1, 15]
        Fraction bits of the decay.

    Returns
    -------
    int16 array of ``states`` integers, not increasing, in [0, 2**k - 1].

    Raises
    ------
    ValueError
        An argument outside its range.

    Examples
    --------
    >>> hippo_decays(4, Fraction(1, 16), 15).tolist()
    [30783, 28918, 27166, 25520]
    """
    if not (states >= 1 and dt > 0 and 1 <= k <= 15):
        raise ValueError(f"hippo_decays: states {states}, dt {dt}, k {k}; needs states >= 1, dt > 0, k in [1, 15]")
    exact = Fraction(dt)
    order = np.arange(1, states + 1).astype(object)

    def approximate(bits: int):
        # e**x in units of 2**-(bits + k) is 2**k e**x in units of 2**-bits.
        return exp((-order * exact.numerator << (bits + k)) // exact.denominator, bits + k)

    return np.minimum(nearest_integers(approximate), (1 << k) - 1).astype(np.int16)


def hippo_exponents(states: int, dt: Fraction, k: int) -> np.ndarray:
    """Return the exponents of HiPPO decays: ``2**k * log2(e) * (n + 1) dt``, to the nearest integer, at most 32767.

    State n then decays by ``2**(-exponent / 2**k)`` per step.

    Parameters
    ----------
    states : int, at least 1
    dt : Fraction (or int), positive
        The step of the discretisation.
    k : int in [1, 15]
        Fraction bits of the exponent.

    Returns
    -------
    int16 array of ``states`` integers, not decreasing, in [0, 32767].

    Raises
    ------
    ValueError
        An argument outside its range.

    Examples
    --------
    >>> hippo_exponents(4, Fraction(1, 16), 12).tolist()
    [369, 739, 1108, 1477]
    """
    if not (states >= 1 and dt > 0 and 1 <= k <= 15):
        raise ValueError(f"hippo_exponents: states {states}, dt {dt}, k {k}; needs states >= 1, dt > 0, k in [1, 15]")
    exact = Fraction(dt)
    order = np.arange(1, states + 1).astype(object)

    def approximate(bits: int):
        fine = bits + exact.numerator.bit_length() + int(states).bit_length() + k
        unit = (1 << 2 * fine) // log(2, fine)
        return (order * exact.numerator * unit << k) // (exact.denominator << (fine - bits))

    return np.minimum(nearest_integers(approximate), (1 << 15) - 1).astype(np.int16)
