"""Squareplus and its offset, and what the SiLU gate weighs by, on every input."""

from types import SimpleNamespace

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.conformance.plans.activation import offsets
from mamba_integer.spec.ops.activation import least_weighted

EVERY = np.arange(-32767, 32768, dtype=np.int16)
FRACTIONS = pytest.mark.parametrize("f", range(15))


@FRACTIONS
def test_squareplus_is_zero_at_zero_and_never_saturates(f):
    """`squareplus.C2`, with the offset 2**f: y is 0 at 0, never falls and lies between -2**f and max(x, 0)."""
    y = spec.squareplus(EVERY, f=f, offset=1 << f)
    assert y[EVERY == 0] == 0
    assert (np.diff(y.astype(int)) >= 0).all()
    assert (y >= -(1 << f)).all() and (y <= np.maximum(EVERY, 0)).all()


@FRACTIONS
def test_squareplus_saturates_after_the_offset_and_at_the_high_end_only(f):
    """`squareplus.C3`: what is saturated is the floor of the smooth function, less the offset."""
    root = np.floor(np.sqrt(EVERY.astype(float) ** 2 + 4 * 4.0**f)).astype(int)
    for offset in offsets(f):
        exact = (EVERY + root) // 2 - offset
        assert (exact >= -offset).all()
        assert np.array_equal(spec.squareplus(EVERY, f=f, offset=offset), np.minimum(exact, 32767))


@FRACTIONS
def test_silu_weight_has_the_proved_range(f):
    """The interval of z * algebraic_sigmoid(z) is attained and holds every z, and its low end is above -1/2."""
    weight = EVERY * spec.algebraic_sigmoid(EVERY, f=f).astype(int)
    proved = spec.OPS["silu_gate"].widths(SimpleNamespace(f=f))["weight"].range
    assert (weight.min(), weight.max()) == (proved.low, proved.high)
    assert weight[least_weighted(f) == EVERY] == proved.low > -(1 << (14 + f))


@FRACTIONS
def test_silu_gate_is_one_rounding_of_the_weight(f):
    """`silu_gate.C2` and `C3`; a gate of z = 0 is closed."""
    weight = EVERY * spec.algebraic_sigmoid(EVERY, f=f).astype(int)
    for x in (-32767, -1, 1, 32767):
        y = spec.silu_gate(np.full(EVERY.shape, x, np.int16), EVERY, f=f)
        exact = np.floor_divide(2 * x * weight + (1 << (15 + f)), 1 << (16 + f))
        assert np.array_equal(y, np.clip(exact, -32767, 32767))
        assert y[EVERY == 0] == 0
