"""``spec.ops.linear`` on unbounded integers."""

import numpy as np

from .integers import elementwise, saturate, shift_round
from .observe import see
from .packing import rows, ternary_digits


def quantize_rows(x):
    q, e = np.empty(x.shape, np.int8), np.empty(x.shape[:-1], np.int32)
    for index, row in rows(x):
        maximum = see("maximum", max(abs(v) for v in row))
        exponent = next(n for n in range(64) if maximum < 2 ** (n + 7))
        e[index] = see("e", exponent)
        q[index] = [see("q", saturate(see("rounded", shift_round(v, exponent)), 8)) for v in row]
    return q, e


def requantize(x, *, shift):
    return elementwise(lambda x: see("q", saturate(see("rounded", shift_round(x, shift)), 8)), "int8", x)


def ternary_linear(q, e, w, *, num, shift):
    weights = [digits for _, digits in rows(ternary_digits(w, q.shape[-1]))]
    y = np.empty((*q.shape[:-1], w.shape[0]), np.int16)
    for index, row in rows(q):
        for n, digits in enumerate(weights):
            accumulator = 0
            for value, digit in zip(row, digits, strict=True):
                accumulator = see("accumulator", accumulator + value * digit)
            aligned = see("aligned", see("scaled", accumulator * num) * 2 ** int(e[index]))
            y[(*index, n)] = see("y", saturate(see("rounded_sum", shift_round(aligned, shift)), 16))
    return y


def ternary_linear_requant(q, e, w, *, num, shift):
    return quantize_rows(ternary_linear(q, e, w, num=num, shift=shift))


__all__ = ["quantize_rows", "requantize", "ternary_linear", "ternary_linear_requant"]
