"""``spec.ops.sampling`` on unbounded integers."""

from collections.abc import Callable
from itertools import accumulate

import numpy as np

from .loss import pow2_weight
from .observe import see

WORD = 2**32


def argmax(logits):
    token = np.empty(logits.shape[:-1], np.int32)
    for index in np.ndindex(token.shape):
        row = logits[index].tolist()
        token[index] = see("token", row.index(max(row)))
    return token


def philox(words: list[int], key0: int, key1: int, note: Callable[[str, int], int]) -> list[int]:
    """Return the words of Philox 4x32-10, each of [0, 2**32); ``note`` sees each product."""
    for turn in range(10):
        x0, x1, x2, x3 = words
        high0, low0 = divmod(note("product0", x0 * 0xD2511F53), WORD)
        high1, low1 = divmod(note("product1", x2 * 0xCD9E8D57), WORD)
        words = [
            high1 ^ x1 ^ ((key0 + turn * 0x9E3779B9) % WORD),
            low1,
            high0 ^ x3 ^ ((key1 + turn * 0xBB67AE85) % WORD),
            low0,
        ]
    return words


def philox4x32(counter, *, key0, key1):
    words = np.empty(counter.shape, np.int32)
    for index in np.ndindex(counter.shape[:-1]):
        patterns = philox([c % WORD for c in counter[index].tolist()], key0, key1, see)
        words[index] = [see("word", (w + WORD // 2) % WORD - WORD // 2) for w in patterns]
    return words


def sample(logits, stream, position, *, seed, f, num, shift, top_k, top_p):
    def weight_of(distance: int) -> int:
        scaled_sum = see("scaled_sum", see("distance", distance) * num + 2**shift // 2)
        return see("weight", pow2_weight(see("scaled", scaled_sum // 2**shift), f))

    def draw(row: list[int], stream: int, position: int) -> int:
        greatest = max(row)
        weight = [weight_of(greatest - x) for x in row]
        order = sorted(range(len(row)), key=lambda i: (-row[i], i))[:top_k]
        share = top_p * see("top_k_sum", sum(weight[i] for i in order))
        prefixes = enumerate(accumulate(weight[i] for i in order), 1)
        size = next(n for n, prefix in prefixes if prefix * 2**16 >= share)
        kept = set(order[:size])
        total = see("kept_sum", sum(weight[i] for i in kept))
        words = philox([position, 0, stream, 1], seed % WORD, seed // WORD, lambda name, product: product)
        word = see("word", words[0] // 2)
        u = see("u", see("product", word * total) // 2**31)
        running = accumulate(weight[i] * (i in kept) for i in range(len(row)))
        return see("token", next(i for i, c in enumerate(running) if c > u))

    rows = zip(logits.tolist(), stream.tolist(), position.tolist(), strict=True)
    return np.array([draw(*row) for row in rows], np.int32)


__all__ = ["argmax", "philox4x32", "sample"]
