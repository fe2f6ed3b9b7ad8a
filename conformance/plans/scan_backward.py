"""Plans of ``spec.ops.scan_backward``."""

from bisect import bisect_left
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import product
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np

from mamba_integer.spec.contract import find_op
from mamba_integer.spec.ops.scan import state_range
from mamba_integer.spec.ops.scan_backward import LARGEST_SHIFT, adjoint_range, carried_range

from .plan import BATCH_SIZES, Choice, Extreme, Plan, beside_ties
from .scan import (
    SELECTIVE_EDGES,
    SELECTIVE_LARGE,
    SLOWEST,
    SMALL,
    SSD_EDGES,
    SSD_LARGE,
    input_shift,
    of_heads,
    slowest,
    tiles_of,
    varied,
)

LENGTHS = (1, 2, 3, 5, 9, 0)
SELECTIVE = {"B": BATCH_SIZES, "L": LENGTHS, "D": (1, 2, 5, 33, 0), "N": (1, 2, 4, 5)}
SSD = {"B": BATCH_SIZES, "L": LENGTHS, "H": (1, 2, 3, 0), "P": (1, 2, 5, 11, 0), "S": (1, 2, 4, 5)}
SHIFTS = tuple(range(LARGEST_SHIFT + 1))
KEPT = 1 << 12  # choices of sizes and parameters whose shifts are known
# A shift counts as this until it is drawn: a value with which the widths fit if they do with any.
UNDRAWN = {"s_h": 0, "s_w": LARGEST_SHIFT, "s_n": 0, "s_x": 0, "s_b": 0, "s_c": 0}


def fitting(op: str, name: str, at: Any) -> tuple[int, ...]:
    """Return the values of a shift with which all widths fit."""
    return fitting_beside(op, name, tuple(vars(at).items()))


@lru_cache(KEPT)
def fitting_beside(op: str, name: str, chosen: tuple[tuple[str, Any], ...]) -> tuple[int, ...]:
    """Return the values of a parameter with which all widths fit, beside the chosen sizes and parameters.

    With a longer shift each width only grows or only falls, or it falls first: so those that fit are neighbours.
    """
    at = SimpleNamespace(**dict(chosen))
    allowed, known = next(p for p in find_op(op).parameters if p.name == name).range(at), UNDRAWN[name]

    def fits(value: int) -> bool:
        widths = find_op(op).widths(SimpleNamespace(**UNDRAWN | vars(at) | {name: value}))
        return all(width.fits for width in widths.values())

    if not fits(known):
        return ()
    first = allowed.low + bisect_left(range(allowed.low, known), True, key=fits)
    end = known + 1 + bisect_left(range(known + 1, allowed.high + 1), True, key=lambda value: not fits(value))
    return tuple(range(first, end))


def drawn(op: str, name: str) -> Choice:
    def choose(random: Random, at: Any) -> int:
        values = fitting(op, name, at)
        return random.choice((values[0], *values))

    return choose


def least_adjoint_shift(at: Any) -> int:
    return next(s for s in range(23) if adjoint_range(SimpleNamespace(**vars(at) | {"s_g": s})).fits("int32"))


def adjoint_shift(random: Random, at: Any) -> int:
    low = least_adjoint_shift(at)
    return random.choice((low, *range(low, 23)))


def formats(op: str) -> dict[str, Choice]:
    first: dict[str, Choice] = SLOWEST | {"convex": (0, 1), "s_v": input_shift, "s_g": adjoint_shift}
    return first | {name: drawn(op, name) for name in UNDRAWN}


def modulation_extremes() -> Iterator[Extreme]:
    """Every gradient at one end of its range, each decay passing; and decays clamped at either end."""
    word = 2**31 - 1
    for k, s_n in product((1, 8, 15), (0, 1, 33)):
        for n_max in slowest(k):
            calls = []
            for dn, base, mod in ((word, 0, 0), (-word, 0, 0), (word, 0, -32767), (word, 2**k - 1, 32767)):
                arrays = np.full((2, 1, 2, 2), dn), np.full((2, 2), base), np.full((2, 1, 2), mod)
                calls.append(tuple(a.astype(dtype) for a, dtype in zip(arrays, ("i4", "i2", "i2"), strict=True)))
            yield Extreme(calls, {"k": k, "n_max": n_max, "s_n": s_n})


# k, n_max, s_v, s_g, s_h (None: the least that fits), the rest (of those that fit, the first, the middle one, the last)
EDGES = (
    (15, 2**15 - 1, None, None, 0, 0, 0.0),
    (15, 2**15 - 1, 22, 22, 0, 30, 0.5),
    (15, 2**14, 7, 9, 0, 8, 1.0),
    (15, 0, 0, 0, 0, 1, 0.0),
    (15, 2**15 - 1, 0, None, 1, 0, 0.0),
    (15, 2**15 - 1, -8, None, 1, 8, 0.5),
    (8, 2**8 - 1, 1, 20, 1, 8, 0.5),
    (1, 1, 1, 1, 0, 0, 0.5),
    (1, 0, 22, 0, 1, 0, 1.0),
)


EXTREME_SIZES = {
    "selective_scan_backward": {"B": 2, "L": 1, "D": 2, "N": 2},
    "ssd_scan_backward": {"B": 2, "L": 1, "H": 1, "P": 2, "S": 2},
}


class First(Random):
    def choice(self, seq):
        return seq[0]


@cache
def edge_formats(op: str) -> tuple[dict[str, int], ...]:
    edges = []
    for k, n_max, s_v, s_g, convex, s_h, share in EDGES:
        at = SimpleNamespace(k=k, n_max=n_max, convex=convex, **EXTREME_SIZES[op])
        at.s_v = input_shift(First(), at) if s_v is None else s_v
        at.s_g = least_adjoint_shift(at) if s_g is None else s_g
        at.s_h = s_h
        for name in ("s_w", "s_n", "s_x", "s_b", "s_c"):
            values = fitting(op, name, at)
            setattr(at, name, values[int(share * (len(values) - 1))])
        edges.append({parameter.name: getattr(at, parameter.name) for parameter in find_op(op).parameters})
    return tuple(edges)


# Signs of lam, dy, x and h: each two of them meet in all four ways.
SIGNS = [(lam, dy, x, lam * dy * x) for lam, dy, x in product((1, -1), repeat=3)]


def end(interval, sign: int) -> int:
    return interval.high if sign > 0 else interval.low


def scan_extremes(op: str) -> Iterator[tuple[dict[str, int], list[dict[str, int]]]]:
    """Return parameters and calls, each of them one value an input, in which every sum's terms have one sign.

    The decay is n_max, and 0 where a convex step keeps most of v; it passes its gradient.
    """
    for parameters in edge_formats(op):
        at = SimpleNamespace(**parameters)
        calls = []
        for n in (parameters["n_max"], 0):
            for lam, dy, x, h in SIGNS:
                b = -h * x if at.convex else h * x
                values = {"dy": dy * 32767, "x": x * 32767, "n": n, "b": b * 127, "c": lam * dy * 127}
                values |= {"skip": lam * b * dy * 32767, "h": end(state_range(at), h)}
                calls.append(values | {"dh": end(carried_range(at), lam)})
        yield parameters, calls


def filled(op: str, values: dict[str, int]) -> tuple[np.ndarray, ...]:
    return tuple(
        np.full([EXTREME_SIZES[op][name] for name in tensor.shape.split()], values[tensor.name], tensor.dtypes[0])
        for tensor in find_op(op).inputs
    )


def selective_extremes() -> Iterator[Extreme]:
    op = "selective_scan_backward"
    for parameters, calls in scan_extremes(op):
        yield Extreme([filled(op, values | {"base": values["n"], "mod": 0}) for values in calls], parameters)


def ssd_extremes() -> Iterator[Extreme]:
    op = "ssd_scan_backward"
    for parameters, calls in scan_extremes(op):
        yield Extreme([filled(op, values) for values in calls], parameters)


SMALL_SHIFTS = {"s_w": 3, "s_n": 2, "s_x": 3, "s_b": 3, "s_c": 2}
SMALL_FORMATS = (
    {"k": 4, "n_max": 14, "s_v": 3, "s_h": 2, "convex": 0, "s_g": 2} | SMALL_SHIFTS,
    {"k": 4, "n_max": 15, "s_v": 2, "s_h": 1, "convex": 1, "s_g": 5} | SMALL_SHIFTS,
)
SMALL_LIMITS = SMALL | {"dy": 200, "dh": 300}
NO_SHIFTS = {"k": 4, "n_max": 15, "convex": 1} | dict.fromkeys(("s_v", "s_h", "s_g", *SMALL_SHIFTS), 0)
LONG_LIMITS = {"dy": 20, "x": 30000, "mod": 16, "n": 15, "base": 15, "b": 127, "c": 3, "skip": 20, "h": 300, "dh": 300}
WIDE_FORMAT = {"k": 15, "n_max": 2**15 - 1, "s_v": 6, "s_h": 24, "convex": 0, "s_g": 6}
WIDE_FORMAT |= {"s_w": 2, "s_n": 33, "s_x": 23, "s_b": 3, "s_c": 0}

WIDE_PRODUCT, WIDE_STATE = WIDE_FORMAT | {"s_w": 31, "s_n": 0}, 2**29 - 3


def wide_sums(op: str) -> Extreme:
    """Return a step whose sums of w and of dx are ties and their neighbours, some beyond what a float64 holds.

    Of three states the first gives the odd multiple of half of 2**s_n, the second what is beside it. The third takes
    from the sum of dx what the first one gave and adds half of 2**s_x.
    """
    odd, beside = (a.ravel() for a in np.meshgrid([1, -1, 3, -3, 2**26 + 1, -(2**26) - 1], [-1, 0, 1]))
    sizes = {"B": 3, "L": 1, "N": 3, "S": 3, "D": odd.size, "H": odd.size, "P": 1}
    values = {
        "dy": np.resize([32767, -32767, 1, 0], odd.size),
        "x": np.resize([32767, 1, 2], odd.size),
        "dh": np.stack([16 * odd, beside, 2**22 - 16 * odd], axis=1),
        "h": np.tile([2**30, 4, 0], (odd.size, 1)),
        "skip": 32767,
        "mod": 0,
        "c": 0,
    }
    return Extreme([one_step(op, sizes, values)], WIDE_FORMAT, "sums about ties that no float64 holds")


def one_step(op: str, sizes: dict[str, int], values: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """Return the inputs of these values, of which rows of an array may have others; the rest are ones."""
    arrays = []
    for tensor in find_op(op).inputs:
        shape, value = [sizes[name] for name in tensor.shape.split()], np.asarray(values.get(tensor.name, 1))
        value = value.reshape(-1, *shape[1:]) if value.ndim else value
        arrays.append(np.broadcast_to(value, shape).astype(tensor.dtypes[0]))
    return tuple(arrays)


def wide_products(op: str) -> Extreme:
    """Return a step at which lam times the state before is at and beside ties, of more bits than a float64 has."""
    lam = beside_ties(WIDE_PRODUCT["s_w"], 2**29, WIDE_STATE)
    sizes = {"B": lam.size} | dict.fromkeys(("L", "N", "S", "D", "H", "P"), 1)
    call = one_step(op, sizes, {"dh": lam, "h": WIDE_STATE, "dy": 0, "mod": 0})
    return Extreme([call], WIDE_PRODUCT, "products beside ties, of more bits than a float64")


def scan_edges(op: str, sizes: dict[str, int]) -> Iterator[Extreme]:
    """Small values that meet every tie; a channel over more steps than a tile has; sums that no float64 holds."""
    for parameters, lengths in zip(SMALL_FORMATS, ((19, 0), (9,)), strict=True):
        calls = [varied(op, sizes | {"L": n}, parameters, SMALL_LIMITS) for n in lengths]
        yield Extreme(calls, parameters, "small values at which every rounding meets ties")
        calls = [varied(op, sizes | {"B": 1, "L": 11} | tile, parameters, SMALL_LIMITS) for tile in tiles_of(sizes)]
        yield Extreme(calls, parameters, "whole tiles of channels, whose last block of steps is not whole")
    long = varied(op, dict.fromkeys(sizes, 1) | {"L": 67}, NO_SHIFTS, LONG_LIMITS)
    yield Extreme([long], NO_SHIFTS, "one channel over more steps than a tile has")
    yield wide_sums(op)
    yield wide_products(op)


def modulation_edges() -> Iterator[Extreme]:
    """Ties of few bits, and sums about both ends of the decay, the one that n_max is and the one that k allows."""
    parameters, sizes = {"k": 4, "n_max": 11, "s_n": 2}, {"B": 2, "L": 9, "D": 3, "N": 5}
    limits = {"dn": 9, "base": 15, "mod": 16}
    call = varied("decay_modulate_backward", sizes, parameters, limits)
    yield Extreme([call], parameters, "ties of few bits, and decays about zero, about n_max and about 2**k")


# Formats that kernels are made for, beside whole and partial tiles.
OF_MODELS = {"k": 15, "n_max": 2**15 - 2**5, "convex": 1, "s_v": -8, "s_g": 2, "s_h": 8, "s_w": 15, "s_n": 16}
OF_MODELS |= {"s_x": 10, "s_b": 11, "s_c": 13}
COARSE = OF_MODELS | {"s_v": 2}  # inputs are rounded
ADDITIVE = tuple({"k": 8, "n_max": 200, "convex": 0, "s_v": 0, "s_h": s_h} for s_h in (8, 0))  # 0: states lose nothing
SELECTIVE_WHOLE = tuple(
    {"B": 1, "L": length, "D": channels, "N": states, **known}
    for known in (OF_MODELS, COARSE, *ADDITIVE)
    for length in (8, 9)
    for channels in (16, 32)
    for states in (16, 17)
)
# Fewer and more steps and states than a program of the kernel for all targets has.
TILED = tuple(
    {"B": 1, "L": length, "D": 1, "N": states, **known}
    for known in (OF_MODELS, COARSE)
    for length in (3, 5)
    for states in (4, 5)
)

PLANS = {
    "decay_modulate_backward": Plan(
        SELECTIVE,
        SLOWEST | {"s_n": SHIFTS},
        extremes=modulation_extremes,
        edges=modulation_edges,
        large=SELECTIVE_LARGE,
    ),
    "selective_scan_backward": Plan(
        SELECTIVE,
        formats("selective_scan_backward"),
        extremes=selective_extremes,
        edges=lambda: scan_edges("selective_scan_backward", SELECTIVE_EDGES[0]),
        large=(*SELECTIVE_LARGE, *SELECTIVE_WHOLE, *TILED),
    ),
    "ssd_scan_backward": Plan(
        SSD,
        formats("ssd_scan_backward"),
        extremes=ssd_extremes,
        edges=lambda: scan_edges("ssd_scan_backward", SSD_EDGES[0]),
        large=(*SSD_LARGE, *map(of_heads, TILED)),
    ),
}
