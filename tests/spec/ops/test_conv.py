"""The convolution says the same whole, in pieces and step by step; its first outputs come from the state."""

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.conformance.engine.patterns import draw


def arguments(length: int):
    x = draw("uniform", 0, 0, (2, length, 5), -32767, 32767).astype(np.int16)
    w = draw("uniform", 0, 1, (5, 4), -127, 127).astype(np.int8)
    bias = draw("uniform", 0, 2, (5,), -(2**20), 2**20).astype(np.int32)
    state = draw("uniform", 0, 3, (2, 3, 5), -32767, 32767).astype(np.int16)
    return x, w, bias, state


@pytest.mark.parametrize("length", [1, 2, 3, 4, 11])
def test_whole_pieces_and_steps(length):
    """`causal_conv1d.C3` and `conv1d_step.C1`."""
    x, w, bias, start = arguments(length)
    whole, end = spec.causal_conv1d(x, w, bias, start, s=9)
    for cut in range(length + 1):
        first, state = spec.causal_conv1d(x[:, :cut], w, bias, start, s=9)
        second, state = spec.causal_conv1d(x[:, cut:], w, bias, state, s=9)
        assert np.array_equal(np.concatenate([first, second], axis=1), whole)
        assert np.array_equal(state, end)
    state = start
    for t in range(length):
        y, state = spec.conv1d_step(x[:, t], w, bias, state, s=9)
        assert np.array_equal(y, whole[:, t])
    assert np.array_equal(state, end)


def test_equals_the_convolution_of_numpy():
    """`causal_conv1d.C1` and `causal_conv1d.C2`, against another convolution."""
    x, w, bias, state = arguments(11)
    y, end = spec.causal_conv1d(x, w, bias, state, s=0)
    known = np.concatenate([state, x], axis=1).astype(np.int64)
    for b, d in np.ndindex(2, 5):
        want = np.convolve(known[b, :, d], w[d, ::-1].astype(np.int64), "valid") + bias[d]
        assert np.array_equal(y[b, :, d], np.clip(want, -32767, 32767))
    assert np.array_equal(end, x[:, -3:])
