"""The instructions that take two int16 at once compute what the plain arithmetic beside them does."""

import numpy as np
import pytest

from mamba_integer.backends.triton import halves

from .gluon_emulator import int32, run_ptx

LARGEST = (1 << 15) - 1


def run(code, *words, results=1):
    """Return the results of instructions, which are their first registers, on words."""
    registers = {f"${results + i}": int32(word) for i, word in enumerate(words)}
    run_ptx(code.value, registers, words[0].shape)
    return [registers[f"${i}"] for i in range(results)]


@pytest.mark.parametrize("e", range(9))
def test_every_int16_is_quantised_as_the_plain_arithmetic_does(e):
    y = np.arange(-LARGEST, LARGEST + 1)
    four = np.stack([y, y[::-1], np.roll(y, 12345), np.roll(y, 1)], axis=1).astype(np.int16)
    words = np.ascontiguousarray(four).view(np.int32)
    limit = 127 << e
    most, least, half = limit * 0x10001, (-limit & 0xFFFF) * 0x10001, ((1 << e) >> 1) * 0x10001
    want = np.clip((four.astype(np.int64) + ((1 << e) >> 1)) >> e, -127, 127)
    for code, copies in ((halves.QUANTISED, 4), (halves.QUANTISED_WORDS, 1)):
        repeated = [np.full(len(y), value) for value in (most, least, half, e) for _ in range(copies)]
        (got,) = run(code, words[:, 0], words[:, 1], *repeated)
        assert np.array_equal(np.ascontiguousarray(got).view(np.int8).reshape(-1, 4), want)


def test_sums_are_saturated_in_pairs():
    x = np.array([0, 1, -1, LARGEST, -LARGEST, LARGEST + 1, -LARGEST - 1, -LARGEST - 2, 1 << 30, -(1 << 31)])
    (got,) = run(halves.SATURATED, x, x[::-1])
    pairs = np.stack([x, x[::-1]], axis=1)
    assert np.array_equal(np.ascontiguousarray(got).view(np.int16).reshape(-1, 2), np.clip(pairs, -LARGEST, LARGEST))


def test_the_ends_of_two_words_are_found_by_halves():
    random = np.random.default_rng(0)
    a, b, c, d = (random.integers(-LARGEST, LARGEST + 1, (100, 2)).astype(np.int16) for _ in range(4))
    most, least = run(halves.ENDS, *(pair.view(np.int32)[:, 0] for pair in (a, b, c, d)), results=2)
    assert np.array_equal(most.view(np.int16).reshape(-1, 2), np.maximum(a, c))
    assert np.array_equal(least.view(np.int16).reshape(-1, 2), np.minimum(b, d))
