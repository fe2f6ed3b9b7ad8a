"""The constant tables are the correctly rounded values of real functions, held against mpmath."""

import doctest
import importlib
import time
from fractions import Fraction
from random import Random
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.spec.ops.rotation import gam_limit, lam_limit
from mamba_integer.spec.tables import fixed_point, rotation

mp = mpmath.mp


@pytest.fixture(autouse=True)
def precision():
    with mp.workprec(1200):
        yield


def nearest(real) -> int:
    return int(mp.floor(real + mp.mpf(1) / 2))


def expected_rotation(rest, s: int) -> tuple[int, int]:
    t = nearest(mp.tan(rest / 2) * 2**s)
    sine = Fraction(t * 2 ** (2 * s + 1), 4**s + t * t)
    return -t, nearest(mp.mpf(sine.numerator) / sine.denominator)


@pytest.mark.parametrize("module", ["decay", "rotation"])
def test_worked_examples(module):
    outcome = doctest.testmod(importlib.import_module(f"mamba_integer.spec.tables.{module}"), extraglobs={"np": np})
    assert outcome.attempted and not outcome.failed


@pytest.mark.parametrize("bits", [8, 64, 333])
def test_fixed_point_functions_are_within_a_unit(bits):
    random, unit = Random(bits), mp.mpf(2) ** bits
    assert abs(fixed_point.pi(bits) - mp.pi * unit) <= 1
    for n in (1, 2, 3, 7, 8, 10000, 10**9 + 7):
        assert abs(fixed_point.log(n, bits) - mp.log(n) * unit) <= 1
    for _ in range(50):
        x = -random.randrange(40 << bits)
        assert abs(fixed_point.exp(x, bits) - mp.exp(x / unit) * unit) <= 1
        x = random.randrange(-1 << bits, 1 << bits)
        sine, cosine = fixed_point.sin_cos(x, bits)
        assert abs(sine - mp.sin(x / unit) * unit) <= 1
        assert abs(cosine - mp.cos(x / unit) * unit) <= 1


def test_rounding_asks_for_more_bits_when_near_a_tie():
    """A number 2**-100 above a half needs more than the first 64 bits."""
    asked = []

    def approximate(bits):
        asked.append(bits)
        return (1 << (bits - 1)) + ((1 << bits) >> 100)

    assert fixed_point.nearest_integers(approximate) == 1
    assert asked == [64, 128]


def test_rounding_is_sure_256_units_from_a_tie_and_no_nearer():
    tie = 1 << 63
    for value, rounds in ((tie + 256, 1), (tie + 255, 2), (tie - 257, 1), (tie - 256, 2)):
        asked = []

        def approximate(bits, value=value, asked=asked):
            asked.append(bits)
            return value << (bits - 64)

        assert fixed_point.nearest_integers(approximate) == int(value >= tie)
        assert len(asked) == rounds, value


def test_rounding_asks_again_if_one_of_several_is_near_a_tie():
    near = (1 << 63) + 1
    values = fixed_point.nearest_integers(lambda bits: np.array([near, 0], object) << (bits - 64))
    assert values.tolist() == [1, 0]


def test_the_base_is_that_of_rope_and_may_be_two():
    positions = np.array([3, 1000])
    turn = spec.tables.rotation_coefficients(positions, 4, s=15)
    same = spec.tables.rotation_coefficients(positions, 4, base=10000, s=15)
    assert all(np.array_equal(a, b) for a, b in zip(turn, same, strict=True))
    lam, gam, quadrant = spec.tables.rotation_coefficients(np.array([1]), 1, base=2, s=15)
    angle = 1 - mp.pi / 2
    assert (int(lam[0, 0]), int(gam[0, 0]), int(quadrant[0, 0])) == (*expected_rotation(angle, 15), 1)


def test_decays():
    random = Random(0)
    for _ in range(40):
        dt = Fraction(random.randrange(1, 1 << 12), random.randrange(1, 1 << 16))
        states, k = random.randrange(1, 20), random.randrange(1, 16)
        table = spec.tables.hippo_decays(states, dt, k)
        real = [mp.exp(-(n + 1) * mp.mpf(dt.numerator) / dt.denominator) * 2**k for n in range(states)]
        assert table.dtype == np.int16
        assert table.tolist() == [min(nearest(r), 2**k - 1) for r in real], (states, dt, k)
        exponents = [(n + 1) * mp.mpf(dt.numerator) / dt.denominator * 2**k / mp.log(2) for n in range(states)]
        table = spec.tables.hippo_exponents(states, dt, k)
        assert table.dtype == np.int16
        assert table.tolist() == [min(nearest(r), 2**15 - 1) for r in exponents], (states, dt, k)


@pytest.mark.parametrize("s", [2, 8, 15, 30])
def test_rotation_coefficients(s):
    random = Random(s)
    positions = np.array([0, 1, 2**20, 2**30, *(random.randrange(2**30 + 1) for _ in range(60))])
    for pairs, base in ((1, 10000), (7, 10000), (12, 500000)):
        turn = spec.tables.rotation_coefficients(positions, pairs, base=base, s=s)
        for row, position in enumerate(positions.tolist()):
            for i in range(pairs):
                angle = position * mp.mpf(base) ** (-mp.mpf(i) / pairs)
                quadrant = nearest(angle / (mp.pi / 2))
                want = (*expected_rotation(angle - quadrant * mp.pi / 2, s), quadrant % 4)
                assert tuple(int(a[row, i]) for a in turn) == want, (position, i)


@pytest.mark.parametrize("size", [2, 4, 64])
@pytest.mark.parametrize("s", [2, 14, 30])
def test_twiddles(size, s):
    turn = spec.tables.twiddles(size, s)
    assert all(array.shape == (size // 2,) for array in turn)
    for k in range(size // 2):
        quadrant = nearest(mp.mpf(-4 * k) / size)
        want = (*expected_rotation(mp.pi * (mp.mpf(-2 * k) / size - mp.mpf(quadrant) / 2), s), quadrant % 4)
        assert tuple(int(a[k]) for a in turn) == want, k
    assert all(type(shear) is int for shear in spec.tables.eighth_turn(s))
    assert spec.tables.eighth_turn(s) == expected_rotation(-mp.pi / 4, s)


@pytest.mark.parametrize("s", range(2, 31))
def test_every_coefficient_is_in_the_domain_of_the_ops(s):
    lam, gam = spec.tables.eighth_turn(s)  # the largest rest of an angle, so the largest coefficients
    assert abs(lam) <= lam_limit(SimpleNamespace(s=s))
    assert abs(gam) <= gam_limit(SimpleNamespace(s=s))


def test_a_model_sized_table_takes_seconds():
    start = time.perf_counter()
    turn = spec.tables.rotation_coefficients(np.arange(2048), 32, s=15)
    assert turn.lam.shape == (2048, 32)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "change",
    [{"positions": [-1, 5]}, {"positions": [5, 2**30 + 1]}, {"pairs": 0}, {"base": 1}, {"s": 1}, {"s": 31}],
)
def test_arguments_outside_raise(change):
    arguments = {"positions": [1], "pairs": 2, "base": 10000, "s": 15} | change
    with pytest.raises(ValueError, match="rotation_coefficients"):
        spec.tables.rotation_coefficients(np.array(arguments.pop("positions")), arguments.pop("pairs"), **arguments)
    for wrong in ((0, Fraction(1, 16), 12), (4, Fraction(0), 12), (4, Fraction(1, 16), 0), (4, Fraction(1, 16), 16)):
        with pytest.raises(ValueError, match="hippo_exponents"):
            spec.tables.hippo_exponents(*wrong)
    assert spec.tables.hippo_exponents(1, Fraction(1, 16), 1).shape == (1,)
    for wrong in ((0, Fraction(1, 16), 15), (1, Fraction(0), 15), (1, Fraction(-1, 2), 15), (1, Fraction(1, 2), 0)):
        with pytest.raises(ValueError, match="hippo_decays"):
            spec.tables.hippo_decays(*wrong)
    with pytest.raises(ValueError, match="hippo_decays"):
        spec.tables.hippo_decays(1, Fraction(1, 2), 16)


@pytest.mark.parametrize(("pairs", "base"), [(32, 10000), (5, 3), (1, 2)])
@pytest.mark.parametrize("s", [2, 15, 18])
def test_what_words_are_certain_of_is_what_integers_say(pairs, base, s):
    source = np.random.default_rng(s)
    positions = np.concatenate([source.integers(0, 1 << bits, 20) for bits in (8, 20, 30)] + [[0, 1, 1 << 30]])
    place, pair = (a.reshape(-1) for a in np.broadcast_arrays(positions.astype(object)[:, None], np.arange(pairs)))
    tangent, quadrant, sure = rotation._by_words(place, pair, base, pairs, s)
    want_tangent, want_quadrant = rotation._by_integers(place, pair, base, pairs, s)
    assert np.mean(sure) > 0.8
    assert np.array_equal(tangent[sure], want_tangent[sure].astype(np.int64))
    assert np.array_equal(quadrant[sure], (want_quadrant[sure] % 4).astype(np.int64))


def test_words_leave_the_quadrant_beside_an_eighth_of_a_turn_to_integers():
    """267241724 / 340262731 is a convergent of pi / 4: the angle is within 2**-32 turns of an odd eighth.

    Of the convergents before it, which lie farther away, words are certain.
    """
    places, pair = np.array([144316263, 267241724, 3 * 267241724], object), np.zeros(3, int)
    _, _, sure = rotation._by_words(places, pair, 10000, 16, 14)
    assert sure.tolist() == [True, False, False]
    # From above: 146856498 * 7**(-1/4) is 2**-35 turns past an odd eighth.
    _, _, sure = rotation._by_words(np.array([146856498], object), np.array([1]), 7, 4, 14)
    assert sure.tolist() == [False]


@pytest.mark.parametrize("s", [2, 15, 30])
def test_coefficients_have_the_types_of_the_rotation(s):
    rotation = spec.tables.rotation_coefficients(np.arange(3), 2, base=10000, s=s)
    assert [array.dtype.name for array in rotation] == ["int32", "int32", "int8"]
