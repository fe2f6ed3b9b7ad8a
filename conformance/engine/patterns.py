"""The patterns that test data follow: uniform draws rarely meet a tie, a saturation edge or a full accumulator."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from mamba_integer.spec import philox


def uniform(words, low, high):
    return low + (words % np.uint64(high - low + 1)).astype(np.int64)


def highest(words, low, high):
    return np.full(words.shape, high, np.int64)


def lowest(words, low, high):
    return np.full(words.shape, low, np.int64)


def extremes(words, low, high):
    """A mixture of the ends of the range, their neighbours, and the integers around zero."""
    return _choose(words, [low, low + 1, high - 1, high, -1, 0, 1], low, high)


def ties(words, low, high):
    """Odd multiples of powers of two, of both signs: exact ties of every rounding shift."""
    t = _below(words, _bits(low, high) - 8)
    odd = ((words >> np.uint64(6)) & np.uint64(0xFF)).astype(np.int64) * 2 + 1
    sign = 1 - 2 * ((words >> np.uint64(14)) & np.uint64(1)).astype(np.int64)
    return np.clip(sign * (odd << t), low, high)


def powers(words, low, high):
    """Small odd multiples of every power of two, of both signs: their products are exact ties of long shifts too."""
    t = _below(words, _bits(low, high) - 2)
    odd = ((words >> np.uint64(6)) & np.uint64(3)).astype(np.int64) * 2 + 1
    sign = 1 - 2 * ((words >> np.uint64(8)) & np.uint64(1)).astype(np.int64)
    return np.clip(sign * (odd << t), low, high)


def walking(words, low, high):
    """Powers of two of both signs and their neighbours: every edge of a bit length or a saturation."""
    t = _below(words, _bits(low, high))
    sign = 1 - 2 * ((words >> np.uint64(6)) & np.uint64(1)).astype(np.int64)
    near = ((words >> np.uint64(7)) % np.uint64(3)).astype(np.int64) - 1
    return np.clip(sign * (np.int64(1) << t) + near, low, high)


def runs(words, low, high):
    """Runs of eight equal values, about half of them zero."""
    flat = np.repeat(words.reshape(-1)[::8], 8)[: words.size].reshape(words.shape)
    value = uniform(flat >> np.uint64(1), low, high)
    return np.where((flat & np.uint64(1)) == 0, np.clip(0, low, high), value)


def small(words, low, high):
    """Integers of [-4, 4]: rows of tiny variance, exponents at their floor, equal maxima."""
    return np.clip((words % np.uint64(9)).astype(np.int64) - 4, low, high)


def scaled(words, low, high):
    """Rows of every magnitude: exponents and scales that are neither the least nor the greatest."""
    first = words[..., :1] if words.ndim else words
    return np.clip(uniform(words, low, high) >> _below(first >> np.uint64(20), _bits(low, high)), low, high)


def below(words, low, high):
    """Integers of the lowest eighth of the range: none is greater than an empty place, which is often zero."""
    return uniform(words, low, low + (high - low) // 8)


def zero(words, low, high):
    """Zeros, or what is nearest to them: a shortcut for an array without any content takes them for one."""
    return np.full(words.shape, np.clip(0, low, high))


def alike(words, low, high):
    """Integers that depend on the shape alone, so that arrays of one shape and range are equal."""
    return uniform(random_words(0, 0, words.size).reshape(words.shape), low, high)


def common_ends(further=0):
    """Return the pattern of ends, and integers around zero, that depend on the shape and the range alone."""

    def pattern(words, low, high):
        return extremes(random_words(0, 0, words.size + further)[further:].reshape(words.shape), low, high)

    return pattern


def common(least, most, further=0):
    """Return the pattern of integers that depend on the shape alone, where a range holds them: arrays are then equal.

    With ``further`` they are those that an array would hold that lies so many elements further on.
    """

    def pattern(words, low, high):
        numbers = uniform(random_words(0, 0, words.size + further)[further:], least, most)
        return np.clip(numbers.reshape(words.shape), low, high)

    return pattern


def above(words, low, high):
    """Integers of the highest eighth of the range."""
    return uniform(words, high - (high - low) // 8, high)


def narrow(words, low, high):
    """The greatest integer of the next narrower type: in that type a sum of two doesn't fit."""
    return np.full(words.shape, min(high, narrower(high)), np.int64)


def narrow_low(words, low, high):
    """The least integer of the next narrower type."""
    return np.full(words.shape, max(low, -narrower(high)), np.int64)


def narrower(high):
    """Return the greatest integer of the widest type that doesn't hold a number; with no such type, the number."""
    return max(((1 << (bits - 1)) - 1 for bits in (8, 16, 32) if high >> (bits - 1)), default=high)


def last_along(axis):
    """Return the pattern of arrays that are zero but for the last place of an axis: a far value decides alone."""

    def pattern(words, low, high):
        values = uniform(words, low, high)
        if words.ndim < -axis:
            return values
        kept = np.zeros(words.shape[axis], bool)
        kept[-1:] = True
        return np.where(kept.reshape((-1,) + (1,) * (-1 - axis)), values, np.clip(0, low, high))

    return pattern


def parted_along(axis):
    """Return the pattern of arrays with the high end at the first five eighths of an axis, and the low end after."""

    def pattern(words, low, high):
        if words.ndim < -axis:
            return highest(words, low, high)
        size = words.shape[axis]
        first = np.arange(size) < size - size * 3 // 8
        return np.broadcast_to(np.where(first, high, low).reshape((-1,) + (1,) * (-1 - axis)), words.shape)

    return pattern


def block_along(axis):
    """Return the pattern of arrays with whole tiles at the high end, beside powers of two of both signs."""

    def pattern(words, low, high):
        values = walking(words, low, high)
        if words.ndim >= -axis:
            np.moveaxis(values, axis, 0)[:BLOCK] = high
        return values

    return pattern


BLOCK = 64  # places of an axis, of which a part may be summed in a narrower type than all
KEPT = 1 << 11  # arrays of random words, and the words of an array that is kept
CALL = 1 << 13  # random words that NumPy draws in the time that each call takes besides
_left = 1 << 24  # words that NumPy draws before the compiled twin is loaded, which takes about twice as long

PATTERNS: dict[str, Callable] = {
    pattern.__name__: pattern for pattern in (uniform, extremes, ties, walking, runs, small, highest, lowest, scaled)
}
DRAWN = tuple(PATTERNS)
LAST = {axis: f"last along {axis}" for axis in (-1, -2, -3, -4)}
PARTED = {axis: f"parted along {axis}" for axis in LAST}
BLOCKS = {axis: f"block along {axis}" for axis in LAST}
BELOW, ABOVE, POWERS, ZERO, ALIKE = "below", "above", "powers", "zero", "alike"
ENDS_ALIKE = "ends alike"
COMMON = {ends: "common from {} to {}".format(*ends) for ends in ((-(1 << 14), 1 << 14), (-127, 127), (-7, 7))}
COMMON |= {ends: "common from {} to {}".format(*ends) for ends in ((-(1 << 23), 1 << 23), (0, 127), (0, 7))}
FURTHER = {name: f"{name}, one further" for name in (*COMMON.values(), ENDS_ALIKE)}
SEEDLESS = (ALIKE, *FURTHER, *FURTHER.values())
NARROW = "highest of a narrower type", "lowest of a narrower type"
PATTERNS |= {name: last_along(axis) for axis, name in LAST.items()}
PATTERNS |= {BELOW: below, ABOVE: above, POWERS: powers, ZERO: zero, ALIKE: alike}
PATTERNS |= {ENDS_ALIKE: common_ends(), FURTHER[ENDS_ALIKE]: common_ends(1)}
PATTERNS |= {name: common(*ends) for ends, name in COMMON.items()}
PATTERNS |= {FURTHER[name]: common(*ends, 1) for ends, name in COMMON.items()}
PATTERNS |= dict(zip(NARROW, (narrow, narrow_low), strict=True))
PATTERNS |= {name: parted_along(axis) for axis, name in PARTED.items()}
PATTERNS |= {name: block_along(axis) for axis, name in BLOCKS.items()}


def draw(pattern: str, seed: int, stream: int, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """Return an int64 array of ``shape`` with values in [low, high], a pure function of the arguments."""
    count = int(np.prod(shape, dtype=np.int64))
    words = (kept_words if count <= KEPT else random_words)(seed, stream, count)
    return PATTERNS[pattern](words.reshape(shape), low, high)


def random_words(seed: int, stream: int, count: int) -> np.ndarray:
    """Return the words of `philox.random_words`, from its compiled twin where many are drawn: few don't repay it."""
    global _left
    _left -= CALL + count
    if _left > 0:
        return philox.random_words(seed, stream, count)
    from mamba_integer.spec.compiled.philox import random_words as compiled

    return compiled(seed, stream, count)


@lru_cache(KEPT)
def kept_words(seed: int, stream: int, count: int) -> np.ndarray:
    """Return random words that nobody may write to: a search for a case draws them again and again."""
    words = random_words(seed, stream, count)
    words.setflags(write=False)
    return words


def _bits(low, high):
    return max(abs(int(low)), abs(int(high))).bit_length()


def _below(words, count):
    """Return integers of [0, count - 1], from the last six bits of the words."""
    return ((words & np.uint64(63)) % np.uint64(max(1, count))).astype(np.int64)


def _choose(words, values, low, high):
    allowed = np.array(sorted({v for v in values if low <= v <= high}), np.int64)
    return allowed[(words % np.uint64(len(allowed))).astype(np.int64)]
