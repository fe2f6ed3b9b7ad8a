"""Plans of ``spec.ops.activation``."""

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np

from mamba_integer.spec.ops.activation import least_weighted

from .plan import LONG_FLAT, Extreme, Plan

FRACTIONS = (8, *range(15))
FLAT = ((1,), (), (0,), (3,), (2, 3), (1023,), (1025,), (2, 5, 129))
ENDS = np.array([-32767, 0, 32767], np.int16)


def offsets(f: int) -> list[int]:
    """Return offsets of squareplus: none, one that lets it saturate if f > 8, its value at zero, the largest."""
    return sorted({0, 4**f >> 16, 1 << f, 2**15 - 1})


def draw_offset(random: Random, at: Any) -> int:
    return random.choice(offsets(at.f))


def squareplus_extremes() -> Iterator[Extreme]:
    for f in (0, 8, 14):
        for offset in offsets(f):
            yield Extreme([(ENDS,)], {"f": f, "offset": offset})


def unary_extremes() -> Iterator[Extreme]:
    for f in (0, 8, 14):
        yield Extreme([(ENDS,)], {"f": f})


def gate_extremes() -> Iterator[Extreme]:
    x, z = (np.ascontiguousarray(a) for a in np.meshgrid(ENDS, ENDS))
    for f in (0, 8, 14):
        yield Extreme([(x, z)], {"f": f})


def silu_extremes() -> Iterator[Extreme]:
    for f in range(15):
        inputs = np.array([*ENDS, least_weighted(f)], np.int16)
        x, z = (np.ascontiguousarray(a) for a in np.meshgrid(ENDS, inputs))
        yield Extreme([(x, z)], {"f": f})


PLANS = {
    "squareplus": Plan(
        parameters={"f": FRACTIONS, "offset": draw_offset}, leading=FLAT, large=LONG_FLAT, extremes=squareplus_extremes
    ),
    "algebraic_sigmoid": Plan(parameters={"f": FRACTIONS}, leading=FLAT, large=LONG_FLAT, extremes=unary_extremes),
    "sigmoid_gate": Plan(parameters={"f": FRACTIONS}, leading=FLAT, large=LONG_FLAT, extremes=gate_extremes),
    "silu_gate": Plan(parameters={"f": FRACTIONS}, leading=FLAT, large=LONG_FLAT, extremes=silu_extremes),
}
