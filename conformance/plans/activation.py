"""Plans of ``spec.ops.activation``."""

from collections.abc import Iterator

import numpy as np

from .plan import Extreme, Plan

FRACTIONS = (8, *range(15))
FLAT = ((1,), (), (0,), (3,), (2, 3), (1023,), (1025,), (2, 5, 129))
ENDS = np.array([-32767, 0, 32767], np.int16)


def unary_extremes() -> Iterator[Extreme]:
    for f in (0, 8, 14):
        yield Extreme([(ENDS,)], {"f": f})


def gate_extremes() -> Iterator[Extreme]:
    x, z = (np.ascontiguousarray(a) for a in np.meshgrid(ENDS, ENDS))
    for f in (0, 8, 14):
        yield Extreme([(x, z)], {"f": f})


PLANS = {
    "squareplus": Plan(parameters={"f": FRACTIONS}, leading=FLAT, extremes=unary_extremes),
    "algebraic_sigmoid": Plan(parameters={"f": FRACTIONS}, leading=FLAT, extremes=unary_extremes),
    "sigmoid_gate": Plan(parameters={"f": FRACTIONS}, leading=FLAT, extremes=gate_extremes),
}
