"""``spec.ops.activation_backward`` on unbounded integers."""

import numpy as np

from .integers import elementwise, isqrt, round_div, saturate, shift_round
from .observe import see


def squareplus_backward(dy, x, *, f):
    def element(dy, x):
        square = see("square", x * x)
        root = see("root", isqrt(see("radicand", square + 4 * 4**f)))
        total = see("sum", x + root)
        scaled = see("scaled", total * 2**14)
        see("numerator", scaled + root // 2)
        slope = see("slope", round_div(scaled, root) if total < 2**16 else 0)
        return see("dx", shift_round(see("product", dy * slope), 15))

    return elementwise(element, "int32", dy, x)


def sigmoid_gate_backward(dy, x, z, *, f):
    dx, dz = np.empty(x.shape, "int32"), np.empty(x.shape, "int32")
    for index in np.ndindex(x.shape):
        dx[index], dz[index] = gate_gradients(int(dy[index]), int(x[index]), int(z[index]), f)
    return dx, dz


def gate_gradients(dy, x, z, f):
    denominator = see("denominator", 2**f + abs(z))
    see("numerator", 2 ** (f + 15) + denominator // 2)
    inverse = see("inverse", round_div(2 ** (f + 15), denominator))
    gate = see("gate", inverse if z < 0 else 2**16 - inverse)
    slope = see("slope", shift_round(see("square", inverse**2), 14))
    dx = see("dx", shift_round(see("dx_product", dy * gate), 16))
    return dx, see("dz", saturate(shift_round(see("dz_product", dy * x * slope), 17 + f), 32))


__all__ = ["sigmoid_gate_backward", "squareplus_backward"]
