"""Plans of ``spec.ops.conv_backward``."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from .conv import CHANNELS, LARGE, SHIFTS, full
from .plan import BATCH_SIZES, Extreme, Plan

LARGEST = 2**31 - 1
# Around the ends of blocks of steps, whose gradients reach three steps back.
LENGTHS = (1, 2, 3, 4, 5, 16, 17, 35, 0)


def extremes() -> Iterator[Extreme]:
    for s, steps in product((0, 1, 7, 22), (4, 35)):
        still = np.zeros((1, steps, 2), np.int16), np.zeros(2, np.int32), np.zeros((1, 3, 2), np.int16)
        calls = []
        for sign in (1, -1):
            x, w, bias, state = full(sign)
            inputs = np.repeat(x[:, None], steps, axis=1)
            dy = np.full(inputs.shape, sign * LARGEST, np.int32)
            # The greatest results; where none saturates, the greatest gradient of x, then of w and bias.
            calls.append((dy, inputs, w, bias, state))
            calls.append((dy, still[0], np.full((2, 4), 127, np.int8), *still[1:]))
            calls.append((dy, inputs, np.zeros((2, 4), np.int8), still[1], state))
        yield Extreme(calls, {"s": s})


def saturation_edges() -> Iterator[Extreme]:
    """The convolution's result is its bias: just saturated, and just not."""
    for s, biases in ((0, (32766, 32767, 32768)), (1, (65533, 65534, 65535, 65536))):
        bias = np.array([*biases, *(-b for b in biases)], np.int32)
        d, x = len(bias), np.zeros((1, 2, len(bias)), np.int16)
        call = x + np.int16(5), x, np.ones((d, 4), np.int8), bias, np.zeros((1, 3, d), np.int16)
        yield Extreme([call], {"s": s}, "results that are just saturated, and just not: their gradients pass or stop")


PLANS = {
    "causal_conv1d_backward": Plan(
        sizes={"B": BATCH_SIZES, "L": LENGTHS, "D": CHANNELS},
        parameters=SHIFTS,
        extremes=extremes,
        edges=saturation_edges,
        large=LARGE,
    ),
}
