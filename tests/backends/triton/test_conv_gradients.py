"""A block's gradients through squareplus and convolution, from one launch, are those of the ops one after the other."""

import numpy as np
import pytest

from mamba_integer.backends import load
from mamba_integer.spec import ops
from mamba_integer.spec.training.backward import conv_gradients

F, S = {"f": 9, "offset": 0}, 6


@pytest.mark.parametrize(("length", "shift"), [(1, 0), (7, 3), (35, 12), (70, 31)])
def test_gradients_of_a_convolution_at_once(length, shift):
    random, backend = np.random.default_rng(length), load("triton")
    channels = 20
    xz = (random.integers(-32767, 32768, (2, length, 2 * channels)) >> random.integers(0, 9, 2 * channels)).astype("i2")
    state = random.integers(-32767, 32768, (2, 3, channels)).astype(np.int16)
    w = random.integers(-127, 128, (channels, 4)).astype(np.int8)
    bias = random.integers(-(1 << 20), 1 << 20, channels).astype(np.int32)
    dy, dz = (random.integers(-32767, 32768, (2, length, channels)).astype(np.int16) for _ in range(2))
    before = xz[..., :channels], w, bias, state
    conv, _ = ops.causal_conv1d(*before, s=S)
    assert (np.abs(conv) == 32767).any() and (np.abs(conv) < 32767).any()
    rule = {"squareplus": F, "s": S, "shift": shift}
    want = conv_gradients(ops, None, np.concatenate, dy, conv, before, dz, **rule)
    held = backend.load(xz)[..., :channels], *map(backend.load, before[1:])
    at_once = backend.ops.narrow_conv_gradients
    got = conv_gradients(None, at_once, None, backend.load(dy), None, held, backend.load(dz), **rule)
    for result, expected in zip(got, want, strict=True):
        assert backend.store(result).dtype == expected.dtype
        np.testing.assert_array_equal(backend.store(result), expected)
