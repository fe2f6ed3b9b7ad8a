"""Known-wrong calls: the right op on inputs that were read wrongly, or its results written wrongly."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from mamba_integer.spec.contract import Op, Packed, PackedTernary, Tensor

Arrays = tuple[np.ndarray, ...]
Change = Callable[[Arrays, dict[str, int]], tuple[Arrays, dict[str, int]]]
After = Callable[[Arrays, Arrays], Arrays]  # of the right results and the inputs
TILES = (2, 4, 8, 16, 32, 64, 128, 256)


def wrong_inputs(op: Op, arrays: Sequence[np.ndarray], parameters: Mapping[str, int]) -> Iterator[tuple[str, Change]]:
    """Yield descriptions of changed inputs and the changes."""
    at = op.check(arrays, parameters)
    for tensor, i in zip(op.inputs, range(len(arrays)), strict=True):
        name, array = tensor.name, arrays[i]
        if isinstance(tensor, PackedTernary):
            yield f"the digits in each byte of {name} are read from the high bits down", only(i, reverse_codes)
            yield f"the nibbles of {name} are swapped", only(i, swap_nibbles)
            yield f"the digits of {name} have their signs swapped", only(i, negate_codes)
            yield f"the digits 1 of {name} are taken as 0", only(i, lambda a: a & (a & 0xAA | (a & 0xAA) >> 1))
            yield f"the digits -1 of {name} are taken as 0", only(i, lambda a: a & ~(a & 0xAA | (a & 0xAA) >> 1))
            size, parts = tensor.shape.split()[-1].split("/")
            if getattr(at, size) % int(parts) and len(array) > 1:
                yield f"the rows of {name} are taken {size} // {parts} bytes apart", only(i, one_byte_closer)
        elif not isinstance(tensor, Packed):
            yield f"{name} is taken as zero", only(i, np.zeros_like)
            yield f"{name} is negated", only(i, np.negative)
            if array.dtype.itemsize > 1:
                yield f"{name} is read with its bytes in reverse", only(i, lambda a: a.byteswap())
            if array.dtype != np.uint8:
                yield f"{name} is read as unsigned", only(i, unsigned)
        for axis, size in enumerate(array.shape):
            dimension = dimension_name(tensor, array.ndim, axis)
            if size > 1:
                yield f"the first of {dimension} in {name} is used for all", only(i, first_for_all(axis))
                yield f"{name} is read one too early along {dimension}", only(i, rolled(axis, 1))
                yield f"{name} is read one too late along {dimension}", only(i, rolled(axis, -1))
            if not isinstance(tensor, Packed):
                for tile in TILES:
                    if size % tile:
                        whole = size - size % tile
                        yield left_out(name, dimension, tile), only(i, cleared(axis, slice(whole, None)))
                for end in (1 << power for power in range(1, 13)):
                    if size > end:
                        beyond = f"{dimension} in {name} beyond the first {end} is left out"
                        yield beyond, only(i, cleared(axis, slice(end, None)))
        if array.ndim > 1 and array.shape[-1] == array.shape[-2] > 1:
            yield f"{name} is transposed", only(i, lambda a: a.swapaxes(-1, -2))
        if array.ndim > 1 and array.shape[-1] > 1 and array.shape[-2] > 1:
            yield f"{name} is read in Fortran order", only(i, fortran)
    for i, j in combinations(range(len(arrays)), 2):
        if arrays[i].shape == arrays[j].shape and arrays[i].dtype == arrays[j].dtype:
            yield f"{op.inputs[i].name} and {op.inputs[j].name} are exchanged", swapped(i, j)
    names = {tensor.name: i for i, tensor in enumerate(op.inputs)}
    if {"lam", "gam", "quadrant"} <= set(names):
        yield "the angle is turned the other way", other_way(names)
    if "quadrant" in names:
        yield "the quarter turns go the other way", only(names["quadrant"], lambda a: (-a) & 3)
        yield "one quarter turn too few is made", only(names["quadrant"], lambda a: np.maximum(a, 1) - 1)
    for name, value in parameters.items():
        if value < 0:
            yield f"{name} is taken without its sign", moved_to(name, -value)
        for fixed in (0, 1):
            if value != fixed:
                yield f"{name} is ignored: it is taken as {fixed}", moved_to(name, fixed)
        for by in (1, -1):
            yield f"{name} is taken as {name} {'+' if by > 0 else '-'} 1", moved_to(name, value + by)
    for one, other in combinations(op.parameters, 2):
        exchanged = {one.name: parameters[other.name], other.name: parameters[one.name]}
        # Beyond its range, a value taken as a shift could ask for more memory than there is.
        if exchanged[one.name] in one.range(at) and exchanged[other.name] in other.range(at):
            yield f"{one.name} and {other.name} are exchanged", together(exchanged)


def wrong_outputs(op: Op, results: Sequence[np.ndarray]) -> Iterator[tuple[str, After]]:
    """Yield descriptions of changed results and the changes."""
    for i, (tensor, result) in enumerate(zip(op.outputs, results, strict=True)):
        name = tensor.name
        if isinstance(tensor, PackedTernary):
            yield f"the digits in each byte of {name} are written from the high bits down", write(i, reverse_codes)
            yield f"the nibbles of {name} are written swapped", write(i, swap_nibbles)
            yield f"the digits of {name} are written with their signs swapped", write(i, negate_codes)
        for j, tensor in enumerate(op.inputs):
            if tensor.name == name:
                yield f"{name} is returned as it came", as_it_came(i, j)
        yield f"{name} is written as zero", write(i, np.zeros_like)
        yield f"{name} is written negated", write(i, np.negative)
        if result.dtype.itemsize > 1:
            yield f"{name} is written with its bytes in reverse", write(i, lambda a: a.byteswap())
        if result.ndim > 1 and result.shape[-1] == result.shape[-2] > 1:
            yield f"{name} is written transposed", write(i, lambda a: a.swapaxes(-1, -2))
        for axis, size in enumerate(result.shape):
            dimension = dimension_name(tensor, result.ndim, axis)
            if size > 1:
                yield f"the first of {dimension} in {name} is written to all", write(i, first_for_all(axis))
                yield f"{name} is written one too late along {dimension}", write(i, rolled(axis, 1))
                yield f"{name} is written one too early along {dimension}", write(i, rolled(axis, -1))
                yield f"{name} is written in reverse along {dimension}", write(i, partial(np.flip, axis=axis))
            for tile in TILES:
                if size % tile:
                    whole = size - size % tile
                    left_out = f"what remains of {dimension} in {name} after blocks of {tile} isn't written"
                    yield left_out, write(i, cleared(axis, slice(whole, None)))
    for i, j in combinations(range(len(results)), 2):
        if results[i].shape == results[j].shape and results[i].dtype == results[j].dtype:
            yield f"the results {op.outputs[i].name} and {op.outputs[j].name} are exchanged", exchange(i, j)


def left_out(name: str, dimension: str, tile: int) -> str:
    return f"what remains of {dimension} in {name} after blocks of {tile} is left out"


def without_blocks(op: Op, arrays: Sequence[np.ndarray]) -> set[str]:
    """Return the mistakes about whole blocks, which a call without a whole block can't show."""
    return {
        left_out(tensor.name, dimension_name(tensor, array.ndim, axis), tile)
        for tensor, array in zip(op.inputs, arrays, strict=True)
        for axis, size in enumerate(array.shape)
        for tile in TILES
        if size < tile
    }


def dimension_name(tensor: Tensor, dimensions: int, axis: int) -> str:
    """Return the contract's name of an axis."""
    names = tensor.shape.split()
    from_end = dimensions - axis
    return names[-from_end] if from_end <= len(names) and names[-from_end] != "..." else f"leading axis {axis}"


def only(i: int, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda arrays, parameters: (write(i, change)(arrays, ()), parameters)


def write(i: int, change: Callable[[np.ndarray], np.ndarray]) -> After:
    return lambda results, arrays: (*results[:i], np.ascontiguousarray(change(results[i])), *results[i + 1 :])


def swapped(i: int, j: int) -> Change:
    return lambda arrays, parameters: (exchange(i, j)(arrays, ()), parameters)


def exchange(i: int, j: int) -> After:
    def after(results: Arrays, arrays: Arrays) -> Arrays:
        order: list[Any] = list(results)
        order[i], order[j] = order[j], order[i]
        return tuple(order)

    return after


def moved_to(name: str, value: int) -> Change:
    return lambda arrays, parameters: (arrays, parameters | {name: value})


def together(values: Mapping[str, int]) -> Change:
    return lambda arrays, parameters: (arrays, parameters | dict(values))


def as_it_came(output: int, source: int) -> After:
    return lambda results, arrays: (*results[:output], arrays[source], *results[output + 1 :])


def other_way(names: Mapping[str, int]) -> Change:
    def change(arrays, parameters):
        turned = list(arrays)
        for name in ("lam", "gam"):
            turned[names[name]] = -arrays[names[name]]
        turned[names["quadrant"]] = (-arrays[names["quadrant"]]) & 3
        return tuple(turned), parameters

    return change


def rolled(axis: int, by: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a shift along an axis, the element at the end taken twice."""

    def change(array):
        index = np.clip(np.arange(array.shape[axis]) - by, 0, array.shape[axis] - 1)
        return np.take(array, index, axis)

    return change


def first_for_all(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.repeat(np.take(array, [0], axis), array.shape[axis], axis)


def cleared(axis: int, part: slice) -> Callable[[np.ndarray], np.ndarray]:
    def change(array):
        array = array.copy()
        array[(slice(None),) * axis + (part,)] = 0
        return array

    return change


def fortran(array: np.ndarray) -> np.ndarray:
    shape = array.shape[-2:]
    return array.reshape(*array.shape[:-2], -1).reshape(*array.shape[:-2], *shape[::-1]).swapaxes(-1, -2)


def one_byte_closer(array: np.ndarray) -> np.ndarray:
    rows, pitch = array.reshape(-1, array.shape[-1]), array.shape[-1] - 1
    places = np.arange(len(rows))[:, None] * pitch + np.arange(array.shape[-1])
    return rows.ravel()[places].reshape(array.shape)


def unsigned(array: np.ndarray) -> np.ndarray:
    """Return the bit patterns as unsigned integers, in a type that holds them."""
    return array.view(f"uint{8 * array.dtype.itemsize}").astype(np.int64)


def reverse_codes(array: np.ndarray) -> np.ndarray:
    return (array & 3) << 6 | (array & 12) << 2 | (array >> 2) & 12 | (array >> 6) & 3


def swap_nibbles(array: np.ndarray) -> np.ndarray:
    return array << 4 | array >> 4


def negate_codes(array: np.ndarray) -> np.ndarray:
    """Turn code 01 into 11 and back: the high bit of each code that isn't 00."""
    return array ^ ((array & 0x55) << 1)
