"""The base-2 softmax and the loss in bits, against exact rationals and real logarithms."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.spec.ops.loss import log2_q16, pow2_weights

BACKENDS = ("numba", "torch", "triton", "unbounded")


def random_logits(shape, low=-2000, high=2000):
    return np.random.default_rng(0).integers(low, high, shape).astype(np.int16)


def weight_is_within(weight: int, r: int, f: int, error: Fraction) -> bool:
    """Compare weight / 65536 with 2**(-r / 2**f), both to the power 2**f: rationals alone."""
    power = Fraction(weight, 65536) ** (1 << f)
    return (1 - error) ** (1 << f) <= power * 2**r <= (1 + error) ** (1 << f)


@pytest.mark.parametrize("f", range(9))
def test_weights_are_within_their_stated_error(f):
    weights = pow2_weights(np.arange(1 << f), f).tolist()
    assert all(weight_is_within(w, r, f, Fraction(1, 313)) for r, w in enumerate(weights))


def test_the_stated_error_is_not_slack():
    weights = pow2_weights(np.arange(256), 8).tolist()
    assert not all(weight_is_within(w, r, 8, Fraction(1, 314)) for r, w in enumerate(weights))


@pytest.mark.parametrize("f", range(9))
def test_weights_never_rise_and_halve_each_bit(f):
    weights = pow2_weights(np.arange(20 << f), f)
    assert (np.diff(weights) <= 0).all()
    assert (weights[1 << f :] == weights[: -(1 << f)] >> 1).all()


def test_softmax_of_whole_bits_is_the_rounded_rational():
    logits = random_logits((20, 9), 0, 17)
    for row, p in zip(logits.tolist(), spec.softmax_pow2(logits, f=0, q=20).tolist(), strict=True):
        total = sum(2**x for x in row)
        assert p == [math.floor(Fraction(2 ** (20 + x), total) + Fraction(1, 2)) for x in row]


def test_probabilities_sum_to_one_within_half_an_ulp_each():
    p = spec.softmax_pow2(random_logits((50, 100)), f=8, q=16)
    assert (np.abs(p.sum(axis=-1) - 65536) <= 50).all()


def test_logarithm_is_the_floor_within_its_stated_error():
    near_powers = [(1 << k) + step for k in range(16, 33) for step in (-1, 0, 1)]
    totals = [t for t in near_powers if 1 << 16 <= t <= 1 << 32]
    totals += np.random.default_rng(0).integers(1 << 16, 1 << 32, 300).tolist()
    with mpmath.workdps(30):
        for total, log in zip(totals, log2_q16(np.array(totals)).tolist(), strict=True):
            assert 0 <= mpmath.log(total, 2) * 65536 - log < 1 + mpmath.mpf(2) ** -12


def test_cross_entropy_is_the_real_one_within_the_weights_error():
    logits = random_logits((40, 50))
    target = np.arange(40, dtype=np.int32)
    losses = spec.cross_entropy_pow2(logits, target, f=8).tolist()
    # The weights err by 1/313 at most, so the logarithm of their sum by log2(313 / 312), and it is floored.
    bound = mpmath.log(mpmath.mpf(313) / 312, 2) + mpmath.mpf(2) ** -15
    for row, t, loss in zip(logits.tolist(), target, losses, strict=True):
        real = mpmath.log(mpmath.fsum(mpmath.mpf(2) ** (mpmath.mpf(x - row[t]) / 256) for x in row), 2)
        assert abs(mpmath.mpf(loss) / 65536 - real) < bound


@pytest.mark.parametrize("bits", (0, 1, 8, 16))
def test_equal_logits_cost_the_bits_of_the_vocabulary(bits):
    logits = np.full((1, 1 << bits), 77, np.int16)
    assert spec.cross_entropy_pow2(logits, np.zeros(1, np.int32), f=8).tolist() == [bits << 16]


@pytest.mark.parametrize("f, loss", ((0, 2**31 - 1), (1, 65534 << 15), (2, 65534 << 14)))
def test_only_a_loss_of_32768_bits_saturates(f, loss):
    logits = np.array([32767, -32767], np.int16)
    assert spec.cross_entropy_pow2(logits, np.array(1, np.int32), f=f) == loss


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("v", (4095, 4097, 65536))
def test_rows_of_many_tiles(backend, v):
    """Vocabularies past one tile; the maximum and the target lie in the last one, so every tile counts."""
    logits = random_logits((2, v), -32767, -32000)
    logits[:, -1] = -31999
    target = np.array([0, v - 1], np.int32)
    ops = load(backend, "cpu")
    for op, arrays, parameters in (
        ("softmax_pow2", (logits,), {"f": 8, "q": 30}),
        ("cross_entropy_pow2", (logits, target), {"f": 8}),
    ):
        np.testing.assert_array_equal(ops.run(op, arrays, parameters)[0], spec.OPS[op](*arrays, **parameters))
