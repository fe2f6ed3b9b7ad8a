"""The backward of the convolution against exact finite differences of the forward op."""

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.conformance.engine.patterns import draw
from mamba_integer.spec.contract import DomainError

B, L, D = 2, 6, 3


def arguments(limit: int = 50, length: int = L):
    """Return dy and the inputs of the forward op, whose results stay far from 16 bits where ``limit`` is small."""
    dy = draw("uniform", 1, 0, (B, length, D), -1000, 1000).astype(np.int32)
    x = draw("uniform", 1, 1, (B, length, D), -limit, limit).astype(np.int16)
    w = draw("uniform", 1, 2, (D, 4), -100, 100).astype(np.int8)
    bias = draw("uniform", 1, 3, (D,), -1000, 1000).astype(np.int32)
    state = draw("uniform", 1, 4, (B, 3, D), -limit, limit).astype(np.int16)
    return dy, x, w, bias, state


def loss(dy, *arrays) -> int:
    y, _ = spec.causal_conv1d(*arrays, s=0)
    return int((dy.astype(np.int64) * y).sum())


def test_gradients_are_the_differences_of_the_loss():
    """`causal_conv1d_backward.C2`, `C3` and `C4`: at s = 0 the op is linear, so a difference of one is the gradient."""
    dy, *arrays = arguments()
    gradients = spec.causal_conv1d_backward(dy, *arrays, s=0)
    for position, gradient in enumerate(gradients):
        for index in np.ndindex(gradient.shape):
            moved = [array.copy() for array in arrays]
            moved[position][index] += 1
            assert loss(dy, *moved) - loss(dy, *arrays) == gradient[index], (position, index)


@pytest.mark.parametrize("s", [1, 6, 22])
def test_only_the_gradient_of_x_is_shifted(s):
    """`causal_conv1d_backward.C2` and `C3`: dx is rounded once, dw and dbias not at all."""
    call = arguments()
    exact, *sums = spec.causal_conv1d_backward(*call, s=0)
    dx, *shifted = spec.causal_conv1d_backward(*call, s=s)
    assert np.array_equal(dx, (exact.astype(np.int64) + (1 << s >> 1)) >> s)
    assert all(np.array_equal(a, b) for a, b in zip(sums, shifted, strict=True))


def test_saturated_results_pass_nothing():
    """`causal_conv1d_backward.C1`: what the clipped results' gradients are changes nothing; those of others do."""
    dy, *arrays = arguments(limit=32767)
    y, _ = spec.causal_conv1d(*arrays, s=6)
    saturated = np.abs(y) == 32767
    assert saturated.any() and not saturated.all()
    want = spec.causal_conv1d_backward(dy, *arrays, s=6)
    for changed, same in ((saturated, True), (~saturated, False)):
        got = spec.causal_conv1d_backward(np.where(changed, dy + 12345, dy), *arrays, s=6)
        assert all(np.array_equal(a, b) == same for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("backend", ["numba", "torch", "triton"])
def test_a_result_at_the_edge_passes(backend):
    """`causal_conv1d_backward.C1`: 32767 itself was not saturated, 32768 was."""
    w, bias = np.zeros((4, 4), np.int8), np.array([32767, 32768, -32767, -32768], np.int32)
    x, state, dy = np.ones((1, 1, 4), np.int16), np.zeros((1, 3, 4), np.int16), np.full((1, 1, 4), 5, np.int32)
    _, dw, dbias = load(backend).run("causal_conv1d_backward", [dy, x, w, bias, state], {"s": 0})
    assert dbias.tolist() == dw[:, 3].tolist() == [5, 0, 5, 0]


@pytest.mark.parametrize("backend", ["numba", "torch", "triton"])
def test_blocks_of_steps_and_channels_meet(backend):
    """Gradients reach three steps back, over the ends of the blocks that programs and threads work on."""
    shape = (2, 35, 257)
    dy = draw("uniform", 2, 0, shape, -(2**31) + 1, 2**31 - 1).astype(np.int32)
    x = draw("uniform", 2, 1, shape, -9000, 9000).astype(np.int16)
    w = draw("uniform", 2, 2, (257, 4), -127, 127).astype(np.int8)
    bias = draw("uniform", 2, 3, (257,), -(2**20), 2**20).astype(np.int32)
    call = (dy, x, w, bias, draw("uniform", 2, 4, (2, 3, 257), -9000, 9000).astype(np.int16))
    want = spec.causal_conv1d_backward(*call, s=6)
    got = load(backend).run("causal_conv1d_backward", call, {"s": 6})
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


def test_more_steps_than_int64_sums_raise():
    """2**17 steps of the largest products fit; a few more do not."""
    w, bias, state = np.zeros((1, 4), np.int8), np.zeros(1, np.int32), np.zeros((1, 3, 1), np.int16)
    for length, fits in ((1 << 17, True), ((1 << 17) + 9, False)):
        call = np.zeros((1, length, 1), np.int32), np.zeros((1, length, 1), np.int16), w, bias, state
        if fits:
            spec.causal_conv1d_backward(*call, s=0)
        else:
            with pytest.raises(DomainError, match="dw"):
                spec.causal_conv1d_backward(*call, s=0)
