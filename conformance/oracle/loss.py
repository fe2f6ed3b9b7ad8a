"""``spec.ops.loss`` on unbounded integers."""

import numpy as np

from .integers import saturate
from .observe import see


def pow2_weight(d: int, f: int) -> int:
    power, fraction = divmod(d, 2**f)
    return (65536 - 44025 * fraction // 2**f + 11257 * fraction**2 // 4**f) >> power


def log2_q16(total: int) -> int:
    """Return the Q.16 logarithm: squaring in Q.30 doubles it, and each doubling past 2 gives a bit."""
    exponent = total.bit_length() - 1
    mantissa = total * 2**30 // 2**exponent
    fraction = 0
    for place in range(1, 17):
        mantissa = mantissa**2 // 2**30
        if mantissa >= 2**31:
            mantissa //= 2
            fraction += 2 ** (16 - place)
    return 2**16 * exponent + fraction


def weights(row: list[int], f: int) -> tuple[list[int], list[int]]:
    """Return the distances of a row to its maximum and their weights."""
    greatest = max(row)
    distances = [see("distance", greatest - x) for x in row]
    return distances, [see("weight", pow2_weight(d, f)) for d in distances]


def softmax_pow2(logits, *, f, q):
    p = np.empty(logits.shape, np.int32)
    for index in np.ndindex(logits.shape[:-1]):
        _, weight = weights(logits[index].tolist(), f)
        total = see("sum", sum(weight))
        p[index] = [see("p", see("numerator", e * 2**q + total // 2) // total) for e in weight]
    return p


def cross_entropy_pow2(logits, target, *, f):
    loss = np.empty(target.shape, np.int32)
    for index in np.ndindex(target.shape):
        distance, weight = weights(logits[index].tolist(), f)
        log = see("log", log2_q16(see("sum", sum(weight))))
        bits = see("distance_bits", distance[int(target[index])] * 2 ** (16 - f)) + log - 16 * 2**16
        loss[index] = see("loss", saturate(see("bits", bits), 32))
    return loss


__all__ = ["cross_entropy_pow2", "softmax_pow2"]
