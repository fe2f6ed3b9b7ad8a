"""The error of the logits: the right probabilities in the mean, less the target; the same however a batch is cut."""

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.conformance.engine.patterns import draw
from mamba_integer.spec.ops.loss import pow2_weights
from mamba_integer.spec.philox import rounding_words

BACKENDS = ("golden", "numba", "torch", "triton")
ROUNDING = {"seed": (1 << 64) - 3, "step": 2**32 - 1, "stream": 2**31, "first": 5}


def logits_of(rows, v):
    return draw("uniform", 0, 0, (rows, v), -1500, 1500).astype(np.int16)


def test_mean_is_the_exact_gradient():
    """`cross_entropy_pow2_backward.C1` to `.C4`: 20,000 roundings of each probability, many of them small."""
    rows, v = 20_000, 300
    logits = logits_of(1, v) - 3000
    logits[0, :2] = 0
    gradient = spec.cross_entropy_pow2_backward(
        np.repeat(logits, rows, 0), np.full(rows, 1, np.int32), f=8, **ROUNDING
    ).mean(0)
    weight = pow2_weights(-logits[0].astype(np.int64), 8)
    want = 32768 * (weight / weight.sum() - (np.arange(v) == 1))
    assert np.count_nonzero((want > 0) & (want < 0.5)) > v // 10
    # The standard deviation of a mean is at most 1/2 of a unit over the root of 20,000.
    assert np.abs(gradient - want).max() < 5 * 0.5 / np.sqrt(rows)


def test_each_value_is_the_rational_rounded_by_its_word():
    """`cross_entropy_pow2_backward.C3`, `cross_entropy_pow2_backward.C5`."""
    logits, target = logits_of(3, 6), np.array([0, 3, 5], np.int32)
    gradient = spec.cross_entropy_pow2_backward(logits, target, f=8, **ROUNDING)
    words = rounding_words(3, 6, **ROUNDING)
    for row in range(3):
        weight = [int(e) for e in pow2_weights(int(logits[row].max()) - logits[row].astype(np.int64), 8)]
        for n, e in enumerate(weight):
            dither = int(words[row, n]) // 2 * sum(weight) // 2**31
            p = (e * 2**15 + dither) // sum(weight)
            assert gradient[row, n] == p - 2**15 * (n == target[row])


def test_a_certain_token_saturates():
    """`cross_entropy_pow2_backward.C4`: a probability of 0 at the target, and of 1 elsewhere."""
    gradient = spec.cross_entropy_pow2_backward(
        np.array([[32767, -32767]], np.int16), np.array([1], np.int32), f=8, **ROUNDING
    )
    assert gradient.tolist() == [[32767, -32767]]


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("v", [3, 4097])
def test_rows_of_many_tiles_and_any_cut(name, v):
    """`cross_entropy_pow2_backward.C5`: a row has its own words, in vocabularies past one tile too."""
    logits, target = logits_of(3, v), np.array([0, v - 1, v // 2], np.int32)
    run = load(name, "cpu").run
    for first in (0, 2**32 // -(-v // 4) - 4):
        parameters = {"f": 8, **ROUNDING}
        want = spec.cross_entropy_pow2_backward(logits, target, **parameters | {"first": first})
        for start, stop in ((0, 3), (0, 1), (1, 3)):
            part = (logits[start:stop], target[start:stop])
            (gradient,) = run("cross_entropy_pow2_backward", part, parameters | {"first": first + start})
            np.testing.assert_array_equal(gradient, want[start:stop])


def test_rows_without_words_of_their_own_raise():
    logits, target = logits_of(2, 65536), np.zeros(2, np.int32)
    last = 2**32 // 16384 - 2
    spec.cross_entropy_pow2_backward(logits, target, f=8, **ROUNDING | {"first": last})
    with pytest.raises(spec.DomainError, match="counter"):
        spec.cross_entropy_pow2_backward(logits, target, f=8, **ROUNDING | {"first": last + 1})
