"""``spec.ops.loss_backward`` on unbounded integers."""

import numpy as np

from .integers import saturate
from .loss import weights
from .observe import see
from .sampling import WORD, philox

ROUNDING_DOMAIN = 3


def cross_entropy_pow2_backward(logits, target, *, f, seed, step, stream, first):
    v = logits.shape[-1]
    dlogits = np.empty(logits.shape, np.int16)
    for row, index in enumerate(np.ndindex(target.shape)):
        _, weight = weights(logits[index].tolist(), f)
        total = see("sum", sum(weight))
        for n, e in enumerate(weight):
            counter = see("counter", (first + row) * -(-v // 4) + n // 4)
            words = philox([counter, step, stream, ROUNDING_DOMAIN], seed % WORD, seed // WORD, lambda name, x: x)
            dither = see("dither", words[n % 4] // 2 * total // 2**31)
            p = see("p", see("numerator", e * 2**15 + dither) // total)
            difference = see("difference", p - 2**15 if n == int(target[index]) else p)
            dlogits[(*index, n)] = see("dlogits", saturate(difference, 16))
    return dlogits


__all__ = ["cross_entropy_pow2_backward"]
