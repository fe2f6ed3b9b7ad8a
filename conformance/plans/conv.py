"""Plans of ``spec.ops.conv``."""

from collections.abc import Iterator

import numpy as np

from mamba_integer.spec.ops.conv import BIAS

from .plan import BATCH_SIZES, Extreme, Plan

LENGTHS = (1, 2, 3, 4, 5, 9, 16, 17, 0)
CHANNELS = (1, 2, 3, 33, 0)
LONG = {"B": BATCH_SIZES, "L": LENGTHS, "D": CHANNELS}
STEP = {"B": BATCH_SIZES, "D": (1, 2, 33, 257, 0)}
LARGE = ({"B": 1, "L": 131, "D": 35}, {"B": 2, "L": 5, "D": 1025})
SHIFTS = {"s": (7, *range(23))}


def full(sign: int) -> tuple[np.ndarray, ...]:
    """Return a step at which every product and the bias have one sign."""
    x = np.array([[32767, -32767]], np.int16)
    w = np.repeat((sign * np.sign(x.T) * 127).astype(np.int8), 4, axis=1)
    return x, w, np.full(2, sign * BIAS, np.int32), np.repeat(x[:, None], 3, axis=1)


def step_extremes() -> Iterator[Extreme]:
    for s in (0, 1, 7, 22):
        yield Extreme([full(1), full(-1)], {"s": s})


def sequence_extremes() -> Iterator[Extreme]:
    for extreme in step_extremes():
        yield Extreme([(x[:, None], *rest) for x, *rest in extreme.calls], extreme.parameters)


PLANS = {
    "causal_conv1d": Plan(sizes=LONG, parameters=SHIFTS, extremes=sequence_extremes, large=LARGE),
    "conv1d_step": Plan(sizes=STEP, parameters=SHIFTS, extremes=step_extremes, large=({"B": 3, "D": 1025},)),
}
