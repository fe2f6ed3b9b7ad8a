"""Plans of ``spec.ops.activation_backward``."""

from collections.abc import Iterator

import numpy as np

from mamba_integer.spec.ops.activation_backward import least_saturated

from .activation import ENDS, FLAT, FRACTIONS, draw_offset, offsets
from .plan import LONG_FLAT, Extreme, Plan

GRADIENTS = np.array([-(2**31 - 1), 0, 2**31 - 1], np.int32)


def grid(*axes: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.ascontiguousarray(axis) for axis in np.meshgrid(*axes))


def squareplus_extremes() -> Iterator[Extreme]:
    for f in (0, 7, 8, 14):
        for offset in offsets(f):
            # The greatest slope is that of the last input before squareplus saturates.
            inputs = np.array([*ENDS, least_saturated(f, offset) - 1], np.int16)
            yield Extreme([grid(GRADIENTS, inputs)], {"f": f, "offset": offset})


def gate_extremes() -> Iterator[Extreme]:
    for f in (0, 8, 14):
        yield Extreme([grid(GRADIENTS, ENDS, ENDS)], {"f": f})


PLANS = {
    "squareplus_backward": Plan(
        parameters={"f": FRACTIONS, "offset": draw_offset}, leading=FLAT, large=LONG_FLAT, extremes=squareplus_extremes
    ),
    "sigmoid_gate_backward": Plan(parameters={"f": FRACTIONS}, leading=FLAT, large=LONG_FLAT, extremes=gate_extremes),
    "silu_gate_backward": Plan(parameters={"f": FRACTIONS}, leading=FLAT, large=LONG_FLAT, extremes=gate_extremes),
}
