"""The plan's edges again at addresses at which no vector starts: the elements before one take a path of their own."""

from math import prod

import numpy as np

from mamba_integer.spec.contract import LEADING, find_op

ONE_IN = "one element in"
AHEAD = 3  # elements of four bytes, of which the fourth starts a vector of 16
TURNS, FEW = 6, 1  # of a call whose rows are elements, and of another
MOST = 1 << 13  # elements of an argument

Call = tuple[np.ndarray, ...]


def turns(op: str, call: Call) -> range:
    """Return by how many rows a call is turned, so that other rows are the first ones; none where it is large."""
    if max(array.size for array in call) > MOST:
        return range(0)
    rows = max((prod(leading(array, names)) for array, names in named(op, call) if names[0] == LEADING), default=1)
    flat = all(names == [LEADING] for _, names in named(op, call))
    return range(0, max(1, rows), max(AHEAD if flat else 1, -(-rows // (TURNS if flat else FEW))))


def turned(op: str, call: Call, by: int) -> Call:
    """Return a call with its first rows last."""
    arrays = []
    for array, names in named(op, call):
        if names[0] == LEADING:
            rows = array.reshape(prod(leading(array, names)), *array.shape[array.ndim - len(names) + 1 :])
            array = np.roll(rows, -by, 0).reshape(array.shape)
        arrays.append(array)
    return tuple(arrays)


def named(op: str, call: Call) -> list[tuple[np.ndarray, list[str]]]:
    """Return each argument beside the names of its axes."""
    return [(array, tensor.shape.split()) for array, tensor in zip(call, find_op(op).inputs, strict=True)]


def leading(array: np.ndarray, names: list[str]) -> tuple[int, ...]:
    """Return the sizes of the axes that a shape calls its leading ones."""
    return array.shape[: array.ndim - len(names) + 1]
