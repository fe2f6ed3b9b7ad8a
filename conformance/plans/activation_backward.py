"""Plans of ``spec.ops.activation_backward``."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from mamba_integer.spec import integers
from mamba_integer.spec.ops.activation_backward import inverse_and_gate, least_saturated, silu_slope

from .activation import ENDS, EVERY, FLAT, FRACTIONS, closest, draw_offset, near_squares, offsets
from .plan import LONG_FLAT, Extreme, Plan, ties

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


def every_bit(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return a gradient in which every bit of a slope shows, and the given inputs."""
    return np.full(len(inputs[0]), 2**30 + 12345, np.int32), *(a.astype(np.int16) for a in inputs)


def gradients_at_ties(shift: int, factors: np.ndarray, *inputs: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Give, in either type, gradients at and beside ties of their products with the factor that belongs to the inputs.

    The quotients are small, or near the ends of the gradient's type.
    """
    for dtype in (np.int32, np.int16):
        end = np.iinfo(dtype).max
        rows = [(dy, *row) for a, *row in zip(factors, *inputs, strict=True) if a for dy in ties(shift, end, end, a)]
        dy, *rest = np.array(rows).T
        yield dy.astype(dtype), *(a.astype(np.int16) for a in rest)


def squareplus_edges() -> Iterator[Extreme]:
    """Roots of squares, slopes at ties or nearly, the last inputs before saturation, and gradients at ties."""
    # With the last offset the half of an odd sum is just what doesn't saturate.
    for f, offset in ((0, 1), (8, 256), (11, 0), (14, 1702)):
        root = integers.isqrt(EVERY**2 + (4 << (2 * f)))
        scaled = (EVERY + root) << 14
        slope, from_tie = integers.round_div(scaled, root), abs(2 * (scaled % root) - root) / root
        last = least_saturated(f, offset) - 1
        around_last = np.arange(last - 2, min(last + 3, 32768))
        x = np.concatenate([near_squares(f, 60), closest(from_tie, 60), np.arange(-9, 10), around_last])
        few = np.array([-1234, -9, 5, 1000, 27001])
        calls = [every_bit(x), *gradients_at_ties(15, slope[few + 32767], few)]
        purpose = "slopes at ties and about saturation, and gradients at ties of their products"
        yield Extreme(calls, {"f": f, "offset": offset}, purpose)


def slopes_to_round(f: int, square_shift: int) -> np.ndarray:
    """Return inputs of a gate at which its inverse, or the square of that, is at a tie or nearly; and the smallest."""
    denominator = (1 << f) + abs(EVERY)
    from_tie = abs(2 * ((1 << (f + 15)) % denominator) - denominator) / denominator
    past_tie = inverse_and_gate(EVERY, f)[0] ** 2 - (1 << (square_shift - 1))
    nearly = [past_tie % (1 << square_shift), (-1 - past_tie) % (1 << square_shift)]
    return np.concatenate([*(closest(distance, 40) for distance in (from_tie, *nearly)), np.arange(-3, 4)])


def gate_edges(silu: bool) -> Iterator[Extreme]:
    """Slopes at ties or nearly; gradients at ties of both products."""
    for f in (0, 8, 14):
        one = 1 << f
        z = slopes_to_round(f, 15 if silu else 14)
        calls = [every_bit(np.full(len(z), one), z)]
        z = np.array([-one, -1, 1, one, -3 * one // 2, 2 * one - 1, -777, 20001])
        x = np.array([1, -3, 5, 2560, -one, 32767, -32766, 12345])
        inverse, gate = inverse_and_gate(z, f)
        if silu:
            calls += gradients_at_ties(16 + f, z * gate, x, z)
            calls += gradients_at_ties(16 + f, x * silu_slope(inverse, z), x, z)
        else:
            calls += gradients_at_ties(16, gate, x, z)
            calls += gradients_at_ties(17 + f, x * integers.shift_round(inverse**2, 14), x, z)
        yield Extreme(calls, {"f": f}, "slopes at ties, and gradients at ties of both products")


PLANS = {
    "squareplus_backward": Plan(
        parameters={"f": FRACTIONS, "offset": draw_offset},
        leading=FLAT,
        extremes=squareplus_extremes,
        edges=squareplus_edges,
        large=LONG_FLAT,
    ),
    "sigmoid_gate_backward": Plan(
        parameters={"f": FRACTIONS},
        leading=FLAT,
        extremes=gate_extremes,
        edges=partial(gate_edges, silu=False),
        large=LONG_FLAT,
    ),
    "silu_gate_backward": Plan(
        parameters={"f": FRACTIONS},
        leading=FLAT,
        extremes=gate_extremes,
        edges=partial(gate_edges, silu=True),
        large=LONG_FLAT,
    ),
}
