"""``spec.ops.activation_backward`` on unbounded integers."""

import numpy as np

from .integers import elementwise, isqrt, round_div, saturate, shift_round
from .observe import see


def squareplus_backward(dy, x, *, f, offset):
    def element(dy, x):
        square = see("square", x * x)
        root = see("root", isqrt(see("radicand", square + 4 * 4**f)))
        total = see("sum", x + root)
        saturates = see("lowered", total // 2 - offset) >= 2**15
        scaled = see("scaled", total * 2**14)
        see("numerator", scaled + root // 2)
        slope = see("slope", 0 if saturates else round_div(scaled, root))
        return see("dx", shift_round(see("product", dy * slope), 15))

    return elementwise(element, "int32", dy, x)


def sigmoid_gate_backward(dy, x, z, *, f):
    dx, dz = np.empty(x.shape, "int32"), np.empty(x.shape, "int32")
    for index in np.ndindex(x.shape):
        dx[index], dz[index] = gate_gradients(int(dy[index]), int(x[index]), int(z[index]), f)
    return dx, dz


def inverse_and_gate(z, f):
    denominator = see("denominator", 2**f + abs(z))
    see("numerator", 2 ** (f + 15) + denominator // 2)
    inverse = see("inverse", round_div(2 ** (f + 15), denominator))
    return inverse, see("gate", inverse if z < 0 else 2**16 - inverse)


def gate_gradients(dy, x, z, f):
    inverse, gate = inverse_and_gate(z, f)
    slope = see("slope", shift_round(see("square", inverse**2), 14))
    dx = see("dx", shift_round(see("dx_product", dy * gate), 16))
    return dx, see("dz", saturate(shift_round(see("dz_product", dy * x * slope), 17 + f), 32))


def silu_gate_backward(dy, x, z, *, f):
    dx, dz = np.empty(x.shape, "int32"), np.empty(x.shape, "int32")
    for index in np.ndindex(x.shape):
        dx[index], dz[index] = silu_gradients(int(dy[index]), int(x[index]), int(z[index]), f)
    return dx, dz


def silu_gradients(dy, x, z, f):
    inverse, gate = inverse_and_gate(z, f)
    half_square = see("half_square", shift_round(see("square", inverse**2), 15))
    slope = see("slope", half_square if z < 0 else 2**16 - half_square)
    dx = see("dx", saturate(shift_round(see("dx_product", dy * z * gate), 16 + f), 32))
    return dx, see("dz", saturate(shift_round(see("dz_product", dy * x * slope), 16 + f), 32))


__all__ = ["sigmoid_gate_backward", "silu_gate_backward", "squareplus_backward"]
