"""The optimizer learns, its exponents come to rest, and rounding by chance is right in the mean."""

import numpy as np
import pytest

from mamba_integer import spec

LIMIT = 1 << 28
LION = {"g_up": 0, "g_down": 0, "low": -LIMIT, "high": LIMIT}


def test_stochastic_rounding_has_no_bias():
    """`stochastic_round_rows.C1`: over many steps each element's mean is the rational itself; a multiple is exact."""
    x, e = np.array([[5, -5, 64, -63, 1, 100]], np.int16), np.array([2], np.int32)
    parameters = {"shift": 6, "bits": 16, "seed": 3, "stream": 0, "first": 0}
    drawn = np.array([spec.stochastic_round_rows(x, e, step=step, **parameters)[0] for step in range(4096)], np.int64)
    # A standard error is at most half a unit over 64.
    assert np.all(np.abs(drawn.sum(0) * 64 - 4096 * 4 * x[0].astype(np.int64)) <= 4096 * 64 * 5 // 128)
    assert set(drawn[:, 2].tolist()) == {4}


def test_rounding_words_are_no_other_steps_or_tensors():
    """`stochastic_round_rows.C3`."""
    x, e = np.full((1, 64), 33, np.int16), np.zeros(1, np.int32)
    parameters = {"shift": 6, "bits": 8, "seed": 0, "step": 0, "stream": 0, "first": 0}
    drawn = {
        spec.stochastic_round_rows(x, e, **parameters | change).tobytes()
        for change in ({}, {"seed": 1}, {"seed": 1 << 32}, {"step": 1}, {"stream": 1}, {"first": 1})
    }
    assert len(drawn) == 6


@pytest.mark.parametrize("cut", [0, 1, 3, 5])
def test_rows_may_be_cut_anywhere(cut):
    """`stochastic_round_rows.C3`: rows are counted over the leading dimensions, flattened, from first."""
    x = np.arange(-210, 210, dtype=np.int16).reshape(5, 2, 42)
    e = np.arange(10, dtype=np.int32).reshape(5, 2)
    parameters = {"shift": 5, "bits": 16, "seed": 7, "step": 1, "stream": 2}
    parts = [
        spec.stochastic_round_rows(x[:cut], e[:cut], first=11, **parameters),
        spec.stochastic_round_rows(x[cut:], e[cut:], first=11 + 2 * cut, **parameters),
    ]
    assert np.array_equal(np.concatenate(parts), spec.stochastic_round_rows(x, e, first=11, **parameters))


def test_more_rows_than_words_raise():
    """`stochastic_round_rows.C3`: no counter is used twice."""
    x, e = np.zeros((2, 5), np.int16), np.zeros(2, np.int32)
    parameters = {"shift": 1, "bits": 8, "seed": 0, "step": 0, "stream": 0}
    spec.stochastic_round_rows(x, e, first=2**31 - 2, **parameters)
    with pytest.raises(spec.DomainError, match="counter"):
        spec.stochastic_round_rows(x, e, first=2**31 - 1, **parameters)


def test_projection_is_strict_at_half_the_mean():
    """`ternary_project.C1`: a weight of exactly half the mean is 0."""
    w = np.array([[1, 1, 6, -8], [-2, 2, 0, -4]], np.int32)  # half the mean is 1.5
    assert spec.unpack_ternary(spec.ternary_project(w), K=4).tolist() == [[0, 0, 1, -1], [-1, 1, 0, -1]]
    tie = np.array([[2, -2, 6, 6]], np.int32)  # half the mean is 2
    assert spec.unpack_ternary(spec.ternary_project(tie), K=4).tolist() == [[0, 0, 1, 1]]


def test_lion_finds_a_minimum():
    """`lion_update.C3` to `C6`: weights come within some steps of where their gradient vanishes, whatever its size."""
    goal = np.array([5000, -3000, 0, 120000], np.int32)
    w, m = np.zeros(4, np.int32), np.zeros(4, np.int32)
    for _ in range(700):
        g = (w - goal).astype(np.int64) << 3
        w, m, clipped = spec.lion_update(w, m, g, lr=200, m_shift=0, decay=0, **LION)
    assert np.abs(w - goal).max() < 40 * 200 and clipped[0] == 0


def test_decay_alone_shrinks_weights_to_its_dead_zone():
    """`lion_update.C5`: without a vote a weight decays until its share rounds to nothing."""
    w, zero = np.array([LIMIT, -LIMIT, 100], np.int32), np.zeros(3, np.int32)
    share = (1 << 20) * 65535 >> 8
    for _ in range(400):
        w = spec.lion_update(w, zero, zero.astype(np.int64), lr=1 << 20, m_shift=0, decay=65535, **LION)[0]
    assert np.all(np.abs(w) <= (1 << 31) // share + 1)


def test_clipped_counts_what_the_clamp_changes():
    """`lion_update.C6`."""
    w, m = np.array([9, 10, -10, 0], np.int32), np.zeros(4, np.int32)
    g = np.array([-1, -1, 1, 1])
    parameters = LION | {"low": -10, "high": 10}
    w, _, clipped = spec.lion_update(w, m, g, lr=1, m_shift=0, decay=0, **parameters)
    assert w.tolist() == [10, 10, -10, -1] and clipped.tolist() == [2]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("start", [0, 14, 60])
def test_error_exponent_comes_to_rest(bits, start):
    """`gradient_exponent.C1` to `C3`: for an unchanging error, without saturation and with few bits unused."""
    error, exponent = 3, np.array([start], np.int32)
    for _ in range(200):
        largest = min(error << int(exponent[0]), (1 << (bits - 1)) - 1)
        before, exponent = exponent, spec.gradient_exponent(exponent, np.array([largest]), bits=bits)
    assert exponent[0] == before[0] and bits - 2 <= largest.bit_length() and largest < (1 << (bits - 1)) - 1


def test_momentum_and_gradient_fit_where_they_meet():
    """`momentum_exponent.C1` and `C2`: neither saturates, the larger keeps 21 bits, and the shifts are an update's."""
    random = np.random.default_rng(0)
    largest_g = random.integers(1, 1 << random.integers(1, 62, 500))
    largest_m = random.integers(0, 1 << random.integers(1, 27, 500))
    before, scale = (random.integers(0, 40, 500).astype(np.int32) for _ in range(2))
    after = spec.momentum_exponent(before, scale, largest_g, largest_m)
    for y, e, ge, g, m in zip(*(a.tolist() for a in (after, before, scale, largest_g, largest_m)), strict=True):
        bits = max(g.bit_length() + y - ge, m.bit_length() + y - e if m else 0)
        assert 21 <= bits <= 27 and y - ge <= 27
