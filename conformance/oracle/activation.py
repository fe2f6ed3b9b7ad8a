"""``spec.ops.activation`` on unbounded integers."""

from .integers import elementwise, isqrt, saturate, shift_round
from .observe import see


def squareplus(x, *, f, offset):
    def element(x):
        square = see("square", x * x)
        root = see("root", isqrt(see("radicand", square + 4 * 4**f)))
        return see("y", saturate(see("lowered", see("sum", x + root) // 2 - offset), 16))

    return elementwise(element, "int16", x)


def sigmoid(z, f):
    return 2**14 + see("numerator", z * 2**14) // see("denominator", 2**f + abs(z))


def algebraic_sigmoid(z, *, f):
    return elementwise(lambda z: see("y", sigmoid(z, f)), "int16", z)


def sigmoid_gate(x, z, *, f):
    def element(x, z):
        return see("y", shift_round(see("product", x * see("sigmoid", sigmoid(z, f))), 15))

    return elementwise(element, "int16", x, z)


def silu_gate(x, z, *, f):
    def element(x, z):
        weight = see("weight", z * see("sigmoid", sigmoid(z, f)))
        return see("y", saturate(shift_round(see("product", x * weight), 15 + f), 16))

    return elementwise(element, "int16", x, z)


__all__ = ["algebraic_sigmoid", "sigmoid_gate", "silu_gate", "squareplus"]
