"""Plans of ``spec.ops.sampling``."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from mamba_integer.spec.integers import shift_round
from mamba_integer.spec.ops.loss import ONE, pow2_weights
from mamba_integer.spec.ops.sampling import SAMPLING_DOMAIN
from mamba_integer.spec.philox import MASK, MULTIPLIER_0, MULTIPLIER_1, ROUNDS, WEYL_0, WEYL_1, philox_words

from .loss import ALL_EQUAL, END, EXPONENTS, FRACTIONS, LARGE, VOCABULARIES, extreme_logits
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


def argmax_edges() -> Iterator[Extreme]:
    """Equal maxima far apart, all below zero, by one greater than others, and at the last index that there can be."""
    logits = np.full((9, 4099), -END, np.int16)
    for row, places in enumerate(([4095, 4096], [31, 32], [255, 4098], [1023, 1024, 4096], [100, 1125], [4098])):
        logits[row, places] = -7
    logits[6, [40, 4000]] = END - 1, END
    logits[7, [4000, 40]] = END - 1, END
    long = np.repeat(ALL_EQUAL, 3, axis=0)
    long[[0, 1, 1], [65535, 32768, 65535]] = 1
    yield Extreme([(logits,), (long,)], purpose="maxima that are equal, far apart, negative, last, or greater by one")


# No half of the seed, and no bits of a stream or position, may be lost or trade places.
SEED, STREAM, FIRST_POSITION, POSITIONS = 2**63 + 12345, 2**31 - 70001, 2**30 + 65000, 2**17


@cache
def sorted_words() -> tuple[np.ndarray, np.ndarray]:
    """Return the 31-bit words of many positions in their order, and the positions."""
    counter = np.zeros((POSITIONS, 4), np.uint64)
    counter[:, 0] = FIRST_POSITION + np.arange(POSITIONS)
    counter[:, 2:] = STREAM, SAMPLING_DOMAIN
    words = philox_words(counter, SEED & MASK, SEED >> 32)[:, 0].astype(np.int64) >> 1
    order = np.argsort(words)
    return words[order], order + FIRST_POSITION


def turning(distance: np.ndarray, f: int, num: int, shift: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows of a logit and a greater one, drawn where u is the last of the first's share, or the next one."""
    weight = pow2_weights(shift_round(distance * num, shift), f)
    u = np.concatenate([weight - 1, weight])
    total, rows = np.tile(weight + ONE, 2), np.tile(END - distance, 2)
    words, positions = sorted_words()
    places = np.searchsorted(words, -(-u * 2**31 // total))
    hit = (u >= 0) & (places < POSITIONS)
    hit[hit] = words[places[hit]] * total[hit] >> 31 == u[hit]
    logits = np.stack([rows, np.full(rows.size, END)], axis=1)[hit].astype(np.int16)
    return logits, np.full(len(logits), STREAM, np.int32), positions[places[hit]].astype(np.int32)


def sample_edges() -> Iterator[Extreme]:
    """Draws where a weight or a scaled distance that is off by one is another token; shares that end within one."""
    everything = {"top_k": 65536, "top_p": 65536}
    parameters = {"seed": SEED, "f": 5, "num": 1, "shift": 0}
    exponents = 32 * EXPONENTS[EXPONENTS < 17]
    distance = np.concatenate([np.arange(1, 32, 2), exponents - 1, exponents])
    yield Extreme([turning(distance, 5, 1, 0)], parameters | everything, "draws that one unit of a weight turns")
    # Ties of 3 d / 2**4, and beside them.
    distance = np.array([8, 24, 40, 56, 5, 11, 13, 21, 27, 29, 43, 45])
    scaled = {"num": 3, "shift": 4} | everything
    yield Extreme([turning(distance, 5, 3, 4)], parameters | scaled, "draws that one unit of a scaled distance turns")
    # Four equal tokens and one of weight 1: a quarter is less than the first token's share of what the four have.
    logits = np.repeat([[0, 0, -16 * 32, 0, 0]], 16, axis=0).astype(np.int16)
    rows = np.full(16, STREAM, np.int32), FIRST_POSITION + np.arange(16, dtype=np.int32)
    shares = {"top_k": 65536, "top_p": 2**14}
    yield Extreme([(logits, *rows)], parameters | shares, "a share that ends within one token of equal ones")
    # The greatest word draws the last token even of weight 1, also where the weights sum to 2**31 or 2**32.
    ends = tuple(np.array([LEAST_WORD, GREATEST_WORD], np.int32).T)
    light = np.zeros((2, 1025), np.int16)
    light[:, -1] = -16 * 32
    equal = np.repeat(ALL_EQUAL, 2, axis=0)
    calls = [(logits, *ends) for logits in (light, equal[:, : equal.shape[1] // 2], equal)]
    many = np.zeros((2, 4099), np.int16), *ends
    for top_k in (255, 256, 257, 1024, 4096):
        kept = {"seed": 0, "top_k": top_k, "top_p": 65536}
        yield Extreme([many], parameters | kept, "a number of tokens kept that a byte or a tile doesn't hold")
    for top_p in (1, 2, 65535):
        kept = {"seed": 0, "top_k": 65536, "top_p": top_p}
        yield Extreme([(equal, *ends)], parameters | kept, "a share of one token more or less")
    yield Extreme(calls, parameters | {"seed": 0} | everything, "the least and the greatest word, and sums up to 2**32")
    # The weights' sum, 102 tokens of 2**16 and some lighter ones, times 641 is 2**32 + 1.
    lighter = [16 - bit for bit in range(16) if (2**32 + 1) // 641 >> bit & 1]
    logits = np.repeat(np.array([[0] * 102 + [-distance for distance in lighter]], np.int16), 2, axis=0)
    lacking = {"seed": 0, "f": 0, "top_k": 65536, "top_p": 641}
    yield Extreme([(logits, *ends)], parameters | lacking, "a share that the first token lacks by one of 2**32")


PLANS = {
    "argmax": Plan(sizes={"V": VOCABULARIES}, extremes=argmax_extremes, edges=argmax_edges, large=LARGE),
    "philox4x32": Plan(parameters={"key0": KEYS, "key1": KEYS}, extremes=philox_extremes, large=({"...": 5001},)),
    "sample": Plan(
        sizes={"B": BATCH_SIZES, "V": VOCABULARIES},
        parameters={
            "seed": SEEDS,
            "f": FRACTIONS,
            "num": (1, 2, 3, 181, 256, 32767),
            "shift": (0, 1, 8, 15),
            "top_k": (65536, 1, 2, 3, 40),
            "top_p": (65536, 1, 32768, 60000, 65535),
        },
        extremes=sample_extremes,
        edges=sample_edges,
        large=({"B": 2, "V": 4097}, {"B": 2, "V": 4000}, {"B": 1, "V": 12000}, {"B": 66, "V": 65}),
    ),
}
