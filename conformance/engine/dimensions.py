"""The dimensions of an op, read from its contract: their names, their ranges, and the sizes at which kernels turn."""

from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace

import numpy as np

from mamba_integer.spec.contract import Packed, Parameter, Tensor, find_op
from mamba_integer.spec.tensors import bound_text

ROWS = "..."  # the number of rows that leading dimensions make
ODD = (2, 3, 5, 4, 7)
TILES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
# The last leaves several places past the first 2**16, of which one may be right by luck.
FAR = (4097, 16385, 65601)
# Multiples of tiles that are no power of two.
BETWEEN = (48, 96, 192, 320, 640, 960, 1000)
# After many whole tiles, one element, and multiples of a vector of 4 or 8 alone.
LEFT_LATE = (961, 1001, 1028, 1032)
PACKS = 64  # bytes: whole vectors of packed digits, after which every number of digits may be left over
LEFT = (66, 67, 70, 71, 73, 74, 75, 76, 77, 78, 85)  # each number of elements that vectors of up to 16 leave over


def units(shape: str) -> Iterator[str]:
    """Yield the sizes that a shape is made of: K of "K/4", P of "2*P", m of "2^m"."""
    for name in shape.split():
        for divided in name.split("/")[:1]:
            unit = divided.split("*")[-1].split("^")[-1]
            if not unit.isdigit():
                yield unit


@cache
def dimensions(op: str) -> tuple[str, ...]:
    """Return the names of an op's sizes, each once; "..." for its rows."""
    contract = find_op(op)
    tensors = (*contract.inputs, *contract.outputs)
    return tuple(dict.fromkeys(unit for tensor in tensors for unit in units(tensor.shape)))


@cache
def exponents(op: str) -> frozenset[str]:
    """Return the dimensions that are powers of two, by the names of their exponents."""
    contract = find_op(op)
    names = [name for tensor in contract.inputs for name in tensor.shape.split()]
    return frozenset(name.split("/")[0].removeprefix("2^") for name in names if "^" in name)


def chunk_exponents(op: str) -> frozenset[str]:
    """Return the exponents of an op's sizes; a gradient has those of the op that it belongs to as parameters."""
    forward = find_op(op).backward_of
    return exponents(op) | (exponents(forward) if forward else frozenset())


@cache
def packed(op: str) -> dict[str, int]:
    """Return the dimensions along which a byte holds several digits, and how many it holds."""
    contract = find_op(op)
    tensors = [tensor for tensor in (*contract.inputs, *contract.outputs) if isinstance(tensor, Packed)]
    return {tensor.packed: int(tensor.shape.rpartition("/")[2]) for tensor in tensors}


def allowed(op: str, dimension: str) -> tuple[int, int]:
    """Return the least and the greatest size of a dimension that the contract allows."""
    contract = find_op(op)
    for parameter in contract.parameters:
        if parameter.name == dimension:
            interval = parameter.range(SimpleNamespace())
            return interval.low, interval.high
    return contract.sizes.get(dimension, (0, 1 << 31))


def small(op: str, options: tuple[int, ...]) -> dict[str, int]:
    """Return small sizes, taken from the options in turn; four times as many where a byte holds four digits."""
    sizes = {}
    for i, name in enumerate(dimensions(op)):
        size = options[i % len(options)]
        if name in exponents(op):
            size = 1 + i % 2
        elif name in packed(op):
            size = 4 * size + options[0] % 2
        low, high = allowed(op, name)
        sizes[name] = min(max(low, size), high)
    return sizes


def vectors(op: str, size: int) -> dict[str, int]:
    """Return sizes at which each last axis of an input is a multiple of ``size`` bytes or digits, where they may be.

    An axis that is the only one of an input, and the rows of others, is as many bytes: as many digits would be rows.
    """
    inputs = find_op(op).inputs
    leading = {names[0] for names in (tensor.shape.split() for tensor in inputs) if len(names) > 1}
    chosen: dict[str, int] = {}
    for tensor in inputs:
        last = tensor.shape.split()[-1:]
        for name in sorted(set(units(" ".join(last))) - exponents(op) - {ROWS}):
            low, high = allowed(op, name)
            if tensor.shape in leading:
                elements = size // np.dtype(tensor.dtypes[0]).itemsize
            else:
                elements = size * int(last[0].partition("/")[2] or 1)
            chosen[name] = min(max(low, elements, chosen.get(name, 0)), high)
    return chosen


def few(op: str) -> dict[str, int]:
    """Return small sizes, but rows enough that no result is alive by luck."""
    sizes = small(op, ODD)
    return sizes | {ROWS: 4 * sizes[ROWS]} if ROWS in sizes else sizes


def turning(op: str, dimension: str) -> list[int]:
    """Return the sizes of a dimension at and beside which a kernel may go another way, in rising order."""
    low, high = allowed(op, dimension)
    if dimension in exponents(op):
        return list(range(low, high + 1))
    sizes = {0, *BETWEEN, *LEFT, *LEFT_LATE, *FAR, *(tile + beside for tile in TILES for beside in (-1, 0, 1)), high}
    digits = packed(op).get(dimension, 1)
    sizes |= {PACKS * digits + left for left in range(1, digits)}
    return sorted(size for size in sizes if low <= size <= high)


def axis_of(tensor: Tensor, dimension: str) -> int | None:
    """Return the axis of a dimension in a tensor, counted from its last."""
    names = tensor.shape.split()
    for i, name in enumerate(names):
        if dimension in units(name):
            return i - len(names)
    return None


def is_below(tensor: Tensor, size: str) -> bool:
    """Tell whether a tensor holds numbers of places, of which there are as many as a formula says."""
    return tensor.high is not None and bound_text(tensor.high) == f"{size} - 1"


def settings(op: str) -> list[Parameter]:
    """Return the parameters that are no sizes."""
    return [parameter for parameter in find_op(op).parameters if parameter.name not in dimensions(op)]
