"""Plans of ``spec.ops.ssd_chunk``."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from mamba_integer.spec import integers
from mamba_integer.spec.contract import find_op, known_size
from mamba_integer.spec.ops.ssd_chunk import (
    LARGEST_EXPONENT,
    LARGEST_ROW_EXPONENT,
    ONE,
    POWER_BITS,
    carried_bits,
    power,
    row_exponent,
    state_limit,
    weight_bits,
)
from mamba_integer.spec.philox import random_words

from .plan import BATCH_SIZES, Choice, Extreme, Plan

SIZES = {
    "B": BATCH_SIZES,
    "L": (1, 2, 3, 5, 9, 0),
    "H": (1, 2, 0),
    "P": (1, 2, 5, 0),
    "S": (1, 2, 4, 17),
    "q": (2, 3, 5),
}
FORMATS: dict[str, Choice] = {"s_h": (16, 12, *range(12, 17)), "s_y": (0, 8, 11, 24, *range(25))}
# Past the positions, channels and states of one tile, and the longest chunk. Of 131 states the greatest score needs a
# bit more than of 130, and than 126 * 127 * 131 does.
LARGE = (
    {"B": 2, "L": 135, "H": 1, "P": 3, "S": 33, "q": 6},
    {"B": 1, "L": 9, "H": 1, "P": 66, "S": 131, "q": 3},
    {"B": 1, "L": 300, "H": 1, "P": 2, "S": 3, "q": 8},
)
# Each tile of chunks and of states, and rows of many chunks: with states that are cut to two bytes, and not; with short
# sums, and long ones.
TILED = tuple(
    {"B": 1, "L": length, "H": 1, "P": 2, "S": states, "q": q, "s_h": s_h, "s_y": s_y}
    for length, states, q in ((33, 3, 5), (33, 33, 5), (33, 65, 5), (33, 257, 5), (129, 3, 7), (257, 3, 8), (69, 3, 2))
    for s_h, s_y in ((16, 10), (12, 0))
)


def without_time(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: size for name, size in sizes.items() if name != "L"}


def shape_of(shape: str, sizes: Mapping[str, int]) -> list[int]:
    return [known_size(name, SimpleNamespace(**sizes)) for name in shape.split()]


def filled(op: str, sizes: Mapping[str, int], **values: Any) -> tuple[np.ndarray, ...]:
    """Return inputs of an op, each of one value, or of an array that is broadcast; 0 where none is given."""
    return tuple(
        np.broadcast_to(values.get(tensor.name, 0), shape_of(tensor.shape, sizes)).astype(tensor.dtypes[0])
        for tensor in find_op(op).inputs
    )


def varied(op: str, sizes: Mapping[str, int], seed: int = 1, **limits: int) -> tuple[np.ndarray, ...]:
    """Return inputs of an op, each uniform within its range and within the limit that is given for it."""
    at, arrays = SimpleNamespace(**sizes, s_h=16, s_y=0), []
    for stream, tensor in enumerate(find_op(op).inputs):
        allowed = tensor.range(at)
        limit = limits.get(tensor.name.removeprefix("open_"), allowed.high)
        low, high = max(allowed.low, -limit), min(allowed.high, limit)
        shape = shape_of(tensor.shape, sizes)
        words = random_words(seed, stream, prod(shape)).astype(np.int64)
        arrays.append((low + words % (high - low + 1)).reshape(shape).astype(tensor.dtypes[0]))
    return tuple(arrays)


def timed(op: str) -> bool:
    return "L" in find_op(op).inputs[0].shape.split()


# --- extremes ---

Q = 4


def extremes(op: str) -> Iterator[Extreme]:
    """Whole chunks whose exponents are all 0 or the largest, with all signs of x, b, c, skip and h at their ends."""
    whole = timed(op)
    # Outputs in the last are large, and saturate nowhere.
    for s_h, s_y, q in ((16, 0, 2), (12, 0, 2), (14, 24, 2), (16, 9, 3)):
        sizes = {"B": 1, "H": 2, "P": 1, "S": 3, "q": q} | ({"L": 1 << q} if whole else {})
        limit, calls = state_limit(1 << q), []
        for d in (0, LARGEST_EXPONENT):
            values = {"x": 127, "d": d, "b": 127, "c": 127, "skip": 32767, "h": [[[limit]], [[-limit]]]}
            values |= {"open_x": 127, "open_d": d, "open_b": 127, "fill": 0 if whole else (1 << q) - 1}
            calls.append(filled(op, sizes, **values))
            calls.append(filled(op, sizes, **values | {"c": -127, "skip": -32767}))
            # Scores of 127, alone in their rows.
            calls += [filled(op, sizes, **values | {"c": [sign, 0, 0]}) for sign in (1, -1)]
        yield Extreme(calls, {"s_h": s_h, "s_y": s_y})


# --- edges ---


def states_at(op: str, lengths: Iterable[int], **values: Any) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield calls whose rows have every fill, and which end before, at and after a boundary."""
    sizes = {"B": Q, "H": 1, "P": 3, "S": 3, "q": 2}
    for length in lengths if timed(op) else (None,):
        *arrays, fill = varied(op, sizes if length is None else sizes | {"L": length}, **values)
        yield *arrays, np.arange(Q, dtype=fill.dtype)


def output_ties(op: str) -> Iterator[Extreme]:
    """Outputs at and beside ties and where they saturate: of the skip alone, and of the state alone."""
    skip = np.array([1, 3, -1, -3, 2, 63, 64, 65, 32767])
    sizes = {"B": 1, "H": skip.size, "P": 6, "S": 1, "q": 2} | ({"L": 1} if timed(op) else {})
    for s_y in (1, 7):
        call = filled(op, sizes, x=[1, -1, 3, 64, -64, 127], skip=skip)
        yield Extreme([call], {"s_h": 16, "s_y": s_y}, "outputs about ties and both ends, of the skip alone")
    for s_h in (12, 16):
        seen = np.array([-32640, -32639, -32638, -3, -2, -1, 0, 1, 2, 3, 32638, 32639, 32640])
        h = ((seen[:, None] << s_h) + (1 << (s_h - 1)) + np.array([-1, 0, 1])).ravel()
        h = h[np.abs(h) <= state_limit(Q)]
        sizes = {"B": 1, "H": 1, "P": h.size, "S": 1, "q": 2} | ({"L": 1} if timed(op) else {})
        calls = [filled(op, sizes, h=h[:, None], c=c) for c in (1, 2, 127)]
        yield Extreme(calls, {"s_h": s_h, "s_y": 0}, "outputs about ties and both ends, of the state alone")


def row_exponents(op: str) -> Iterator[Extreme]:
    """Rows whose largest magnitude is at and beside those at which the exponent turns, alone and beside smaller ones.

    After the largest exponent a position's weight is 2**(t - 1), so that its product is its score times that.
    """
    scores = np.array([1, 127, 128, 254, 255, 256, 509, 510, 511, 1019, 1020, -127, -128, -254, -255, -256, -510])
    size = np.abs(scores)[:, None] - 127 * np.arange(9)
    b, calls = np.clip(size, 0, 127) * np.sign(scores)[:, None], []
    rows = {"B": 1, "L": scores.size, "q": 5} if timed(op) else {"B": scores.size, "q": 2}
    for d, fill in ((LARGEST_EXPONENT, 0), (ONE, 2)):
        values = {"x": [1, -2, 127], "d": d, "b": b, "c": 1, "open_x": [5, 1, -1], "open_d": 900}
        sizes = rows | {"H": 1, "P": 3, "S": 9}
        calls.append(filled(op, sizes, **values, open_b=[1, -1, 2, 0, 0, 0, 0, 0, 0], fill=fill))
    yield Extreme(calls, {"s_h": 16, "s_y": 0}, "rows whose largest magnitude is about one at which the exponent turns")


def lags(op: str) -> Iterator[Extreme]:
    """Exponents at and beside those that leave nothing of a position, for the row, the state and the weights."""
    d = (np.array([1, 14, 15, 16, 29, 30])[:, None] * ONE + np.array([-1, 0, 1])).ravel()
    d = np.concatenate([d, [LARGEST_EXPONENT - 1, LARGEST_EXPONENT]])
    sizes = {"B": 1, "H": d.size, "P": 2, "S": 2, "q": 2} | ({"L": 2} if timed(op) else {})
    for scale, fill in ((1, 2), (127, 3)):
        values = {"x": [scale, -scale], "d": d, "b": [scale, 0], "c": [-1, 1], "open_x": [scale, -127], "open_d": 3}
        values |= {"open_b": [scale, scale], "h": -(1 << 30) + 1}
        purpose = "decay exponents about those that leave nothing of a position"
        yield Extreme([filled(op, sizes, **values, fill=fill)], {"s_h": 16, "s_y": 0}, purpose)


def forgetting(op: str) -> Iterator[Extreme]:
    """The largest exponent at every place of a chunk, the rows with fractions of their own before it."""
    for *rest, opened, open_b, fill in states_at(op, (6,), x=20, d=900, b=9, c=9, skip=20, h=1 << 20):
        place = np.arange(Q)
        reset = opened.copy()
        reset[place, (3 * place + 1) % Q, 0] = LARGEST_EXPONENT
        calls = [(*rest, reset, open_b, fill)]
        if timed(op):
            d = rest[1].copy()
            d[place, place, 0] = d[place, place + 2, 0] = LARGEST_EXPONENT
            calls.append((rest[0], d, *rest[2:], opened, open_b, fill))
        yield Extreme(calls, {"s_h": 12, "s_y": 0}, "the largest decay exponent at every place of a chunk")


def power_units(op: str) -> Iterator[Extreme]:
    """One position, whose factor has nearly all bits of the power, less a state that leaves a small output.

    So one unit of the power, as one unit of any of its coefficients makes at some fraction, turns some outputs.
    """
    heads, channels, states = 6, 24, 66
    fraction = ONE - 1 - 37 * np.arange(heads)
    x = (30 + np.arange(heads * channels) * 17 % 29).reshape(heads, channels)
    score, weights = 127 * 127 * states, weight_bits(states)
    gain = power(ONE - fraction, POWER_BITS) - (1 << (POWER_BITS - 1))
    length = integers.bit_length(gain)
    mixed = (score * integers.shift_round(gain, length - weights)) >> (POWER_BITS - length)
    e = row_exponent(mixed)
    factor = integers.shift_round(power(fraction, POWER_BITS), LARGEST_ROW_EXPONENT - e)
    inside = x * (integers.shift_round(mixed, e) * factor)[:, None]
    sums = inside // (127 * power(fraction, carried_bits(states, 16)))[:, None]
    seen = sums[..., None] // states + (np.arange(states) < sums[..., None] % states)
    sizes = {"B": 1, "H": heads, "P": channels, "S": states, "q": 2} | ({"L": 1} if timed(op) else {})
    call = filled(op, sizes, x=x, d=fraction, b=127, c=127, h=-(seen << 16))
    yield Extreme([call], {"s_h": 16, "s_y": 0}, "one unit of the power of a decay exponent")


def edges(op: str) -> Iterator[Extreme]:
    yield from output_ties(op)
    yield from power_units(op)
    yield from row_exponents(op)
    yield from lags(op)
    yield from forgetting(op)
    ordinary = {"x": 127, "d": 700, "b": 127, "c": 127, "skip": 3000, "h": 1 << 27}
    small = {"x": 9, "d": 40, "b": 9, "c": 9, "skip": 9, "h": 1 << 19}
    # States that are clamped; slow decays and fast ones.
    for values, s_h, s_y, lengths, purpose in (
        (ordinary, 16, 8, (0, 1, 2, 6), "ordinary values, ending before, at and after a boundary"),
        (small, 12, 0, (6,), "small values, over a boundary"),
        (ordinary | {"d": 9000, "h": 1 << 29}, 12, 11, (6,), "states that fast decays forget, over a boundary"),
        (small | {"d": 1}, 14, 3, (6,), "states that slow decays keep, over a boundary"),
    ):
        yield Extreme(list(states_at(op, lengths, **values)), {"s_h": s_h, "s_y": s_y}, purpose)
    # A chunk that decays to one half, so that an odd state is a tie.
    halves = {"B": 1, "H": 1, "P": 5, "S": 3, "q": 2} | ({"L": Q} if timed(op) else {})
    *arrays, opened, open_b, fill = varied(op, halves, x=127, d=0, b=127, c=127, skip=9, h=1 << 26)
    arrays[1] = np.full_like(arrays[1], ONE // (Q if timed(op) else 1))
    fill = np.full_like(fill, 0 if timed(op) else Q - 1)
    yield Extreme([(*arrays, opened, open_b, fill)], {"s_h": 16, "s_y": 8}, "a chunk that halves its state: ties")
    long = {"B": 1, "L": 150, "H": 1, "P": 3, "S": 5, "q": 6}
    long = long if timed(op) else without_time(long)
    yield Extreme([varied(op, long, **ordinary | {"d": 60})], {"s_h": 16, "s_y": 10}, "chunks of 64 positions")
    yield Extreme(
        [varied(op, long | {"q": 8}, **ordinary | {"d": 9})], {"s_h": 15, "s_y": 11}, "chunks of 256 positions"
    )
    # Without a shift an output is wide, whatever the number of states and the length of a chunk.
    shapes = [{"S": states, "q": q} for states, q in ((33, 2), (129, 2), (257, 2), (3, 7), (3, 8))]
    few = {"B": 1, "H": 1, "P": 2} | ({"L": 2} if timed(op) else {})
    calls = [varied(op, few | shape, x=9, d=40, b=3, c=3, skip=9, h=1 << 19) for shape in shapes]
    yield Extreme(calls, {"s_h": 16, "s_y": 0}, "outputs of 64 bits, for each number of states and length of a chunk")
    # As many states as the domain has: the widest scores, and the weights of fewest bits.
    wide = {"B": 1, "L": 9, "H": 1, "P": 2, "S": 512, "q": 3}
    wide = wide if timed(op) else without_time(wide)
    values = {"d": 3, "b": 127, "open_x": 127, "open_d": 5, "open_b": 127, "h": state_limit(8), "fill": 5}
    calls = [filled(op, wide, **values, x=[127, -127], c=c) for c in (127, -127)]
    yield Extreme(calls, {"s_h": 16, "s_y": 15}, "the most states: the widest scores, and weights of the fewest bits")


PLANS = {
    op: Plan(
        SIZES if timed(op) else without_time(SIZES),
        FORMATS,
        extremes=partial(extremes, op),
        edges=partial(edges, op),
        large=(*LARGE, *TILED) if timed(op) else tuple(map(without_time, LARGE)),
    )
    for op in ("ssd_chunk_scan", "ssd_chunk_scan_step")
}
