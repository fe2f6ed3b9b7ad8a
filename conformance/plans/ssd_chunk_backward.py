"""Plans of ``spec.ops.ssd_chunk_backward``."""

from collections.abc import Iterator

import numpy as np

from mamba_integer.spec.ops.ssd_chunk import LARGEST_EXPONENT, LARGEST_TWO_LIMBS, ONE, state_limit

from .plan import BATCH_SIZES, Choice, Extreme, Plan
from .ssd_chunk import Q, filled, varied

OP = "ssd_chunk_scan_backward"
SIZES = {"B": BATCH_SIZES, "L": (1, 2, 3, 5, 9, 0), "H": (1, 2, 0), "P": (1, 2, 5, 0), "S": (1, 2, 4, 17)}
SHIFTS = (0, 8, 20, 47, *range(48))
FORMATS: dict[str, Choice] = {
    "q": (2, 3, 5),
    "s_h": (16, 12, *range(12, 17)),
    "s_g": (0, 15, *range(16)),
    "s_x": SHIFTS,
    "s_d": SHIFTS,
    "s_b": SHIFTS,
    "s_c": SHIFTS,
}
LARGE = (
    {"B": 1, "L": 135, "H": 1, "P": 3, "S": 33, "q": 6},
    {"B": 1, "L": 9, "H": 1, "P": 66, "S": 131, "q": 3},
    {"B": 1, "L": 260, "H": 1, "P": 2, "S": 3, "q": 8},
)
WORD = 2**31 - 1


def formats(s_h: int = 16, s_g: int = 8, **shifts: int) -> dict[str, int]:
    return {"q": 2, "s_h": s_h, "s_g": s_g} | {name: shifts.get(name, 0) for name in ("s_x", "s_d", "s_b", "s_c")}


def extremes() -> Iterator[Extreme]:
    """Errors and inputs at their ends, the state too: with signs with which dskip's terms all have one."""
    sizes, limit = {"B": 2, "L": Q, "H": 1, "P": 2, "S": 2, "q": 2}, state_limit(Q)
    for parameters in (formats(), formats(12, 0, s_x=9, s_d=8, s_b=9, s_c=9), formats(16, 15, s_x=47, s_d=47)):
        calls = []
        for d in (0, LARGEST_EXPONENT):
            for sign in (1, -1):
                values = {"dy": 32767, "x": sign * 127, "d": d, "b": 127, "c": 127, "skip": 32767}
                calls.append(filled(OP, sizes, **values, h=[[limit], [-limit]], dh=sign * WORD))
        yield Extreme(calls, parameters)


def far_back() -> Iterator[Extreme]:
    """Errors whose input lies 30, 31 and 32 octaves of decay before, and nothing nearer: the scores are wide."""
    octaves = np.array([29, 30, 31])
    d = np.zeros((1, Q, octaves.size), np.int32)
    d[0, 0], d[0, 1], d[0, 2] = LARGEST_EXPONENT, octaves * ONE, ONE
    x, dy = np.array([127, 0, 0, 0])[:, None, None], np.array([0, 0, 0, 32767])[:, None, None]
    sizes = {"B": 1, "L": Q, "H": octaves.size, "P": 9, "S": 2, "q": 2}
    calls = [filled(OP, sizes, dy=sign * dy, x=x, d=d, b=127, c=127) for sign in (1, -1)]
    yield Extreme(calls, formats(s_g=0), "errors that reach back past 31 octaves of decay")


def gated() -> Iterator[Extreme]:
    """Calls that bring the energy which leaves a position by its decay to the end of its 35 bits, and to 34."""
    near = np.array([2**28, 2**29, 2**30, 2**31 - 1])
    sizes = {"B": 1, "L": Q, "H": near.size, "P": 1, "S": 9, "q": 2}
    d = np.array([0, 0, 0, ONE])[:, None]
    calls = [filled(OP, sizes, x=127, d=d, b=127, dh=sign * near[:, None, None]) for sign in (1, -1)]
    yield Extreme(calls, formats(16, 15, s_d=6, s_x=20, s_b=20), "energies about the end of their 35 bits")


def limbs() -> Iterator[Extreme]:
    """Gradients of a state whose largest rounds past two limbs, beside small ones that one more bit of a shift cuts."""
    largest = (2 * LARGEST_TWO_LIMBS + 1) << np.arange(0, 15, 2)
    dh = np.stack([largest, *(odd << np.arange(0, 15, 2) for odd in (5, -5, 3))], axis=1)[:, None]
    sizes = {"B": 1, "L": Q, "H": len(dh), "P": 1, "S": 4, "q": 2}
    b = np.diag([0, 127, 63, 31])
    call = filled(OP, sizes, x=5, d=LARGEST_EXPONENT, b=b[::-1], c=1, dh=dh)
    yield Extreme([call], formats(), "gradients of a state that round just past two limbs")


def past() -> Iterator[Extreme]:
    """States whose product with their gradient lies at a tie of its rounding, and one below: nothing else is there."""
    sizes = {"B": 1, "L": Q, "H": 4, "P": 1, "S": 1, "q": 2}
    h, dh = np.array([5461, 4096, 4096, 3277]) << 16, np.array([3, 4, -4, -5])
    call = filled(OP, sizes, h=h[:, None, None], dh=dh[:, None, None])
    yield Extreme([call], formats(16, 15), "ties of what states pass on, and one below each")


def edges() -> Iterator[Extreme]:
    """Small and wide errors with slow and fast decays, over whole chunks and a shorter last one; single positions."""
    sizes = {"B": 1, "L": 2 * Q + 3, "H": 2, "P": 3, "S": 3, "q": 2}
    ordinary = {"dy": 32767, "x": 127, "d": 700, "b": 127, "c": 127, "skip": 3000, "h": 1 << 27, "dh": 1 << 24}
    small = {"dy": 5, "x": 9, "d": 40, "b": 9, "c": 9, "skip": 9, "h": 1 << 19, "dh": 1 << 9}
    middle = {"s_x": 12, "s_d": 6, "s_b": 12, "s_c": 12}
    for values, parameters, purpose in (
        (ordinary, formats(**middle), "ordinary errors"),
        (ordinary | {"dy": 127, "d": 9000}, formats(12, 2, **middle), "small errors, with fast decays"),
        (
            ordinary | {"d": 3, "dh": WORD},
            formats(16, 15, s_x=20, s_d=14, s_b=20, s_c=20),
            "wide state gradients",
        ),
        (small, formats(16, 0, s_x=2, s_d=1, s_b=1, s_c=3), "small values, with short shifts"),
        (small | {"d": 1}, formats(12, 0, s_x=1, s_b=3), "small values, with slow decays"),
    ):
        calls = [varied(OP, sizes | {"L": length}, **values) for length in (2 * Q + 3, Q, 1, 0)]
        yield Extreme(calls, parameters, f"{purpose}, over whole chunks and a shorter last one")
    # The largest exponent and none at all, at every place; gradients of the state that saturate.
    dy, x, d, *rest = varied(OP, sizes | {"L": 4 * Q}, **ordinary)
    place = np.arange(4 * Q)
    d[0, place % 5 == 0, 0] = LARGEST_EXPONENT
    d[0, place % 3 == 0, 1] = 0
    d[0, place % 7 == 1, 1] = ONE
    yield Extreme([(dy, x, d, *rest)], formats(**middle), "the largest decay exponent and none, at every place")
    values = {"dy": 32767, "x": 127, "d": 1, "b": 127, "c": 127, "skip": 32767, "h": 1 << 30, "dh": WORD}
    sums = filled(OP, sizes | {"L": 2 * Q}, **values), filled(OP, sizes | {"L": 2 * Q}, **values | {"dy": -32767})
    yield Extreme(sums, formats(16, 0), "gradients of the state that saturate")
    long = {"B": 1, "L": 9, "H": 1, "P": 66, "S": 1, "q": 2}
    calls = [filled(OP, long, dy=sign * 32767, x=127) for sign in (1, -1)]
    yield Extreme(calls, formats(), "a gradient of the skip that no int32 holds")
    # Ties of dx by its skip alone, and of the gradient of the state.
    alone = {"B": 1, "L": 1, "H": 5, "P": 4, "S": 1, "q": 2}
    ties = filled(OP, alone, dy=[1, -1, 3, -3], x=1, skip=[1, -1, 3, 64, -64], c=[[1]])
    yield Extreme([ties], formats(16, 15, s_x=10), "ties of the gradients of x and of the state")
    yield from far_back()
    yield from gated()
    yield from limbs()
    yield from past()


PLANS = {OP: Plan(SIZES, FORMATS, extremes=extremes, edges=edges, large=LARGE)}
