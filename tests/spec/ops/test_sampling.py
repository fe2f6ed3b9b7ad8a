"""Sampling: known Philox words, exact shares of the words, and the edges of top_k and top_p."""

from random import Random

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.conformance.plans.sampling import counter_of
from mamba_integer.spec.ops.sampling import kept_weights, token_at
from mamba_integer.spec.philox import philox_words

BACKENDS = ("golden", "numba", "torch", "triton", "unbounded")
every_backend = pytest.mark.parametrize("backend", BACKENDS)

PLAIN = {"seed": 1, "f": 8, "num": 1, "shift": 0, "top_k": 65536, "top_p": 65536}

# The known answers that the authors of Philox publish: counter, key, words.
KNOWN_ANSWERS = (
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
)


def sample(backend, logits, stream, position, **changes):
    arrays = (np.asarray(logits, np.int16), np.asarray(stream, np.int32), np.asarray(position, np.int32))
    return load(backend, "cpu").run("sample", arrays, PLAIN | changes)[0].tolist()


@every_backend
@pytest.mark.parametrize("counter, key, words", KNOWN_ANSWERS)
def test_known_answers(backend, counter, key, words):
    patterns = np.array([int(c, 16) for c in counter.split()], np.uint32).view(np.int32)
    key0, key1 = (int(k, 16) for k in key.split())
    result = load(backend, "cpu").run("philox4x32", (patterns,), {"key0": key0, "key1": key1})[0]
    assert [f"{w:08x}" for w in result.view(np.uint32)] == words.split()


def test_the_generator_is_a_bijection_of_counters():
    source = Random(0)
    for _ in range(20):
        words, key = [source.getrandbits(32) for _ in range(4)], [source.getrandbits(32) for _ in range(2)]
        assert philox_words(np.array(counter_of(words, *key), np.uint64), *key).tolist() == words


@pytest.mark.parametrize("top_k, top_p", ((65536, 65536), (5, 65536), (65536, 40000)))
def test_each_token_has_its_exact_share_of_the_words(top_k, top_p):
    """The words of a token are an interval; its ends are where the note of the op puts them."""
    logits = np.random.default_rng(3).integers(-600, 600, 12).astype(np.int16)
    kept = kept_weights(logits, 8, 1, 0, top_k, top_p)
    total, first = int(kept.sum()), 0
    for token, running in enumerate(np.cumsum(kept).tolist()):
        end = -(-running * 2**31 // total)
        assert abs((end - first) * total - int(kept[token]) * 2**31) < total
        assert (end == first) == (kept[token] == 0)
        if end > first:
            grid = {first, end - 1, *range(first, end, 1 << 22)}
            assert {int(token_at(kept, word)) for word in grid} == {token}
        first = end
    assert first == 2**31


def test_drawn_frequencies_follow_the_weights():
    n = 1 << 16
    tokens = sample("numba", np.tile([0, 256, 512], (n, 1)), np.zeros(n), np.arange(n))
    for token, weight in enumerate((1, 2, 4)):
        # Within five standard deviations of n * weight / 7, in integers.
        excess = 7 * tokens.count(token) - n * weight
        assert excess**2 <= 25 * n * weight * (7 - weight)


@every_backend
@pytest.mark.parametrize("changes", ({"top_k": 1}, {"top_p": 1}, {"num": 32767}))
def test_the_narrowest_choice_is_argmax(backend, changes):
    logits = np.random.default_rng(4).permuted(np.tile(np.arange(33) * 2, (20, 1)), axis=1).astype(np.int16)
    if "num" not in changes:
        logits //= 4  # so that the maximum is shared
    want = spec.argmax(logits).tolist()
    assert sample(backend, logits, np.zeros(20), np.arange(20), **changes) == want


def test_ties_stay_by_index():
    logits = np.array([5, 9, 9, 4, 9], np.int16)
    assert np.flatnonzero(kept_weights(logits, 0, 1, 0, 2, 65536)).tolist() == [1, 2]
    assert np.flatnonzero(kept_weights(logits, 0, 1, 0, 4, 65536)).tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize(
    "top_p, count", ((1, 1), (16384, 1), (16385, 2), (32768, 2), (32769, 3), (65535, 4), (65536, 4))
)
def test_the_nucleus_is_the_shortest_prefix_of_its_share(top_p, count):
    logits = np.array([3, 8, 8, 8, 8], np.int16)
    nucleus = kept_weights(logits, 0, 1, 0, 4, top_p)
    assert np.flatnonzero(nucleus).tolist() == [1, 2, 3, 4][:count]


def test_nothing_is_dropped_by_the_widest_choice():
    logits = np.random.default_rng(5).integers(-400, 400, 50).astype(np.int16)
    weights = kept_weights(logits, 8, 1, 0, 50, 65536)
    assert (weights > 0).all()
    assert np.array_equal(weights, kept_weights(logits, 8, 1, 0, 65536, 65536))


def test_temperature_scales_the_distance_with_one_rounding():
    logits = np.array([0, -3, -256], np.int16)
    halved = kept_weights(logits, 8, 1, 1, 3, 65536)
    assert np.array_equal(halved, kept_weights(np.array([0, -2, -128], np.int16), 8, 1, 0, 3, 65536))


@every_backend
def test_a_row_draws_the_same_token_alone(backend):
    logits = np.random.default_rng(6).integers(-300, 300, (5, 40)).astype(np.int16)
    stream, position = [0, 3, 3, 2**31 - 1, 9], [2**31 - 1, 0, 1, 7, 7]
    together = sample(backend, logits, stream, position, seed=2**64 - 1)
    alone = [
        sample(backend, logits[i : i + 1], stream[i : i + 1], position[i : i + 1], seed=2**64 - 1)[0] for i in range(5)
    ]
    assert together == alone
    assert len(set(together)) > 1


@every_backend
@pytest.mark.parametrize("changes", ({}, {"top_k": 40}, {"top_p": 60000}, {"top_k": 30000, "top_p": 30000, "shift": 4}))
def test_whole_vocabulary(backend, changes):
    """At V = 65536 keys fill 32 bits, equal weights sum to 2**32 and the draw's product nears 2**63."""
    logits = np.stack([np.full(65536, -32767), np.random.default_rng(7).integers(-32767, 32767, 65536)])
    want = sample("golden", logits, [0, 0], [1890214411, 5], **{"seed": 0} | changes)
    assert sample(backend, logits, [0, 0], [1890214411, 5], **{"seed": 0} | changes) == want
    if not changes:
        assert want[0] == 65535


@every_backend
@pytest.mark.parametrize("v", (4097, 65536))
def test_argmax_of_many_tiles(backend, v):
    logits = np.full((3, v), -32767, np.int16)
    logits[1, -1] = -32766
    logits[2, [v // 2, v - 1]] = 5
    assert load(backend, "cpu").run("argmax", (logits,), {})[0].tolist() == [0, v - 1, v // 2]
