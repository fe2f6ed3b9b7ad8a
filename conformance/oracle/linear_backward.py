"""``spec.ops.linear_backward`` on unbounded integers."""

import numpy as np

from .integers import saturate, shift_round
from .observe import see
from .packing import rows, ternary_digits


def ternary_linear_backward(dy, w, *, K, num, shift):
    columns = [[int(digit) for digit in column] for column in ternary_digits(w, K).T]
    dx = np.empty((*dy.shape[:-1], K), np.int16)
    for index, errors in rows(dy):
        for k, digits in enumerate(columns):
            accumulator = 0
            for error, digit in zip(errors, digits, strict=True):
                accumulator = see("accumulator", accumulator + error * digit)
            rounded = see("rounded_sum", shift_round(see("scaled", accumulator * num), shift))
            dx[(*index, k)] = see("dx", saturate(rounded, 16))
    return dx


def ternary_linear_backward_weight(dy, q, *, bits):
    dw = [[0] * q.shape[-1] for _ in range(dy.shape[-1])]
    for (_, errors), (_, values) in zip(rows(dy), rows(q), strict=True):
        for error, sums in zip(errors, dw, strict=True):
            for k, value in enumerate(values):
                sums[k] = see("dw", sums[k] + see("product", error * value))
    return np.array(dw, np.int64).reshape(dy.shape[-1], q.shape[-1])


__all__ = ["ternary_linear_backward", "ternary_linear_backward_weight"]
