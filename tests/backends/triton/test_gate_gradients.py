"""A gate's gradients in 16 bits, from one launch, are those of the ops one after the other."""

import numpy as np
import pytest

from mamba_integer.backends import load
from mamba_integer.spec import ops
from mamba_integer.spec.training.backward import gate_gradients


@pytest.mark.parametrize(("x_shift", "z_shift"), [(0, 0), (1, 3), (31, 31)])
@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_gradients_of_a_gate_at_once(dtype, x_shift, z_shift):
    random, backend = np.random.default_rng(x_shift), load("triton")
    end = 32767 if dtype == np.int16 else (1 << 31) - 1
    dy = random.integers(-end, end + 1, (5, 300)).astype(dtype) >> random.integers(0, 20, (5, 1)).astype(dtype)
    x, both = random.integers(-32767, 32768, (5, 300)), random.integers(-32767, 32768, (5, 600)).astype(np.int16)
    x = np.where(random.random(x.shape) < 0.3, np.sign(x) * 32767, x).astype(np.int16)
    shifts = {"f": 9, "x_shift": x_shift, "z_shift": z_shift}
    want = gate_gradients(ops, None, dy, x, both[:, 300:], **shifts)
    held = backend.load(both)
    got = gate_gradients(None, backend.ops.narrow_gate_gradients, *map(backend.load, (dy, x)), held[:, 300:], **shifts)
    for result, expected in zip(got, want, strict=True):
        assert backend.store(result).dtype == np.int16
        np.testing.assert_array_equal(backend.store(result), expected)
