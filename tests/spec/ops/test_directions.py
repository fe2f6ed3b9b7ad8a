"""Gradients of ops whose smooth twin is a line or two: cosine and signs against float64. Other ops: their own tests."""

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.spec.model.language_model import rotations

RANDOM = np.random.default_rng(0)
COUNTERS = {"seed": 1, "step": 2, "stream": 3, "first": 0}


def agreement(gradient, smooth):
    """Return the cosine, and the share of equal signs among elements above a tenth of the root mean square."""
    gradient, smooth = gradient.astype(float).ravel(), smooth.ravel()
    large = np.abs(smooth) > 0.1 * np.sqrt((smooth * smooth).mean())
    cosine = gradient @ smooth / np.linalg.norm(gradient) / np.linalg.norm(smooth)
    return cosine, (np.sign(gradient) == np.sign(smooth))[large].mean()


def errors(*shape):
    return np.clip(RANDOM.normal(0, 500, shape), -32767, 32767).round().astype(np.int16)


def linear():
    dy, digits = errors(64, 96), RANDOM.integers(-1, 2, (96, 128)).astype(np.int8)
    gradient = spec.ternary_linear_backward(dy, spec.pack_ternary(digits), K=128, num=20724, shift=18)
    return gradient, dy.astype(float) @ digits * (20724 / 2**18)


def linear_weight():
    dy, x = errors(200, 24), np.clip(RANDOM.normal(0, 900, (200, 32)), -32767, 32767).round().astype(np.int16)
    q, e = spec.quantize_rows(x)
    operand = spec.stochastic_round_rows(dy, e, shift=4, bits=16, **COUNTERS)
    return spec.ternary_linear_backward_weight(operand, q, bits=16), dy.T.astype(float) @ x


def loss():
    logits = RANDOM.normal(0, 512, (200, 96)).round().astype(np.int16)
    target = RANDOM.integers(0, 96, 200).astype(np.int32)
    gradient = spec.cross_entropy_pow2_backward(logits, target, f=8, **COUNTERS)
    weights = 2.0 ** (logits / 256.0)
    return gradient, weights / weights.sum(-1, keepdims=True) - np.eye(96)[target]


def residual():
    dy = RANDOM.normal(0, 1 << 20, (64, 64)).round().astype(np.int32)
    return spec.residual_add_backward(dy, num=23170, shift=24), dy * (23170 / 2**24)


def embedding():
    ids, dy = RANDOM.integers(0, 9, 300).astype(np.int32), RANDOM.normal(0, 1 << 20, (300, 8)).round().astype(np.int32)
    return spec.embedding_backward(ids, dy, V=9), np.eye(9)[ids].T @ dy


def rotation():
    lam, gam, quadrant = rotations(np.arange(40), 8, 15)
    dy, angle = errors(1, 40, 16), np.arcsin(gam / 2.0**15) + quadrant * (np.pi / 2)
    even, odd = dy[..., 0::2], dy[..., 1::2]
    turned = even * np.cos(angle) + odd * np.sin(angle), odd * np.cos(angle) - even * np.sin(angle)
    return spec.rope_inverse(dy, lam, gam, quadrant, s=15), np.stack(turned, -1).reshape(dy.shape)


@pytest.mark.parametrize("case", [linear, linear_weight, loss, residual, embedding, rotation])
def test_direction_is_that_of_the_smooth_twin(case):
    cosine, signs = agreement(*case())
    assert cosine > 0.9999 and signs > 0.99, (cosine, signs)
