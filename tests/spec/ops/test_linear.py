"""A ternary layer is exact at any depth, rounds once, and treats each row alone, in every backend."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.conformance.engine.patterns import draw
from mamba_integer.spec.ops.linear import LARGEST_ROW

BACKENDS = ("golden", "numba", "torch", "triton")
every_backend = pytest.mark.parametrize("name", BACKENDS)


def run(name, op, *arrays, **parameters):
    return load(name, "cpu").run(op, arrays, parameters)


def nearest(x):
    """Return the integer nearest to a rational, the upper one of two."""
    return floor(x + Fraction(1, 2))


def clamp(x, limit):
    return max(-limit, min(limit, x))


def layer(rows, K, N, seed=0):
    q = draw("uniform", seed, 0, (rows, K), -127, 127).astype(np.int8)
    e = draw("uniform", seed, 1, (rows,), 0, 15).astype(np.int32)
    w = draw("uniform", seed, 2, (N, K), -1, 1).astype(np.int8)
    return q, e, w


@every_backend
def test_exponent_is_the_least_that_fits(name):
    """`quantize_rows.C1`, `quantize_rows.C2`, `quantize_rows.C3`: at each power of two, and one to both sides."""
    largest = [0, *sorted({min(2**n + near, 32767) for n in range(16) for near in (-1, 0, 1)} - {0})]
    x = np.array([[v, -v, v // 3] for v in largest], np.int16)
    q, e = run(name, "quantize_rows", x)
    for row, quantised, exponent in zip(x.tolist(), q.tolist(), e.tolist(), strict=True):
        assert max(row) < 2 ** (exponent + 7)
        assert exponent == 0 or max(row) >= 2 ** (exponent + 6)
        assert quantised == [clamp(nearest(Fraction(v, 2**exponent)), 127) for v in row]


@every_backend
@pytest.mark.parametrize("shift", [0, 1, 7, 31])
def test_requantize_rounds_once_and_saturates(name, shift):
    """`requantize.C1`, `requantize.C2`: around each tie, and at the ends of int32."""
    ties = [(2 * n + 1) * 2**shift // 2 + near for n in (-128, -127, -1, 0, 126, 127) for near in (-1, 0, 1)]
    x = np.array([v for v in (*ties, -(2**31) + 1, 2**31 - 1) if abs(v) < 2**31], np.int32)
    want = [clamp(nearest(Fraction(v, 2**shift)), 127) for v in x.tolist()]
    assert run(name, "requantize", x, shift=shift)[0].tolist() == want


@every_backend
@pytest.mark.parametrize(("num", "shift"), [(1, 0), (181, 12), (32767, 40)])
def test_layer_is_the_rational_result_rounded_once(name, num, shift):
    """`ternary_linear.C1`, `ternary_linear.C2`, `ternary_linear.C3`."""
    q, e, w = layer(3, 37, 5)
    y = run(name, "ternary_linear", q, e, spec.pack_ternary(w), num=num, shift=shift)[0]
    for i, n in np.ndindex(y.shape):
        a = sum(int(v) * int(d) for v, d in zip(q[i], w[n], strict=True))
        assert y[i, n] == clamp(nearest(Fraction(a * 2 ** int(e[i]) * num, 2**shift)), 32767)


@every_backend
@pytest.mark.parametrize(("num", "shift", "want"), [(1, 1, 1), (2**14, 15, 1), (3, 2, 1), (3, 3, 0), (1, 47, 0)])
def test_ties_go_up(name, num, shift, want):
    """`ternary_linear.C2`: rounded twice, 3/8 would be 1."""
    q, e, w = np.array([[1]], np.int8), np.zeros(1, np.int32), spec.pack_ternary(np.array([[1], [-1]], np.int8))
    below = -1 if Fraction(num, 2**shift) > Fraction(1, 2) else 0
    assert run(name, "ternary_linear", q, e, w, num=num, shift=shift)[0].tolist() == [[want, below]]


@every_backend
def test_deepest_row_is_exact(name, deep_tiles):
    """`ternary_linear.C1`: one less than a tie, at the largest depth, where a float32 sum would lose the one."""
    q = np.full((1, LARGEST_ROW), 127, np.int8)
    q[0, :33] = [-1] * 32 + [126]
    packed = np.repeat(np.array([[0b01010101], [0b11111111]], np.uint8), LARGEST_ROW // 4, axis=1)
    y = run(name, "ternary_linear", q, np.zeros(1, np.int32), packed, num=1, shift=13)[0]
    assert (127 * LARGEST_ROW - 4096) % 2**13 == 2**12
    assert y.tolist() == [[127 * LARGEST_ROW // 2**13 - 1, 1 - 127 * LARGEST_ROW // 2**13]]


@every_backend
def test_number_of_rows_does_not_matter(name):
    """The rows of one call are those of calls with fewer, whichever kernel or tile their number selects."""
    q, e, w = layer(257, 130, 33)
    packed = spec.pack_ternary(w)
    want = spec.ternary_linear(q, e, packed, num=181, shift=15)
    for rows in (1, 8, 9, 64, 257):
        y = run(name, "ternary_linear", q[:rows], e[:rows], packed, num=181, shift=15)[0]
        assert np.array_equal(y, want[:rows])


@every_backend
def test_requant_is_the_layer_then_the_rows(name):
    """`ternary_linear_requant.C1`."""
    q, e, w = layer(65, 31, 40)
    packed = spec.pack_ternary(w)
    y = spec.ternary_linear(q, e, packed, num=181, shift=15)
    want, exponents = spec.quantize_rows(y)
    r, s = run(name, "ternary_linear_requant", q, e, packed, num=181, shift=15)
    assert np.array_equal(r, want) and np.array_equal(s, exponents)
    assert len(np.unique(s)) > 3


@every_backend
def test_weights_of_another_depth_raise(name):
    q, e, w = layer(2, 6, 3)
    packed = spec.pack_ternary(w)
    for wrong in (packed[:, :1], np.pad(packed, ((0, 0), (0, 1)))):
        with pytest.raises(spec.DomainError, match="ternary_linear: argument w: found size"):
            run(name, "ternary_linear", q, e, wrong, num=1, shift=0)
    with pytest.raises(spec.DomainError, match=r"ternary_linear: argument w: .* zeros after the last of 5 digits"):
        run(name, "ternary_linear", q[:, :5], e, packed | np.uint8(0b0100), num=1, shift=0)
