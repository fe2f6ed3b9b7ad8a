"""The norm's backward points where the float gradient of the smooth norm points, and has no bias."""

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.conformance.engine.patterns import draw
from mamba_integer.spec.ops.norm import row_scale

ROWS, D = 64, 96


def call(spread=20000, b=3, e=0):
    x = draw("uniform", spread, 0, (ROWS, D), -spread, spread).astype(np.int32)
    gamma = draw("uniform", 1, 1, (D,), 2000, 6000).astype(np.int16)
    dy = draw("uniform", 2, 2, (ROWS, D), -32767, 32767).astype(np.int16)
    # Errors that see the row: without the Jacobian's second term the direction would be wrong.
    dy = np.clip(dy // 4 + 12000 * x.astype(np.int64) // spread + 5000, -32767, 32767).astype(np.int16)
    dx, dgamma = spec.bitshift_norm_backward(x, gamma, dy, np.zeros_like(x), b=b, e=e)
    return x, gamma, dy, dx, dgamma


def across(c, gamma, dy):
    """Return the error of the normalised row less its parts along ones and along the centred row, in float64."""
    g = dy.astype(float) * gamma
    g -= g.mean(axis=1, keepdims=True)
    return g - c * (g * c).sum(axis=1, keepdims=True) / (c * c).sum(axis=1, keepdims=True)


def cosine(a, b):
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


@pytest.mark.parametrize("spread", [300, 20000, 2**23 - 1])
@pytest.mark.parametrize(("b", "least"), [(0, 0.9), (1, 0.98), (3, 0.999)])
def test_direction_is_that_of_the_smooth_norm(spread, b, least):
    """`bitshift_norm_backward.C4`, `bitshift_norm_backward.C5`, `bitshift_norm_backward.C6`."""
    x, gamma, dy, dx, dgamma = call(spread, b=b, e=-10)
    c, deviation = x - x.mean(axis=1, keepdims=True), x.std(axis=1, keepdims=True)
    smooth = across(c, gamma, dy) / deviation
    assert cosine(dx.astype(float), smooth) > least
    large = np.abs(smooth) > np.abs(smooth).mean()
    assert np.all(np.sign(dx[large]) == np.sign(smooth[large]))
    gain = (dy * c / deviation).sum(axis=0)
    assert cosine(dgamma.astype(float), gain) > 0.999


@pytest.mark.parametrize("e", [0, 4, 7])
def test_error_is_rounded_without_bias(e):
    """`bitshift_norm_backward.C1` to `bitshift_norm_backward.C4`: against the same row and scale in float64."""
    x, gamma, dy, dx, _ = call(e=e)
    c, k, m = row_scale(x, 3)
    exact = across(c.astype(float), gamma, dy) * m / 2.0 ** (k + 3 + e)
    wrong = dx - exact
    unit = 2.0 ** -(e + 3)  # what the row's own direction, in Q.12, may be wrong by, as a part of the error
    assert np.abs(wrong).max() < 0.5 + unit * 40
    assert abs(wrong.mean()) < 0.03


@pytest.mark.parametrize("b", range(5))
def test_error_is_orthogonal_to_ones_and_to_the_row(b):
    """`bitshift_norm_backward.C2`, `bitshift_norm_backward.C3`: a constant or a multiple of x changes no norm."""
    x, _, _, dx, _ = call(b=b, e=-10)
    c = x - x.mean(axis=1, keepdims=True)
    for row, direction in zip(dx.astype(float), c, strict=True):
        assert abs(cosine(row, np.ones(D))) < 1e-3
        assert abs(cosine(row, direction)) < 1e-3


@pytest.mark.parametrize("value", [0, -5, 2**23 - 1])
def test_equal_elements_pass_the_centred_error(value):
    """A row without a direction of its own: nothing but the mean is taken off, and gamma learns nothing."""
    x, gamma = np.full((1, 4), value, np.int32), np.full(4, 256, np.int16)
    dy, dr = np.array([[4, 0, 0, 0]], np.int16), np.array([[0, 1, 2, 2**31 - 1]], np.int32)
    dx, dgamma = spec.bitshift_norm_backward(x, gamma, dy, dr, b=0, e=0)
    assert dx.tolist() == [[768, -255, -254, 2**31 - 257]]
    assert not dgamma.any()


def test_sum_with_the_stream_saturates():
    """`bitshift_norm_backward.C4`."""
    x, gamma = np.array([[5, -5, 3, -3]], np.int32), np.full(4, 32767, np.int16)
    dy = np.array([[32767, 0, 0, -32767]], np.int16)
    dx, _ = spec.bitshift_norm_backward(x, gamma, dy, np.full((1, 4), 2**31 - 1, np.int32), b=3, e=-16)
    assert dx.max() == 2**31 - 1 and dx.min() == -(2**31) + 1


def test_embedding_sums_the_errors_of_one_row():
    """`embedding_backward.C1`, `embedding_backward.C2`: more than int32 holds, in any order of the places."""
    ids, dy = np.array([1, 0, 1, 1], np.int32), np.full((4, 2), 2**31 - 1, np.int32)
    assert spec.embedding_backward(ids, dy, V=2).tolist() == [[2**31 - 1] * 2, [3 * (2**31 - 1)] * 2]
    with pytest.raises(spec.DomainError, match="embedding_backward: argument ids: found 1"):
        spec.embedding_backward(ids, dy, V=1)


def test_residual_error_is_rounded_once_and_up_at_a_tie():
    """`residual_add_backward.C1`, `residual_add_backward.C2`."""
    dy = np.array([1, -1, 3, -3, 2**31 - 1, -(2**31) + 1], np.int32)
    assert spec.residual_add_backward(dy, num=1, shift=1).tolist() == [1, 0, 2, -1, 32767, -32767]
    assert spec.residual_add_backward(dy[4:], num=-32767, shift=31).tolist() == [-32767, 32767]
