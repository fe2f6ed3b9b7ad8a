"""``spec.ops.optimizer`` on unbounded integers."""

from fractions import Fraction
from math import floor

import numpy as np

from .integers import elementwise, round_div, saturate, shift_round
from .observe import see
from .packing import pack_ternary


def clamp(x: int, low: int, high: int) -> int:
    return sorted((low, x, high))[1]


def sign(x: int) -> int:
    return (x > 0) - (x < 0)


def ternary_project(w):
    total = see("sum", sum(see("magnitude", abs(v)) for v in w.reshape(-1).tolist()))
    return pack_ternary(
        elementwise(lambda v: sign(v) * (see("doubled", abs(v) * 2 * w.size) > total), "int8", w),
    )


def lion_update(w, m, g, *, lr, m_shift, g_up, g_down, low, high, decay):
    new_w, new_m, clipped = np.empty(w.shape, np.int32), np.empty(m.shape, np.int32), 0
    share = shift_round(lr * decay, 8)
    for index in np.ndindex(w.shape):
        weight = int(w[index])
        half_up = floor(Fraction(int(m[index])) / Fraction(2) ** m_shift + Fraction(1, 2))
        a = see("momentum", saturate(half_up, 28))
        b = see("gradient", saturate(shift_round(int(g[index]), g_down) * 2**g_up, 28))
        step = lr * sign(see("vote", 7 * a + b))
        new_m[index] = see("m", a + shift_round(see("lag", b - a), 6))
        lost = see("lost", shift_round(see("loss", weight * share), 32))
        total = see("sum", weight - step - lost)
        new_w[index] = see("w", clamp(total, low, high))
        clipped += not low <= total <= high
    return new_w, new_m, np.array([clipped], np.int64)


def learning_rate(step, *, peak, last, warmup, total):
    def rate(step):
        risen = see("risen", peak * min(step + 1, warmup))
        left = see("left", clamp(total - step, 0, total - warmup))
        fallen = see("fallen", (peak - last) * left)
        if step < warmup:
            return see("lr", round_div(risen, warmup))
        return see("lr", last + round_div(fallen, total - warmup))

    return elementwise(rate, "int32", step)


def gradient_exponent(exponent, largest, *, bits):
    def following(exponent, largest):
        used = see("used", largest.bit_length())
        move = 0
        if largest >= 2 ** (bits - 1) - 1:
            move = -1
        elif 0 < largest < 2 ** (bits - 3):
            move = (bits - 1 - used) // 2
        elif largest == 0:
            move = 1
        return see("y", clamp(see("moved", exponent + move), -40, 60))

    return elementwise(following, "int32", exponent, largest)


def momentum_exponent(exponent, g_exponent, largest_g, largest_m):
    def meeting(exponent, g_exponent, largest_g, largest_m):
        pairs = ((largest_m, exponent), (largest_g, g_exponent))
        tops = [largest.bit_length() - exponent for largest, exponent in pairs if largest]
        fitting = exponent
        if tops:
            top = see("top", max(tops))
            fitting = see("fitting", clamp(exponent, 21 - top, 27 - top))
        return see("y", clamp(fitting, -100, 200))

    return elementwise(meeting, "int32", exponent, g_exponent, largest_g, largest_m)


__all__ = ["gradient_exponent", "learning_rate", "lion_update", "momentum_exponent", "ternary_project"]
