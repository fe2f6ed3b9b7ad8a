"""The rotations undo themselves bit for bit, stay in their bounds, and turn by the angle they say."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.conformance.engine.patterns import PATTERNS, draw
from mamba_integer.spec.ops.rotation import (
    DOMAIN,
    FORWARD,
    INVERSE,
    ROUND_TRIP,
    gam_limit,
    lam_limit,
    shear_steps,
)

SHIFTS = range(2, 31)


@pytest.mark.parametrize("direction", [FORWARD, INVERSE])
def test_corners_bound_every_point_of_a_small_box(direction):
    at, limit = SimpleNamespace(s=3), 5
    steps = shear_steps(limit, at, direction)
    seen = {name: [0, 0] for name in steps}
    for x, y in product(range(-limit, limit + 1), repeat=2):
        for lam, gam in product(range(-lam_limit(at), lam_limit(at) + 1), range(-gam_limit(at), gam_limit(at) + 1)):
            product1 = y * lam
            x1 = x + direction * (product1 >> at.s)
            product2 = x1 * gam
            y1 = y + direction * (product2 >> at.s)
            product3 = y1 * lam
            x2 = x1 + direction * (product3 >> at.s)
            for name, value in zip(steps, (product1, x1, product2, y1, product3, x2), strict=True):
                seen[name] = [min(seen[name][0], value), max(seen[name][1], value)]
    assert {name: [step.low, step.high] for name, step in steps.items()} == seen


@pytest.mark.parametrize("s", SHIFTS)
def test_results_of_the_round_trip_range_lie_in_the_domain(s):
    for direction in (FORWARD, INVERSE):
        steps = shear_steps(ROUND_TRIP, SimpleNamespace(s=s), direction)
        assert all(max(-steps[n].low, steps[n].high) <= DOMAIN for n in ("y1", "x2"))


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
@pytest.mark.parametrize("s", [2, 3, 15, 30])
def test_inverse_is_exact(pattern, s):
    """Both ways round, for any coefficients of the domain, `dyadic_rotate.C3`."""
    at, pairs = SimpleNamespace(s=s), 257
    x = draw(pattern, s, 0, (4, pairs, 2), -ROUND_TRIP, ROUND_TRIP).astype(np.int32)
    lam = draw("uniform", s, 1, (pairs,), -lam_limit(at), lam_limit(at)).astype(np.int32)
    gam = draw("extremes", s, 2, (pairs,), -gam_limit(at), gam_limit(at)).astype(np.int32)
    turn = (lam, gam, draw("uniform", s, 3, (pairs,), 0, 3).astype(np.int8))
    there = spec.dyadic_rotate(x, *turn, s=s)
    assert not np.array_equal(there, x) or not x.any()
    assert np.array_equal(spec.dyadic_rotate_inverse(there, *turn, s=s), x)
    assert np.array_equal(spec.dyadic_rotate(spec.dyadic_rotate_inverse(x, *turn, s=s), *turn, s=s), x)


def test_rope_turns_by_the_angle_of_the_position():
    """A vector of length 2**27 lands within the angle's bound and the three floors of the true point."""
    import mpmath

    s, pairs, length = 20, 4, 2**27
    positions = np.array([0, 1, 2, 3, 100, 4095, 2**20])
    turn = spec.tables.rotation_coefficients(positions, pairs, s=s)
    x = np.zeros((1, len(positions), 2 * pairs), np.int32)
    x[..., ::2] = length
    y = spec.rope(x, *turn, s=s)
    allowed = length * 2.0 ** (1 - s) + 3.1
    for row, position in enumerate(positions.tolist()):
        for i in range(pairs):
            angle = position * mpmath.mpf(10000) ** (-mpmath.mpf(i) / pairs)
            want = length * mpmath.expj(angle)
            assert abs(complex(*y[0, row, 2 * i : 2 * i + 2].tolist()) - want) <= allowed
    assert np.array_equal(spec.rope_inverse(y, *turn, s=s), x)


def test_rope_of_a_part_is_the_part_of_rope():
    turn = spec.tables.rotation_coefficients(np.arange(9), 3, s=15)
    x = draw("uniform", 0, 0, (2, 9, 6), -32767, 32767).astype(np.int16)
    whole = spec.rope(x, *turn, s=15)
    parts = [spec.rope(x[:, a:b], *(c[a:b] for c in turn), s=15) for a, b in ((0, 4), (4, 5), (5, 9))]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


def test_odd_channels_raise():
    turn = spec.tables.rotation_coefficients(np.arange(2), 1, s=15)
    with pytest.raises(spec.DomainError, match=r"rope: argument x: found size 3"):
        spec.rope(np.zeros((1, 2, 3), np.int16), *turn, s=15)
