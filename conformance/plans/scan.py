"""Plans of ``spec.ops.scan``."""

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from math import prod
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np

from mamba_integer.spec.contract import find_op
from mamba_integer.spec.ops.scan import scan_widths, state_range
from mamba_integer.spec.philox import random_words

from .plan import BATCH_SIZES, Choice, Extreme, Plan

LENGTHS = (1, 2, 3, 8, 9, 0)
STATES = (1, 2, 4, 5, 16)
SELECTIVE = {"B": BATCH_SIZES, "L": LENGTHS, "D": (1, 2, 5, 33, 0), "N": STATES}
SSD = {"B": BATCH_SIZES, "L": LENGTHS, "H": (1, 2, 3, 0), "P": (1, 2, 5, 11, 0), "S": (1, 2, 4, 17)}
# Past the steps between two states that a backward pass keeps, and past the states and channels of one program.
SELECTIVE_LARGE = (
    {"B": 1, "L": 35, "D": 3, "N": 16},
    {"B": 1, "L": 2, "D": 130, "N": 17},
    {"B": 1, "L": 3, "D": 9, "N": 33},
)
CROWDED = 136  # rows whose programs are more than the processors of a GPU
# Formats that kernels are made for, those of models: states lose whole bytes or not, inputs are exact or rounded.
OF_MODELS = tuple(
    {"k": 15, "n_max": 32767, "convex": 1, "s_v": s_v, "s_h": s_h, "s_y": s_y}
    for s_h, s_y in ((8, 15), (7, 17))
    for s_v in (-8, 2)
)
BEYOND_32_BITS = {"k": 8, "n_max": 200, "convex": 0, "s_v": 0, "s_h": 0, "s_y": 0}
TILES = tuple({"D": channels, "N": states} for channels in (16, 32) for states in (16, 17))
SELECTIVE_OF_MODELS = tuple({"B": 1, "L": 2, **tile, **known} for known in OF_MODELS for tile in TILES)
SELECTIVE_CROWDED = (
    *({"B": CROWDED, "L": 2, **tile, **known} for known in OF_MODELS for tile in TILES),
    *({"B": CROWDED, "L": 1, **tile, **BEYOND_32_BITS} for tile in TILES),
)
SSD_LARGE = (
    {"B": 1, "L": 35, "H": 1, "P": 3, "S": 18},
    {"B": 1, "L": 2, "H": 4, "P": 66, "S": 5},
    {"B": 1, "L": 2, "H": 1, "P": 2, "S": 130},
    {"B": 1, "L": 3, "H": 1, "P": 9, "S": 33},
)
# Each tile of the kernel for all targets, of states that lanes and programs share, beside either sign of the shifts.
TILED = tuple(
    {"B": 1, "L": 2, "D": 1, "N": states, "k": 15, "convex": 1, "s_v": s_v, "s_h": s_h, "s_y": 0}
    for states in (3, 5, 9, 17, 33, 65, 130, 300, 513)
    for s_v, s_h in product((-8, 1), (0, 7))
)
# So many channels that lanes share no states.
TILED_CROWDED = tuple(sizes | {"L": 1, "D": 12288} for sizes in TILED if sizes["N"] == 9)


def of_heads(sizes: dict[str, int]) -> dict[str, int]:
    """Return the sizes of channels and states as those of one head."""
    renamed = {"D": "P", "N": "S"}
    return {"H": 1} | {renamed.get(name, name): size for name, size in sizes.items()}


SLOWEST: dict[str, Choice] = {"k": (15, 8, *range(1, 16)), "n_max": lambda random, at: random.choice(slowest(at.k))}


def slowest(k: int) -> list[int]:
    return sorted({2**k - 1, 2**k - 2, 2 ** (k - 1), 1, 0}, reverse=True)


def least(at: Any, name: str, intermediate: str) -> int:
    """Return the least shift for which an intermediate fits; greater ones fit too."""
    for shift in range(-8 if name == "s_v" else 0, 31):
        setattr(at, name, shift)
        states = at.N if hasattr(at, "N") else getattr(at, "S", 1)
        if scan_widths(at, states)[intermediate].fits:
            return shift
    raise ValueError(f"no {name} lets {intermediate} fit")


def input_shift(random: Random, at: Any) -> int:
    at.s_h = at.s_y = 0
    low = least(at, "s_v", "h")
    return random.choice((low, *range(low, 23)))


def state_shift(random: Random, at: Any) -> int:
    low = least(at, "s_h", "sum")
    return random.choice((low, *range(low, 31)))


FORMATS: dict[str, Choice] = SLOWEST | {
    "convex": (0, 1),
    "s_v": input_shift,
    "s_y": (0, 8, 15, 30, *range(31)),
    "s_h": state_shift,
}


def modulation_extremes() -> Iterator[Extreme]:
    for k in (1, 8, 15):
        base = np.array([[0, 2**k - 1]], np.int16)
        for n_max in slowest(k):
            yield Extreme([(base, np.array([[[-32767], [32767]]], np.int16))], {"k": k, "n_max": n_max})


# k, n_max, s_v (None: the least that fits), s_y, convex
EDGES = (
    (15, 2**15 - 1, None, 0, 0),
    (15, 2**15 - 1, 22, 30, 0),
    (15, 2**14, 7, 8, 0),
    (15, 0, 0, 1, 0),
    (15, 2**15 - 1, 0, 30, 1),
    (15, 2**15 - 1, -8, 8, 1),
    (15, 0, -8, 0, 0),
    (8, 2**8 - 1, 1, 8, 1),
    (1, 1, 1, 0, 0),
    (1, 0, 22, 0, 1),
)


def edge_formats(states: int) -> Iterator[dict[str, int]]:
    for k, n_max, s_v, s_y, convex in EDGES:
        at = SimpleNamespace(k=k, n_max=n_max, s_h=0, s_y=s_y, convex=convex, N=states)
        at.s_v = least(at, "s_v", "h") if s_v is None else s_v
        least(at, "s_h", "sum")
        yield {name: value for name, value in vars(at).items() if name != "N"}


SIGNS = np.array(list(product((-1, 1), repeat=3)))


def step_extremes() -> Iterator[Extreme]:
    """Every sign of x, b and c against every sign of skip, the state at the end that v points to, n at either end."""
    signs = np.vstack([SIGNS, SIGNS])
    x_sign, b_sign, c_sign = signs.T[..., None]
    for parameters in edge_formats(states=2):
        bound, k = state_range(SimpleNamespace(**parameters)), parameters["k"]
        x = np.repeat(x_sign * 32767, 2, axis=1).astype(np.int16)
        mod = np.repeat([-32767, 32767], 16).reshape(16, 2).astype(np.int16)
        b, c = (np.repeat(sign * 127, 2, axis=1).astype(np.int8) for sign in (b_sign, c_sign))
        h = np.where(x_sign * b_sign > 0, bound.high, bound.low)[..., None]
        base = np.full((2, 2), 2**k - 1, np.int16)
        skip = np.array([-32767, 32767], np.int16)
        yield Extreme([(x, mod, base, b, c, skip, np.broadcast_to(h, (16, 2, 2)).astype(np.int32))], parameters)


def ssd_step_extremes() -> Iterator[Extreme]:
    """The same calls, each channel a head of its own, the decay as it is modulated."""
    for extreme in step_extremes():
        ((x, mod, _, b, c, skip, h),) = extreme.calls
        n = np.where(mod > 0, extreme.parameters["n_max"], 0).astype(np.int16)
        yield Extreme([(x[..., None], n, b, c, skip, h[:, :, None])], extreme.parameters)


def with_time(extremes: Callable[[], Iterable[Extreme]], timed: tuple[int, ...]):
    """Return the extremes of a step as sequences of one step; the arrays at ``timed`` have an axis of time."""

    def sequences() -> Iterator[Extreme]:
        for extreme in extremes():
            calls = [tuple(a[:, None] if i in timed else a for i, a in enumerate(call)) for call in extreme.calls]
            yield Extreme(calls, extreme.parameters)

    return sequences


def varied(
    op: str, sizes: dict[str, int], parameters: dict[str, int], limits: dict[str, int]
) -> tuple[np.ndarray, ...]:
    """Return inputs of an op, each uniform within its limit and its range."""
    at, arrays = SimpleNamespace(**sizes, **parameters), []
    for stream, tensor in enumerate(find_op(op).inputs):
        allowed, limit = tensor.range(at), limits[tensor.name]
        low, high = max(allowed.low, -limit), min(allowed.high, limit)
        shape = [sizes[name] for name in tensor.shape.split()]
        words = random_words(1, stream, prod(shape)).astype(np.int64)
        arrays.append((low + words % (high - low + 1)).reshape(shape).astype(tensor.dtypes[0]))
    return tuple(arrays)


# Small values and shifts, so that ties, remainders of either sign and clamped decays are frequent.
SMALL = {"x": 100, "mod": 16, "base": 15, "n": 15, "b": 7, "c": 7, "skip": 20, "h": 300}
SMALL_FORMATS = (
    {"k": 4, "n_max": 14, "s_v": 3, "s_h": 2, "s_y": 5, "convex": 0},
    {"k": 4, "n_max": 15, "s_v": 2, "s_h": 1, "s_y": 0, "convex": 1},
)
WIDE_FORMAT = {"k": 1, "n_max": 1, "s_v": -7, "s_h": 0, "s_y": 20, "convex": 0}
# Of 2**20, in halves: small ones, some beyond a float32 and int32, and the ends of the result.
WIDE_HALVES = np.array([0, 1, 2, 3, 5, 40, 41, 4097, 4099, 65533, 65534, 65535, 65536, 65537]) << 19


def wide_totals(op: str, sizes: dict[str, int]) -> Extreme:
    """Return a step whose sums are those halves and their neighbours: half a state times 127, and an input's rest."""
    total = (np.concatenate([WIDE_HALVES, -WIDE_HALVES])[:, None] + np.array([-1, 0, 1])).ravel()
    sizes = {name: size or total.size for name, size in sizes.items()}
    values = {"x": total % 127, "h": 2 * (total // 127), "mod": 1, "base": 1, "n": 1, "b": 0, "c": 127, "skip": 1}
    arrays = []
    for tensor in find_op(op).inputs:
        shape = [sizes[name] for name in tensor.shape.split()]
        value = np.asarray(values[tensor.name])
        arrays.append((value.reshape(shape) if value.ndim else np.full(shape, value)).astype(tensor.dtypes[0]))
    return Extreme([tuple(arrays)], WIDE_FORMAT, "outputs about ties whose sums no float32 and no int32 holds")


def many_states(op: str, sizes: dict[str, int]) -> Extreme:
    """Return a sequence whose states' low halves of 16 bits, times c, add up past int32 among 300 states."""
    sizes = {name: {"L": 2, "N": 300, "S": 300}.get(name, 1) for name in sizes}
    values = {"x": 32767, "b": 2, "c": 127}
    parameters = {"k": 15, "n_max": 0, "s_v": 0, "s_h": 0, "s_y": 17, "convex": 0}
    arrays = tuple(
        np.full([sizes[name] for name in tensor.shape.split()], values.get(tensor.name, 0), tensor.dtypes[0])
        for tensor in find_op(op).inputs
    )
    return Extreme([arrays], parameters, "the halves of 300 states' words, whose sum no int32 holds")


def scan_edges(op: str, sizes: dict[str, int], wide: dict[str, int]) -> Iterator[Extreme]:
    """Small values that meet every tie, in sequences past a tile, shorter and empty; sums that no float32 holds."""
    lengths: tuple[tuple[dict[str, int], ...], ...] = (({}, {"L": 0}), ({"L": 19},)) if "L" in sizes else (({},), ({},))
    for parameters, shorter in zip(SMALL_FORMATS, lengths, strict=True):
        calls = [varied(op, sizes | length, parameters, SMALL) for length in shorter]
        yield Extreme(calls, parameters, "small values at which every rounding meets ties")
    yield wide_totals(op, wide)
    yield many_states(op, sizes)
    yield from sums(op, sizes)


def sums(op: str, sizes: dict[str, int]) -> Iterator[Extreme]:
    """States that are fewer and more than one program's, with sums and outputs of both widths, for a step and a few."""
    wide = {"k": 8, "n_max": 200, "s_v": 0, "s_h": 0, "s_y": 22, "convex": 0}
    limits = {"x": 32767, "mod": 200, "base": 200, "n": 200, "b": 127, "c": 127, "skip": 32767, "h": 1 << 27}
    narrow = SMALL_FORMATS[0] | {"s_h": 12, "s_y": 1}
    for parameters, values in ((narrow, SMALL | {"h": 60000}), (wide, limits), (wide | {"s_y": 0}, SMALL)):
        shapes = [
            {name: {"L": length, "N": states, "S": states}.get(name, 1) for name in sizes}
            for states in (3, 8, 9, 16, 17)
            for length in ((1, 9) if "L" in sizes else (1,))
        ]
        calls = [varied(op, shape, parameters, values) for shape in shapes]
        yield Extreme(calls, parameters, "numbers of states about those of one program")
    if "L" in sizes:
        far = wide | {"s_y": 0}
        calls = [varied(op, sizes | {"B": 1, "L": 9} | tile, far, limits) for tile in tiles_of(sizes)]
        yield Extreme(calls, far, "whole tiles of channels, whose results are far beyond 32 bits")


def tiles_of(sizes: dict[str, int]) -> list[dict[str, int]]:
    """Return one and two tiles of sixteen channels, or columns of a head, with one tile of states and more."""
    channels, states = ("D", "N") if "D" in sizes else ("P", "S")
    return [{channels: count, states: held} for count in (16, 32) for held in (16, 17)]


def modulation_edges() -> Iterator[Extreme]:
    """Sums about both ends of the decay, the one that n_max is and the one that k allows."""
    parameters, sizes = {"k": 8, "n_max": 200}, {"B": 2, "L": 5, "D": 3, "N": 5}
    call = varied("decay_modulate", sizes, parameters, {"base": 255, "mod": 260})
    yield Extreme([call], parameters, "decays about zero, about n_max and about 2**k")


def without_time(sizes):
    return {name: size for name, size in sizes.items() if name != "L"}


# Time is None where an op has none; the number of sums stands where the size is 0.
SELECTIVE_EDGES = {"B": 2, "L": 67, "D": 3, "N": 3}, {"B": 1, "L": 1, "D": 0, "N": 1}
SSD_EDGES = {"B": 2, "L": 67, "H": 2, "P": 3, "S": 3}, {"B": 1, "L": 1, "H": 1, "P": 0, "S": 1}


def edges_of(op: str, sizes: tuple[dict[str, int], dict[str, int]]) -> Callable[[], Iterable[Extreme]]:
    if op.endswith("_step"):
        sizes = without_time(sizes[0]) | {"B": 23}, without_time(sizes[1])
    return lambda: scan_edges(op, *sizes)


PLANS = {
    "decay_modulate": Plan(
        SELECTIVE, SLOWEST, extremes=modulation_extremes, edges=modulation_edges, large=SELECTIVE_LARGE
    ),
    "selective_scan": Plan(
        SELECTIVE,
        FORMATS,
        extremes=with_time(step_extremes, (0, 1, 3, 4)),
        edges=edges_of("selective_scan", SELECTIVE_EDGES),
        large=(*SELECTIVE_LARGE, *SELECTIVE_OF_MODELS, *TILED),
        crowded=(*SELECTIVE_CROWDED, *TILED_CROWDED),
    ),
    "selective_scan_step": Plan(
        without_time(SELECTIVE),
        FORMATS,
        extremes=step_extremes,
        edges=edges_of("selective_scan_step", SELECTIVE_EDGES),
        large=tuple(map(without_time, SELECTIVE_LARGE)),
    ),
    "ssd_scan": Plan(
        SSD,
        FORMATS,
        extremes=with_time(ssd_step_extremes, (0, 1, 2, 3)),
        edges=edges_of("ssd_scan", SSD_EDGES),
        large=(*SSD_LARGE, *map(of_heads, TILED)),
        crowded=tuple(map(of_heads, TILED_CROWDED)),
    ),
    "ssd_scan_step": Plan(
        without_time(SSD),
        FORMATS,
        extremes=ssd_step_extremes,
        edges=edges_of("ssd_scan_step", SSD_EDGES),
        large=tuple(map(without_time, SSD_LARGE)),
    ),
}
