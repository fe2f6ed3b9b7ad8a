"""``spec.ops.residual`` on unbounded integers."""

from .integers import elementwise, saturate
from .observe import see


def residual_add(r, x, *, num, shift):
    def element(r, x):
        raised = see("raised", see("product", x * num) + 2**shift // 2)
        update = see("update", raised // 2**shift)
        return see("y", saturate(see("sum", r + update), 24))

    return elementwise(element, "int32", r, x)


__all__ = ["residual_add"]
