"""The counter generator gives the published words, and each word depends on its key and counter alone."""

import numpy as np
import pytest

from mamba_integer.spec.compiled import philox as compiled
from mamba_integer.spec.philox import MASK, philox_words, random_words

# Random123, kat_vectors: philox4x32 with 10 rounds; counter, key, words.
KNOWN_ANSWERS = {
    "zeros": ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    "ones": ([MASK] * 4, [MASK] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    "pi": (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
}
SEED = 0xA4093822_299F31D0


@pytest.mark.parametrize("name", KNOWN_ANSWERS)
def test_known_answers(name):
    counter, key, words = KNOWN_ANSWERS[name]
    assert philox_words(np.array(counter, np.uint64), *key).tolist() == words


@pytest.fixture
def counters():
    return random_words(1, 0, 4 * 6 * 5).reshape(6, 5, 4)


def test_a_word_depends_on_its_counter_alone(counters):
    """In a batch, alone, reversed: the same words, and the counters are left as they were."""
    before = counters.copy()
    words = philox_words(counters, 1, 2)
    assert words.shape == counters.shape and words.dtype == np.uint64 and words.max() <= MASK
    for index in np.ndindex(6, 5):
        assert np.array_equal(philox_words(counters[index], 1, 2), words[index])
    assert np.array_equal(philox_words(counters[::-1, ::-1], 1, 2), words[::-1, ::-1])
    assert np.array_equal(counters, before)


def test_every_bit_of_counter_and_key_matters(counters):
    """One bit flipped in any of them changes about half of the 128 bits of the result."""
    counter, key = counters[0, 0], [3, 4]
    words = philox_words(counter, *key)
    for bit in range(192):
        word, flip = bit // 32, 1 << (bit % 32)
        if word < 4:
            other = counter.copy()
            other[word] ^= np.uint64(flip)
            changed = philox_words(other, *key)
        else:
            other_key = key.copy()
            other_key[word - 4] ^= flip
            changed = philox_words(counter, *other_key)
        assert 32 <= np.bitwise_count(changed ^ words).sum() <= 96, bit


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 129])
def test_fewer_words_are_the_first_of_more(count):
    assert np.array_equal(random_words(SEED, 7, count), random_words(SEED, 7, 200)[:count])


def test_words_of_a_stream_are_where_the_counter_says():
    stream = (9 << 32) + 5
    words = random_words(SEED, stream, 12)
    for i, word in enumerate(words.tolist()):
        counter = np.array([i // 4, 0, 5, 9], np.uint64)
        assert word == philox_words(counter, SEED & MASK, SEED >> 32)[i % 4]


def test_streams_and_seeds_share_no_words():
    """Among 8192 words of 32 bits chance gives about 0.008 equal pairs."""
    drawn = [random_words(seed, stream, 1024) for seed in (0, 1, 1 << 32, SEED) for stream in (0, 1 << 32)]
    assert len(np.unique(np.concatenate(drawn))) == 8192


@pytest.mark.parametrize("count", [0, 1, 4, 7, 1001])
@pytest.mark.parametrize("stream", [0, MASK, 5 << 33 | 3])
@pytest.mark.parametrize("seed", [0, MASK, SEED])
def test_the_compiled_twin_draws_the_same_words(seed, stream, count):
    words = compiled.random_words(seed, stream, count)
    assert words.dtype == np.uint64 and np.array_equal(words, random_words(seed, stream, count))
