"""Plans of ``spec.ops.sampling``."""

from collections.abc import Iterator

import numpy as np

from mamba_integer.spec.philox import MASK, MULTIPLIER_0, MULTIPLIER_1, ROUNDS, WEYL_0, WEYL_1

from .loss import FRACTIONS, LARGE, VOCABULARIES, extreme_logits
from .plan import BATCH_SIZES, Extreme, Plan

KEYS = (0, 1, (1 << 31) - 1, 1 << 31, 0xA4093822, MASK)
SEEDS = (0, 1, 1 << 32, (1 << 63) + 12345, (1 << 64) - 1)

# Under seed 0, the (stream, position) whose 31-bit word is least and greatest, found by trying 2**33 of them.
LEAST_WORD = (3, 842702041)
GREATEST_WORD = (0, 1890214411)


def counter_of(words: list[int], key0: int, key1: int) -> list[int]:
    """Return the counter whose Philox words these are: each round is a bijection, undone from the last to the first."""
    for turn in reversed(range(ROUNDS)):
        x1, low1, x3, low0 = words
        x0 = low0 * pow(MULTIPLIER_0, -1, 1 << 32) & MASK
        x2 = low1 * pow(MULTIPLIER_1, -1, 1 << 32) & MASK
        x1 ^= (x2 * MULTIPLIER_1 >> 32) ^ (key0 + turn * WEYL_0 & MASK)
        x3 ^= (x0 * MULTIPLIER_0 >> 32) ^ (key1 + turn * WEYL_1 & MASK)
        words = [x0, x1, x2, x3]
    return words


def argmax_extremes() -> Iterator[Extreme]:
    for v in (1, 2, 129):
        yield Extreme([(extreme_logits(v),)])


def philox_extremes() -> Iterator[Extreme]:
    ends = [1 << 31, (1 << 31) - 1, 0, MASK]
    for key0, key1 in ((0, 0), (MASK, 1 << 31)):
        counters = [[0, 0, 0, 0], [MASK] * 4, counter_of(ends, key0, key1)]
        yield Extreme([(np.array(counters, np.uint32).view(np.int32),)], {"key0": key0, "key1": key1})


def sample_extremes() -> Iterator[Extreme]:
    hot = {"num": 1, "shift": 15}
    cold = {"num": 32767, "shift": 0}
    plain = {"num": 1, "shift": 0}
    for v, f, temperature, top_k, top_p in (
        (5, 8, plain, 65536, 65536),
        (129, 0, cold, 65536, 65536),
        (129, 0, plain, 2, 32768),
        (5, 8, hot, 3, 65536),
        (33, 8, plain, 7, 1),
        (1, 8, hot, 1, 1),
    ):
        # Each row of logits meets the least and the greatest word.
        logits = np.repeat(extreme_logits(v), 2, axis=0)
        stream, position = np.array([LEAST_WORD, GREATEST_WORD] * 3, np.int32).T
        parameters = {"seed": 0, "f": f, **temperature, "top_k": top_k, "top_p": top_p}
        yield Extreme([(logits, stream, position)], parameters)


PLANS = {
    "argmax": Plan(sizes={"V": VOCABULARIES}, extremes=argmax_extremes, large=LARGE),
    "philox4x32": Plan(parameters={"key0": KEYS, "key1": KEYS}, extremes=philox_extremes, large=({"...": 5001},)),
    "sample": Plan(
        sizes={"R": BATCH_SIZES, "V": VOCABULARIES},
        parameters={
            "seed": SEEDS,
            "f": FRACTIONS,
            "num": (1, 2, 3, 181, 256, 32767),
            "shift": (0, 1, 8, 15),
            "top_k": (65536, 1, 2, 3, 40),
            "top_p": (65536, 1, 32768, 60000, 65535),
        },
        extremes=sample_extremes,
        large=({"R": 2, "V": 4097}, {"R": 66, "V": 65}),
    ),
}
