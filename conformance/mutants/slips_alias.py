"""Slips where two inputs are one array, or views of one storage that overlap."""

from math import prod
from typing import Any

import numpy as np

from .slip import Array, Change, slip, uniform
from .slips_layout import CONV, SELECTIVE, SSD

ONE_ROW = {"leading": (), "D": 9, "b": 0, "e": 0}
SHORT = CONV | {"L": 3, "s": 0}


def start(array: Array) -> int:
    return array.ctypes.data


def are_one(call: Any, one: str, other: str) -> bool:
    first, second = getattr(call, one), getattr(call, other)
    return first.size > 2 and (start(first), first.shape) == (start(second), second.shape)


def overlap(call: Any, one: str, other: str) -> bool:
    first, second = getattr(call, one), getattr(call, other)
    return start(first) != start(second) and np.shares_memory(first, second)


def as_one(op: str, one: str, other: str, says: str, change: Change, array: Array, at: dict[str, Any]) -> None:
    """List a slip that sees the second input changed where it is one array with the first."""
    names = one, other
    slip(
        f"{op}_{one}_is_{other}",
        op,
        f"{says}, where {one} and {other} are one array",
        when=lambda c: are_one(c, one, other),
        sees={other: change},
        values=QUIET | dict.fromkeys(names, lambda c: array),
        lies=dict.fromkeys(names, lambda array: array),
        at=at,
    )


def numbers(shape: tuple[int, ...], dtype: type, low: int = -7) -> Array:
    return uniform(0, shape, low, 7).astype(dtype)


QUIET = {"mod": lambda c: np.zeros((c.B, c.D), np.int16), "bias": lambda c: np.zeros(c.D, np.int32)}
ENDS = np.array([32767, -32767, 9, -9], np.int16)
STEP = {name: value for name, value in SELECTIVE.items() if name != "L"} | {"B": 3, "D": 3, "N": 3}
SQUARE = {"leading": (2,), "N": 9, "K": 9, "bits": 8}
for op, one, other, says, change, array, at in (
    ("saturate_backward", "dy", "y", "dy is turned", lambda y, c: -y, ENDS, {"leading": (4,), "shift": 0}),
    ("selective_scan", "x", "mod", "x is halved", lambda mod, c: mod >> 1, numbers((2, 5, 3), np.int16), SELECTIVE),
    ("selective_scan_step", "x", "base", "x is halved", lambda base, c: base >> 1, numbers((3, 3), np.int16, 0), STEP),
    ("ternary_linear_backward_weight", "dy", "q", "dy is turned", lambda q, c: -q, numbers((2, 9), np.int8), SQUARE),
    (
        "causal_conv1d",
        "x",
        "state",
        "states move",
        lambda state, c: state[:, ::-1],
        numbers((2, 3, 3), np.int16),
        SHORT,
    ),
    ("bitshift_norm_backward", "gamma", "dy", "gamma doubles", lambda dy, c: dy * 2, numbers((9,), np.int16), ONE_ROW),
):
    as_one(op, one, other, f"{says} in place", change, array, at)


def taken_for_one(op: str, one: str, other: str, shape: tuple[int, ...], at: dict[str, Any], dtype: type) -> None:
    """List a slip that takes views of one storage that overlap for one array."""
    array = numbers((prod(shape) + 1,), dtype)
    slip(
        f"{op}_{one}_overlaps_{other}",
        op,
        f"{one} and {other} are taken for one array where they share memory",
        when=lambda c: overlap(c, one, other),
        sees={other: lambda array, c: getattr(c, one)},
        values={one: lambda c: array[:-1].reshape(shape), other: lambda c: array[1:].reshape(shape)},
        lies=dict.fromkeys((one, other), lambda array: array),
        at=at,
    )


taken_for_one("silu_gate", "x", "z", (9,), {"leading": (9,), "f": 1}, np.int16)
taken_for_one("gradient_add", "a", "b", (9,), {"leading": (9,)}, np.int64)
taken_for_one("ssd_scan", "b", "c", (2, 5, 4), SSD | {"n_max": 200}, np.int8)
taken_for_one("selective_scan", "x", "mod", (2, 5, 3), SELECTIVE, np.int16)
