"""The gradients of a ternary layer are the transposed products, exact at any depth, in every backend."""

from fractions import Fraction
from functools import cache
from math import floor

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.conformance.engine.patterns import draw
from mamba_integer.spec.ops.linear_backward import MOST_GRADIENTS

BACKENDS = ("golden", "numba", "torch", "triton")
every_backend = pytest.mark.parametrize("name", BACKENDS)
every_width = pytest.mark.parametrize(("bits", "dtype"), [(8, np.int8), (8, np.int16), (16, np.int16)])


def run(name, op, *arrays, **parameters):
    return load(name, "cpu").run(op, arrays, parameters)[0]


def errors(bits, dtype, shape):
    end = 2 ** (bits - 1) - 1
    return draw("uniform", 0, 0, shape, -end, end).astype(dtype)


def digits(shape):
    return draw("uniform", 0, 1, shape, -1, 1).astype(np.int8)


@every_backend
@every_width
@pytest.mark.parametrize("rows", [1, 9, 130, 257])
def test_errors_of_the_rows_are_the_transposed_product(name, bits, dtype, rows):
    """`ternary_linear_backward.C1`: full tiles and their remainders."""
    dy, w, want = exact_errors(bits, dtype, rows)
    dx = run(name, "ternary_linear_backward", dy, spec.pack_ternary(w), K=133, num=181, shift=bits)
    assert dx.tolist() == want


@cache
def exact_errors(bits, dtype, rows):
    """Return errors and digits, and the transposed product in Python's integers and fractions, for every backend."""
    dy, w = errors(bits, dtype, (rows, 131)), digits((131, 133))
    exact = dy.astype(object) @ w.astype(object)
    want = [[max(-32767, min(32767, floor(Fraction(a * 181, 2**bits) + Fraction(1, 2)))) for a in row] for row in exact]
    return dy, w, want


@every_backend
@pytest.mark.parametrize(("num", "shift", "want"), [(1, 1, 1), (2**14, 15, 1), (3, 2, 1), (3, 3, 0), (1, 47, 0)])
def test_ties_go_up(name, num, shift, want):
    """`ternary_linear_backward.C2`: rounded twice, 3/8 would be 1."""
    w = spec.pack_ternary(np.array([[1, -1]], np.int8))
    below = -1 if Fraction(num, 2**shift) > Fraction(1, 2) else 0
    dx = run(name, "ternary_linear_backward", np.array([[1]], np.int16), w, K=2, num=num, shift=shift)
    assert dx.tolist() == [[want, below]]


@every_backend
def test_deepest_sum_is_exact(name, deep_tiles):
    """`ternary_linear_backward.C1`: one short of a tie, at the end of int32, where a limb's part of the sum wraps."""
    dy = np.full((1, MOST_GRADIENTS), -32767, np.int16)
    dy[0, 0] += 1
    assert dy.sum(dtype=np.int64) == 1 - 16383 * 2**17 - 2**16
    w = np.repeat(np.array([[0b1101]], np.uint8), MOST_GRADIENTS, 0)
    assert run(name, "ternary_linear_backward", dy, w, K=2, num=1, shift=17).tolist() == [[-16383, 16383]]


@every_backend
@every_width
@pytest.mark.parametrize(("rows", "n", "k"), [(1, 3, 5), (300, 130, 257), (129, 64, 130)])
def test_gradient_of_the_weights_is_the_product_over_all_rows(name, bits, dtype, rows, n, k):
    """`ternary_linear_backward_weight.C1`: full tiles and their remainders, one part and several."""
    dy, q = errors(bits, dtype, (rows, n)), draw("uniform", 0, 2, (rows, k), -127, 127).astype(np.int8)
    dw = run(name, "ternary_linear_backward_weight", dy, q, bits=bits)
    assert dw.dtype == np.int64
    assert np.array_equal(dw, dy.T.astype(np.int64) @ q.astype(np.int64))


@every_backend
def test_more_rows_than_an_int32_holds(name, deep_tiles):
    """`ternary_linear_backward_weight.C1`: the sum of a limb would wrap after 132,104 rows."""
    rows = 140_000
    dy, q = np.full((rows, 1), -32767, np.int16), np.full((rows, 1), 127, np.int8)
    assert run(name, "ternary_linear_backward_weight", dy, q, bits=16).tolist() == [[rows * -32767 * 127]]


def test_errors_wider_than_their_bits_raise():
    q = np.zeros((1, 1), np.int8)
    with pytest.raises(spec.DomainError, match="ternary_linear_backward_weight: argument dy: found 128"):
        spec.ternary_linear_backward_weight(np.array([[128]], np.int16), q, bits=8)


@every_backend
def test_backward_is_the_adjoint_of_the_layer(name):
    """<dy, W x> = <W' dy, x>: the layer and its gradient are the same matrix."""
    dy, w, q = errors(8, np.int16, (1, 7)) // 8, digits((7, 9)), errors(8, np.int8, (1, 9)) // 8
    packed, plain = spec.pack_ternary(w), {"num": 1, "shift": 0}
    y = run(name, "ternary_linear", q, np.zeros(1, np.int32), packed, **plain)
    dx = run(name, "ternary_linear_backward", dy, packed, K=9, **plain)
    assert np.sum(dy * y.astype(np.int64)) == np.sum(dx * q.astype(np.int64)) != 0
