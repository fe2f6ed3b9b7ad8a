"""The backward of the activations against the derivatives of their smooth twins: size, direction, bias."""

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.conformance.engine.patterns import draw
from mamba_integer.conformance.plans.activation import offsets

EVERY = np.arange(-32767, 32768, dtype=np.int16)
FRACTIONS = pytest.mark.parametrize("f", [0, 4, 8, 14])


def gradients(size: int) -> np.ndarray:
    return draw("uniform", 0, 0, (size,), -(2**20), 2**20).astype(np.int32)


def cosine(a, b) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return a @ b / np.sqrt((a @ a) * (b @ b))


def squareplus_derivative(f: int) -> np.ndarray:
    real = EVERY / 2.0**f
    return (1 + real / np.sqrt(real * real + 4)) / 2


def unsaturated(f: int, offset: int) -> np.ndarray:
    return EVERY + np.sqrt(EVERY.astype(np.float64) ** 2 + 4 * 4.0**f) < 65536 + 2 * offset


@FRACTIONS
def test_squareplus_slope_is_the_derivative_of_every_input(f):
    """`squareplus_backward.C1`: within the stated error, and never falling."""
    passing = unsaturated(f, 0)
    slope = spec.squareplus_backward(np.full(EVERY.shape, 1 << 15, np.int32), EVERY, f=f, offset=0)[passing]
    error = slope / 2.0**15 - squareplus_derivative(f)[passing]
    assert np.abs(error).max() <= 2.0**-16 + 2.0 ** -(f + 2)
    assert (np.diff(slope) >= 0).all()
    symmetric = np.abs(EVERY[passing]) <= EVERY[passing].max()
    assert abs(error[symmetric].mean()) < 0.1 * 2.0**-15, "rounded to one side"


@pytest.mark.parametrize(("f", "offset"), [(f, offset) for f in (0, 8, 14) for offset in offsets(f)])
def test_squareplus_passes_nothing_where_it_saturates(f, offset):
    """`squareplus_backward.C2`; elsewhere the offset changes no slope."""
    dy, passing = np.full(EVERY.shape, 1 << 20, np.int32), unsaturated(f, offset)
    dx = spec.squareplus_backward(dy, EVERY, f=f, offset=offset)
    assert not dx[~passing].any()
    assert (spec.squareplus(EVERY, f=f, offset=offset)[~passing] == 32767).all()
    assert np.array_equal(dx[passing], spec.squareplus_backward(dy, EVERY, f=f, offset=2**15 - 1)[passing])


@pytest.mark.parametrize(("f", "offset"), [(8, 0), (8, 256), (14, 0), (14, 4096)])
def test_squareplus_direction_and_bias(f, offset):
    """`squareplus_backward.C3`: no longer than dy, of its sign, and rounded without a side."""
    dy = gradients(EVERY.size)
    dx = spec.squareplus_backward(dy, EVERY, f=f, offset=offset)
    smooth = dy * squareplus_derivative(f) * unsaturated(f, offset)
    assert (np.abs(dx) <= np.abs(dy)).all()
    assert (dx.astype(np.int64) * dy >= 0).all()
    assert cosine(dx, smooth) > 1 - 1e-5
    ones = np.where(EVERY % 2 == 0, 1, -1).astype(np.int32)
    assert abs(spec.squareplus_backward(ones * 3, EVERY, f=f, offset=offset).mean()) < 0.1


def smooth_gate(dy, x, z, f):
    """Return the gradients by x and by z, both in the units of the integers."""
    real = z / 2.0**f
    sigmoid = 0.5 + real / (2 * (1 + np.abs(real)))
    return dy * sigmoid, dy * (x / 2.0**f) / (2 * (1 + np.abs(real)) ** 2)


@FRACTIONS
def test_gate_of_every_gating_input(f):
    """`sigmoid_gate_backward.C1` and `C2`: the sigmoid within half an ulp of Q.15. `C3`: its slope."""
    x = np.full(EVERY.shape, 1 << min(f, 13), np.int16)
    dy = np.full(EVERY.shape, 1 << 17 << (f - min(f, 13)), np.int32)
    dx, dz = spec.sigmoid_gate_backward(dy, x, EVERY, f=f)
    smooth_x, smooth_z = smooth_gate(dy.astype(np.float64), x.astype(np.float64), EVERY, f)
    assert np.abs(dx - smooth_x).max() <= 0.5 * 2.0**-15 * dy[0]
    assert (np.diff(dx) >= 0).all()
    # dz is the slope in Q.16: half an ulp of u in Q.15 is two of u*u / 2**14, which is rounded.
    assert np.abs(dz - smooth_z).max() <= 2.5 + 2.0**-14
    assert abs((dz - smooth_z).mean()) < 0.1, "rounded to one side"


@pytest.mark.parametrize("f", [8, 12])
def test_gate_direction_and_bias(f):
    """`sigmoid_gate_backward.C2` and `C3`."""
    size = EVERY.size
    dy, x = gradients(size), draw("uniform", 0, 1, (size,), -3000, 3000).astype(np.int16)
    dx, dz = spec.sigmoid_gate_backward(dy, x, EVERY, f=f)
    smooth_x, smooth_z = smooth_gate(dy.astype(np.float64), x.astype(np.float64), EVERY, f)
    assert cosine(dx, smooth_x) > 1 - 1e-7
    assert cosine(dz, smooth_z) > 1 - 1e-5
    assert (dx.astype(np.int64) * dy >= 0).all()
    assert (dz.astype(np.int64) * dy * x >= 0).all()
    assert abs((dx - smooth_x).mean()) < 0.05


def test_gate_saturates_at_32_bits():
    """`sigmoid_gate_backward.C3`."""
    dy = np.array([2**31 - 1, -(2**31 - 1)], np.int32)
    _, dz = spec.sigmoid_gate_backward(dy, np.full(2, 32767, np.int16), np.zeros(2, np.int16), f=8)
    assert dz.tolist() == dy.tolist()


def smooth_silu(dy, x, z, f):
    """Return the gradients by x and by z, both in the units of the integers."""
    real = z / 2.0**f
    inverse = 1 / (1 + np.abs(real))
    value = real * np.where(z < 0, inverse / 2, 1 - inverse / 2)
    slope = np.where(z < 0, inverse * inverse / 2, 1 - inverse * inverse / 2)
    return dy * value, dy * x / 2.0**f * slope


@FRACTIONS
def test_smooth_silu_is_the_forward_op_and_its_derivative(f):
    """The twin itself: its value is `silu_gate` but for a floor and a rounding, its slope the difference quotient."""
    x, step = 1 << min(f, 8), 2.0**-10
    value, slope = smooth_silu(1.0, 2.0**f, EVERY.astype(np.float64), f)
    error = spec.silu_gate(np.full(EVERY.shape, x, np.int16), EVERY, f=f) - np.clip(value * x, -32767, 32767)
    floored = EVERY / -(2.0 ** (f + 15)) * x
    assert (error >= np.minimum(floored, 0) - 0.5).all() and (error <= np.maximum(floored, 0) + 0.5).all()
    above, below = (smooth_silu(1.0, 0.0, EVERY + side * step, f)[0] for side in (1, -1))
    assert np.abs((above - below) / (2 * step) * 2.0**f - slope).max() < 2.0**-9


@FRACTIONS
def test_silu_of_every_gating_input(f):
    """`silu_gate_backward.C1`, `C2` and `C3`: the gate within half an ulp of Q.16, the slope within 1.5."""
    x = np.full(EVERY.shape, 1 << min(f, 13), np.int16)
    dy = np.full(EVERY.shape, 1 << 16 << (f - min(f, 13)), np.int32)
    dx, dz = spec.silu_gate_backward(dy, x, EVERY, f=f)
    smooth_x, smooth_z = smooth_silu(dy.astype(np.float64), x.astype(np.float64), EVERY, f)
    limit = 2.0**31 - 1
    error_x, error_z = dx - np.clip(smooth_x, -limit, limit), dz - smooth_z
    ulp = np.abs(EVERY) / 2.0**f * dy / 2.0**16
    # dz is the slope in Q.16: half an ulp of u in Q.15 is one of u*u / 2**15, which is rounded.
    assert (np.abs(error_x) <= 0.5 + 0.5 * ulp).all()
    assert np.abs(error_z).max() <= 1.5 + 2.0**-17
    assert (np.diff(dz) >= 0).all() and dz.min() >= 0
    # The errors of dz at z and -z cancel: look at one side.
    assert abs(error_x.mean()) < 0.1 * (1 + ulp.mean()) and abs(error_z[EVERY < 0].mean()) < 0.1, "rounded to one side"


@pytest.mark.parametrize("f", [8, 12])
def test_silu_direction_and_bias(f):
    """`silu_gate_backward.C2` and `C3`."""
    size = EVERY.size
    dy, x = gradients(size), draw("uniform", 0, 1, (size,), -3000, 3000).astype(np.int16)
    dx, dz = spec.silu_gate_backward(dy, x, EVERY, f=f)
    smooth_x, smooth_z = smooth_silu(dy.astype(np.float64), x.astype(np.float64), EVERY, f)
    for part in (EVERY != 0, EVERY < 0, np.abs(EVERY) < 2**f):
        assert cosine(dx[part], smooth_x[part]) > 1 - 1e-5
        assert cosine(dz[part], smooth_z[part]) > 1 - 1e-5
    assert (np.sign(dx) * np.sign(dy) * np.sign(EVERY) >= 0).all()
    assert (np.sign(dz) * np.sign(dy) * np.sign(x) >= 0).all()
    small = dy >> 13
    dx, dz = spec.silu_gate_backward(small, x, EVERY, f=f)
    smooth_x, smooth_z = smooth_silu(small.astype(np.float64), x.astype(np.float64), EVERY, f)
    assert abs((dx - smooth_x).mean()) < 0.05 and abs((dz - smooth_z).mean()) < 0.05


def test_silu_saturates_at_32_bits():
    """`silu_gate_backward.C2` and `C3`."""
    dy = np.array([2**31 - 1, -(2**31 - 1)], np.int32)
    dx, dz = spec.silu_gate_backward(dy, np.full(2, 32767, np.int16), np.full(2, 32767, np.int16), f=8)
    assert dx.tolist() == dz.tolist() == dy.tolist()
