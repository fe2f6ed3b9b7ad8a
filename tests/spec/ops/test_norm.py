"""The norm's bounds hold for every small row, and its scale is the nearest one that its bits can say."""

import math
from itertools import product

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.conformance.engine.patterns import PATTERNS, draw
from mamba_integer.spec.ops.norm import centred_range, largest_square_sum, scale_exponent, scale_mantissa

LIMIT = 2**23 - 1


@pytest.mark.parametrize("D", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("limit", [3, 4])
def test_bounds_are_those_of_every_row(D, limit):
    x = np.array(list(product(range(-limit, limit + 1), repeat=D)))
    centred = x - x.sum(axis=1, keepdims=True) // D
    assert (centred.min(), centred.max()) == (centred_range(D, limit).low, centred_range(D, limit).high)
    assert (centred**2).sum(axis=1).max() == largest_square_sum(D, limit)


def square_sums(D):
    words = draw("uniform", D, 0, (200,), 0, largest_square_sum(D, LIMIT))
    powers = [D * 4**k + near for k in range(23) for near in (-1, 0, 1)]
    return np.array([*(int(w) >> (i % 60) for i, w in enumerate(words)), *powers, 0], np.int64)


@pytest.mark.parametrize("D", [2, 3, 129, 2**14])
def test_exponent_is_the_smallest(D):
    """`bitshift_norm.C2`."""
    S = square_sums(D)
    k = scale_exponent(S, D)
    for total, exponent in zip(S.tolist(), k.tolist(), strict=True):
        assert total <= D * 4**exponent
        assert exponent == 0 or total > D * 4 ** (exponent - 1)


@pytest.mark.parametrize("D", [2, 3, 129, 2**14])
@pytest.mark.parametrize("b", range(5))
def test_scale_is_the_nearest(D, b):
    """`bitshift_norm.C3`, `bitshift_norm.C4`: within half a unit of the mantissa, and 2**-12 for the bits cut."""
    S = square_sums(D)
    S = S[4 * S > D]
    k = scale_exponent(S, D)
    m = scale_mantissa(S, D, k, b)
    for total, exponent, mantissa in zip(S.tolist(), k.tolist(), m.tolist(), strict=True):
        assert 1 << b <= mantissa <= (2 << b if b else 1)
        exact = math.sqrt(D / total) * 2 ** (b + exponent)
        assert abs(mantissa - exact) <= (0.5 * (1 + 2**-12) if b else 1)


@pytest.mark.parametrize("b", range(5))
@pytest.mark.parametrize("value", [-LIMIT, -1, 0, 5, LIMIT])
def test_equal_elements_give_zeros(b, value):
    for D in (1, 2, 33):
        x, gamma = np.full((2, D), value, np.int32), np.full(D, 32767, np.int16)
        assert not spec.bitshift_norm(x, gamma, b=b, s=0).any()


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_without_mantissa_it_is_one_shift(pattern):
    """`bitshift_norm.C1`, `bitshift_norm.C4`, `bitshift_norm.C5`: a shift of the centred row times gamma."""
    x = draw(pattern, 3, 0, (16, 24), -LIMIT, LIMIT).astype(np.int32)
    gamma = draw("uniform", 3, 1, (24,), -32767, 32767).astype(np.int16)
    y = spec.bitshift_norm(x, gamma, b=0, s=4)
    for row, result in zip(x.tolist(), y.tolist(), strict=True):
        c = [v - sum(row) // 24 for v in row]
        k = next(k for k in range(24) if sum(v * v for v in c) <= 24 * 4**k)
        rounded = [math.floor(v * g / 2 ** (k + 4) + 0.5) for v, g in zip(c, gamma.tolist(), strict=True)]
        assert result == [min(max(v, -32767), 32767) for v in rounded]


@pytest.mark.parametrize("spread", [100, 1000, 10**6])
def test_result_has_unit_deviation(spread):
    """With gamma = 1 the rows come out with standard deviation 1, within 1/16 for b = 3, whatever their format."""
    x = draw("uniform", spread, 0, (8, 512), -spread, spread).astype(np.int32)
    y = spec.bitshift_norm(x, np.full(512, 4096, np.int16), b=3, s=0) / 4096
    assert np.all(np.abs(y.std(axis=1) - 1) < 1 / 16 + 0.01)
    assert np.all(np.abs(y.mean(axis=1)) < 0.1)


def test_quantised_is_the_norm_then_the_rows():
    """`norm_quantize.C1`."""
    x = draw("uniform", 4, 0, (64, 33), -LIMIT, LIMIT).astype(np.int32)
    gamma = draw("uniform", 4, 1, (33,), -32767, 32767).astype(np.int16)
    q, e = spec.norm_quantize(x, gamma, b=3, s=2)
    y = spec.bitshift_norm(x, gamma, b=3, s=2)
    want_q, want_e = spec.quantize_rows(y)
    assert np.array_equal(q, want_q) and np.array_equal(e, want_e)
    assert e.min() > 0
