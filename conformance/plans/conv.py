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


# Where a sum over 2**7 is just below a tie, at one or just above, seen through one tap, or several.
NEAR_TIES = (63, 64, 65, 191, 192, 193, 0, 1, 127, 128, -63, -64, -65, -191, -192, -193, -1)
TAPS = ((0, 0, 0, 1), (0, 0, 1, 0), (0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, -1), (3, -2, 5, 7))


def sequence_edges() -> Iterator[Extreme]:
    """Ties and the ends of the result over many steps and over less than four; sums that a float32 doesn't hold."""
    for s, length in ((7, 67), (0, 16)):
        bias, w = (a.ravel() for a in np.meshgrid(np.array([0, 32767, -32767], np.int32) << s, range(len(TAPS))))
        known = np.resize(NEAR_TIES, (2, length + 3))
        known[1, :3] += 1
        known = np.repeat(known[..., None], len(bias), axis=2).astype(np.int16)
        call = known[:, 3:], np.array(TAPS, np.int8)[w], bias, known[:, :3]
        yield Extreme([call], {"s": s}, "sums about ties and about both ends of the result, over many steps")
    # The oldest tap brings these to 9 times half of 2**22.
    w, bias = np.array([[127, 0, 0, 1], [-127, 0, 0, -1]], np.int8), np.array([BIAS, -BIAS], np.int32)
    x = np.repeat(np.array([[0, 1, 2], [2, 0, 1]], np.int16)[..., None], 2, axis=2)
    state = np.full((2, 3, 2), 2**21 // 127, np.int16)
    calls = [(x[:, :length].copy(), w, bias, state) for length in range(4)]
    yield Extreme(calls, {"s": 22}, "sums that no float32 holds, in sequences shorter than the kernel")


def step_edges() -> Iterator[Extreme]:
    """The first steps of those sequences, a row each."""
    for extreme in sequence_edges():
        x, w, bias, state = (a[:1] if a.ndim == 3 else a for a in extreme.calls[-1])
        known, steps = np.concatenate([state, x], axis=1)[0], range(min(x.shape[1], len(NEAR_TIES)))
        call = x[0, : len(steps)], w, bias, np.stack([known[t : t + 3] for t in steps])
        yield Extreme([call], extreme.parameters, extreme.purpose)


PLANS = {
    "causal_conv1d": Plan(sizes=LONG, parameters=SHIFTS, extremes=sequence_extremes, edges=sequence_edges, large=LARGE),
    "conv1d_step": Plan(
        sizes=STEP, parameters=SHIFTS, extremes=step_extremes, edges=step_edges, large=({"B": 3, "D": 1025},)
    ),
}
