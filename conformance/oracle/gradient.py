"""``spec.ops.gradient`` on unbounded integers."""

import numpy as np

from .integers import elementwise, saturate, shift_even
from .observe import see
from .packing import rows
from .sampling import WORD, philox

ROUNDING_DOMAIN = 3


def saturating_add(a, b):
    return elementwise(lambda a, b: see("y", saturate(see("sum", a + b), 16)), "int16", a, b)


def gradient_add(a, b):
    return elementwise(lambda a, b: see("y", a + b), "int64", a, b)


def largest_magnitude(x):
    return np.array([see("y", max(map(abs, x.reshape(-1).tolist()), default=0))], np.int64)


def round_to_int16(x, *, shift):
    return elementwise(lambda x: see("y", saturate(see("rounded", shift_even(x, shift)), 16)), "int16", x)


def saturate_backward(dy, y, *, shift):
    limit = {"int8": 127, "int16": 32767}[y.dtype.name]

    def inward(dy, y):
        e = see("dx", saturate(see("rounded", shift_even(dy, shift)), 16))
        return 0 if abs(y) == limit and e * y < 0 else e

    return elementwise(inward, "int16", dy, y)


def stochastic_round_rows(x, e, *, shift, bits, seed, step, stream, first):
    y = np.empty(x.shape, np.int8 if bits <= 8 else np.int16)
    blocks = -(-x.shape[-1] // 4)
    for number, (index, row) in enumerate(rows(x), first):
        for k, value in enumerate(row):
            counter = see("counter", number * blocks + k // 4)
            words = philox([counter, step, stream, ROUNDING_DOMAIN], seed % WORD, seed // WORD, lambda name, p: p)
            noise = see("noise", words[k % 4] % 2**shift)
            raised = see("raised", see("scaled", value * 2 ** int(e[index])) + noise)
            y[(*index, k)] = see("y", saturate(see("rounded", raised // 2**shift), bits))
    return y


__all__ = [
    "gradient_add",
    "largest_magnitude",
    "round_to_int16",
    "saturate_backward",
    "saturating_add",
    "stochastic_round_rows",
]
