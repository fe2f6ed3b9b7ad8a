"""A failing call made small: cut to the row that fails, its integers moved toward zero."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from mamba_integer.spec import DomainError
from mamba_integer.spec.contract import PackedTernary, Tensor, find_op

from ..engine.vector import Vector

Fails = Callable[[Vector], bool]
MOST_TRIED = 400  # calls
CODE_BITS = 2  # of a ternary digit
MANY = 256  # integers of a call that are too many to be read
ELEMENTS = 24  # inputs of so many integers are also tried integer by integer


def shrink(vector: Vector, fails: Fails, deadline: float, trail: list[Vector] | None = None) -> Vector:
    """Return the smallest call found before the deadline for which ``fails`` is true; it is so for the first.

    The failing calls on the way to it are added to ``trail``.
    """
    tried, progress = 0, True
    while progress:
        progress = False
        for smaller in attempts(vector):
            if tried == MOST_TRIED or time.monotonic() > deadline:
                return vector
            if allowed(smaller):
                tried += 1
                if fails(smaller):
                    vector, progress = smaller, True
                    if trail is not None:
                        trail.append(smaller)
                    break
    return vector


def allowed(vector: Vector) -> bool:
    try:
        find_op(vector.op).check(vector.arrays, vector.parameters)
    except DomainError:
        return False
    return all(result.size for result in vector.results)


def attempts(vector: Vector) -> Iterator[Vector]:
    """Yield smaller calls, those that leave out most first."""
    yield from cuts(vector)
    for i, array in enumerate(vector.arrays):
        for simpler in simpler_arrays(array):
            yield with_array(vector, i, simpler)
    for name, value in vector.parameters.items():
        for simpler_value in dict.fromkeys((0, 1, value // 2)):
            if abs(simpler_value) < abs(value):
                yield replace(vector, parameters=dict(vector.parameters) | {name: simpler_value})
    if sum(array.size for array in vector.arrays) > MANY:
        yield from louder(vector)


def louder(vector: Vector) -> Iterator[Vector]:
    """Yield cuts with one input's integers large: few large integers may fail as many small ones do."""
    for smaller in cuts(vector):
        for i, array in enumerate(smaller.arrays):
            if array.dtype.kind == "i" and array.dtype.itemsize < 4:
                most = np.iinfo(array.dtype).max
                for magnitude in (most, most // 2 + 1, most // 3, most // 5):
                    yield with_array(smaller, i, np.sign(array) * array.dtype.type(magnitude))


def with_array(vector: Vector, i: int, array: np.ndarray) -> Vector:
    return Vector(vector.op, (*vector.arrays[:i], array, *vector.arrays[i + 1 :]), vector.parameters)


def simpler_arrays(array: np.ndarray) -> Iterator[np.ndarray]:
    if not array.any():
        return
    yield np.zeros_like(array)
    if (array != 1).any():
        yield np.ones_like(array)
    if np.abs(array.astype(np.int64)).max() > 1:
        yield (np.sign(array) * (np.abs(array.astype(np.int64)) // 2)).astype(array.dtype)
    if array.size <= ELEMENTS:
        for place in np.ndindex(array.shape):
            value = int(array[place])
            step = 1 if value > 0 else -1
            # A mistake may be one of even integers alone, so an even half and a step of two are tried too.
            for simpler in dict.fromkeys((0, 1, value // 2, value // 4 * 2, value - step, value - 2 * step)):
                if abs(simpler) < abs(value):
                    other = array.copy()
                    other[place] = simpler
                    yield other


def cuts(vector: Vector) -> Iterator[Vector]:
    """Yield calls with less of one dimension: one element, else either half."""
    contract = find_op(vector.op)
    sizes = dimensions(contract.inputs, vector.arrays)
    for name, size in sizes.items():
        if size < 2 or name in vector.parameters:
            continue
        half = size // 2
        singles = (slice(i, i + 1) for i in (range(size) if size <= 8 else (0, half, size - 1)))
        for part in (*singles, slice(0, half), slice(half, size), slice(0, size - 1)):
            if (arrays := cut(contract.inputs, vector.arrays, name, part)) is not None:
                yield Vector(vector.op, arrays, vector.parameters)


def axes_of(tensor: Tensor, dimensions: int) -> list[str]:
    """Return the names of a tensor's axes; leading ones have numbers."""
    names = tensor.shape.split()
    leading = dimensions - (len(names) - 1) if "..." in names else 0
    return [f"...{i}" for i in range(leading)] + [name for name in names if name != "..."]


def dimensions(tensors: tuple[Tensor, ...], arrays: tuple[np.ndarray, ...]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for tensor, array in zip(tensors, arrays, strict=True):
        for name, size in zip(axes_of(tensor, array.ndim), array.shape, strict=True):
            if "*" in name:
                factor, name = name.split("*")
                size //= int(factor)
            if name.isalpha() or name.startswith("..."):
                sizes.setdefault(name, size)
    return sizes


def cut(tensors: tuple[Tensor, ...], arrays: tuple[np.ndarray, ...], name: str, part: slice):
    """Return the arrays with a part of one dimension, or None where it can't be cut there."""
    shrunk = []
    for tensor, array in zip(tensors, arrays, strict=True):
        for axis, called in enumerate(axes_of(tensor, array.ndim)):
            taken = part
            if called.startswith(f"{name}/"):
                per_byte = int(called.split("/")[1])
                if part.start % per_byte or (part.stop % per_byte and part.start):
                    return None
                taken = slice(part.start // per_byte, -(-part.stop // per_byte))
            elif called.endswith(f"*{name}"):
                factor = int(called.split("*")[0])
                taken = slice(part.start * factor, part.stop * factor)
            elif called != name:
                if "^" in called and called.endswith(name):
                    return None
                continue
            array = array[(slice(None),) * axis + (taken,)]
            if isinstance(tensor, PackedTernary) and called.startswith(f"{name}/") and part.stop % per_byte:
                array = array.copy()
                array[..., -1] &= (1 << CODE_BITS * (part.stop % per_byte)) - 1  # the codes beyond the end are 0
        shrunk.append(np.ascontiguousarray(array).reshape(array.shape))
    return tuple(shrunk)
