"""The parameters of a fresh model: integers drawn from the counter RNG, the same on every machine."""

from fractions import Fraction
from functools import cache

import numpy as np

from ..contract import find_op
from ..philox import random_words
from ..tables import hippo_decays, hippo_exponents
from .config import ModelConfig
from .formats import FORMATS, Format, Formats, parameter_formats

# High word of the streams, so that the initialiser's words are no other consumer's under the same seed.
INITIAL_DOMAIN = 2

DIGITS_PER_WORD = 20
# The decays of a fresh model: exp(-(n + 1) dt) with dt = (1 + j/16) / 2**e, j in [0, 15]. A head has n = 0 alone, so
# its steps are longer.
STEP_SIXTEENTHS = 16
CHANNEL_EXPONENTS, HEAD_EXPONENTS = range(4, 10), range(2, 8)


def initial_parameters(config: ModelConfig, seed: int, formats: Formats = FORMATS) -> dict[str, np.ndarray]:
    """Return the parameters of a fresh model, by name: a function of the sizes and the seed (64 bits) alone."""
    return {
        name: _initial(name.rsplit(".", 1)[-1], format, (INITIAL_DOMAIN << 32) | index, seed, formats)
        for index, (name, format) in enumerate(parameter_formats(config, formats).items())
    }


def _initial(role: str, format: Format, stream: int, seed: int, formats: Formats) -> np.ndarray:
    if format.digits:
        count = format.shape[0] * format.digits
        digits = ternary_digits(seed, stream, count).reshape(format.shape[0], format.digits)
        return find_op("pack_ternary").golden(digits)
    if role == "norm":
        return np.full(format.shape, 1 << formats.gain, np.int16)
    if role == "skip":
        return np.full(format.shape, 1 << int(format.q.removeprefix("Q.")), np.int16)
    if role == "conv_bias":
        return np.zeros(format.shape, np.int32)
    if role == "decay":
        return decays(seed, stream, format, formats)
    # Uniform on [-a, a] has the deviation a / sqrt(3): 1 for a row of the table, 1/2 for each of 4 taps.
    one = 1 << (formats.residual if role == "embedding" else formats.kernel - 1)
    limit = 7 * one // 4
    words = random_words(seed, stream, int(np.prod(format.shape)))
    return (below(words, 2 * limit + 1) - limit).reshape(format.shape).astype(format.dtype)


def below(words: np.ndarray, count: int) -> np.ndarray:
    """Return integers in [0, count - 1], int64, from 32-bit words."""
    return ((words * np.uint64(count)) >> np.uint64(32)).astype(np.int64)


def ternary_digits(seed: int, stream: int, count: int) -> np.ndarray:
    """Return ``count`` int8 digits in {-1, 0, 1}: the base-3 digits, lowest first, of one integer per word."""
    rest = below(random_words(seed, stream, -(-count // DIGITS_PER_WORD)), 3**DIGITS_PER_WORD)
    digits = np.empty((len(rest), DIGITS_PER_WORD), np.int8)
    for i in range(DIGITS_PER_WORD):
        rest, digits[:, i] = rest // 3, rest % 3 - 1
    return digits.reshape(-1)[:count]


def decays(seed: int, stream: int, format: Format, formats: Formats) -> np.ndarray:
    """Return HiPPO decays of channels, or decay exponents of heads: a row of each, with its own step."""
    rows, states = format.shape
    heads = format.q == f"Q.{formats.exponent}"
    choices = decay_choices(states, heads, formats.exponent if heads else formats.decay)
    return choices[below(random_words(seed, stream, rows), len(choices))]


@cache
def decay_choices(states: int, heads: bool, k: int) -> np.ndarray:
    """Return the rows that a channel or a head may have, one for each step: all layers draw from the same."""
    table, exponents = (hippo_exponents, HEAD_EXPONENTS) if heads else (hippo_decays, CHANNEL_EXPONENTS)
    steps = (Fraction(STEP_SIXTEENTHS + j, STEP_SIXTEENTHS << e) for e in exponents for j in range(STEP_SIXTEENTHS))
    return np.stack([table(states, step, k) for step in steps])
