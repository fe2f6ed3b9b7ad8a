"""NumPy on integers of a circuit, which stands for the golden code's ``np`` in a symbolic run."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mamba_integer.spec.bounds import DTYPE_RANGE, Interval

from . import rules
from .constraints import BranchError, CircuitError, Integer, Number, add, multiply, narrowed, scale, subtract, total

ELEMENTWISE: dict[Any, Callable[..., Number]] = {
    np.add: add,
    np.subtract: subtract,
    np.multiply: multiply,
    np.negative: lambda x: scale(x, -1),
    np.left_shift: rules.left_shift,
    np.right_shift: rules.right_shift,
    np.floor_divide: rules.floor_divide,
    np.bitwise_and: rules.bitwise_and,
    np.bitwise_or: rules.bitwise_or,
    np.bitwise_xor: rules.bitwise_xor,
    np.absolute: rules.absolute,
    np.minimum: rules.minimum,
    np.maximum: rules.maximum,
    np.greater: rules.greater,
    np.greater_equal: rules.greater_equal,
    np.less: rules.less,
    np.less_equal: rules.less_equal,
    np.equal: rules.equal,
    np.not_equal: rules.not_equal,
    np.sign: rules.sign,
}


class Wires(np.ndarray):
    """An array whose elements are integers of a circuit, or numbers that every input leaves the same."""

    def __array_ufunc__(self, ufunc, method, *arrays, **options):
        if ufunc is np.matmul and method == "__call__":
            return matrix_product(*map(wires, arrays))
        if ufunc not in ELEMENTWISE:
            raise CircuitError(f"circuit: found NumPy's {ufunc.__name__}, which has no constraints yet")
        rule = ELEMENTWISE[ufunc]
        if method == "reduce":
            return reduced(rule, wires(arrays[0]), options.get("axis"), options.get("keepdims", False))
        if method == "accumulate":
            return accumulated(rule, wires(arrays[0]), options.get("axis", 0))
        if method != "__call__":
            raise CircuitError(f"circuit: found {ufunc.__name__}.{method}, which has no constraints yet")
        return wires(np.frompyfunc(rule, ufunc.nin, 1)(*(np.asarray(wires(array)) for array in arrays)))

    def __getitem__(self, index: Any) -> "Wires":
        parts = index if isinstance(index, tuple) else (index,)
        return wires(super().__getitem__(tuple(map(places, parts))))

    def astype(self, dtype: Any, *_: Any, **__: Any) -> "Wires":
        """Return the same integers: a contract proves that they fit the narrower dtype."""
        bounds = DTYPE_RANGE[str(np.dtype(dtype))]
        return wires(np.frompyfunc(lambda x: narrowed(x, bounds), 1, 1)(np.asarray(self)))


def wires(array: Any) -> Wires:
    """Return an array as Wires; its numbers become Python's, which are unbounded."""
    if isinstance(array, Wires):
        return array
    if isinstance(array, Integer | int):
        result = np.empty((), object)
        result[()] = array
        return result.view(Wires)
    array = np.asarray(array)
    if array.dtype == object:
        return array.view(Wires)
    whole = np.empty(array.shape, object)
    whole[...] = array.astype(object) if array.dtype != bool else array.astype(np.int8).astype(object)
    return whole.view(Wires)


def places(index: Any) -> Any:
    """Return an index; one that depends on an input decides which element is meant, as a branch does."""
    if not isinstance(index, Wires):
        return index
    symbolic = [x for x in np.asarray(index).ravel() if isinstance(x, Integer)]
    if symbolic:
        raise BranchError({wire: factor for x in symbolic for wire, factor in x.terms.items()})
    return np.asarray(index).astype(np.int64)


def reduced(rule: Any, array: Wires, axis: int | tuple[int, ...] | None, keepdims: bool) -> Wires:
    """Fold an array along one axis or more; a sum of nothing is 0."""
    axes = range(array.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    folded = sorted(a % array.ndim for a in axes)
    kept = [a for a in range(array.ndim) if a not in folded]
    length = math.prod(array.shape[a] for a in folded)
    rows = np.asarray(array).transpose(kept + folded).reshape(*(array.shape[a] for a in kept), length)
    result = np.empty(rows.shape[:-1], object)
    for index in np.ndindex(result.shape):
        result[index] = total(rows[index]) if rule is add else functools.reduce(rule, rows[index])
    if keepdims:
        result = result.reshape([1 if a in folded else size for a, size in enumerate(array.shape)])
    return result.view(Wires)


def accumulated(rule: Any, array: Wires, axis: int) -> Wires:
    """Fold an array along an axis, and keep the result of each step."""
    result = np.moveaxis(np.array(array, object, copy=True), axis, 0)
    for i in range(1, len(result)):
        result[i] = np.frompyfunc(rule, 2, 1)(result[i - 1], result[i])
    return wires(np.moveaxis(result, 0, axis))


def matrix_product(a: Wires, b: Wires) -> Wires:
    if b.ndim == 1:
        return (a * b).sum(axis=-1)
    return wires((a[..., :, None, :] * np.swapaxes(b, -1, -2)[..., None, :, :]).sum(axis=-1))


class SymbolicNumPy:
    """NumPy, but for the functions that make arrays or choose elements: theirs hold integers of a circuit."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def zeros(shape: Any, dtype: Any = None) -> Wires:
        return wires(np.zeros(shape, np.int8))

    empty = zeros  # each element is written before it is read

    @staticmethod
    def zeros_like(array: Any) -> Wires:
        return wires(np.zeros(np.shape(array), np.int8))

    empty_like = zeros_like

    @staticmethod
    def ones_like(array: Any) -> Wires:
        return wires(np.ones(np.shape(array), np.int8))

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Wires:
        choose = np.frompyfunc(rules.where, 3, 1)
        return wires(choose(*(np.asarray(wires(x)) for x in (condition, a, b))))

    @staticmethod
    def clip(array: Any, low: Any, high: Any) -> Wires:
        return wires(np.minimum(np.maximum(wires(array), low), high))

    @staticmethod
    def abs(array: Any) -> Wires:
        return wires(np.absolute(wires(array)))

    @staticmethod
    def broadcast_to(array: Any, shape: tuple[int, ...]) -> Wires:
        return wires(np.broadcast_to(np.asarray(wires(array)), shape))

    @staticmethod
    def concatenate(arrays: Any, axis: int = 0) -> Wires:
        return wires(np.concatenate([np.asarray(wires(array)) for array in arrays], axis))

    @staticmethod
    def stack(arrays: Any, axis: int = 0) -> Wires:
        return wires(np.stack([np.asarray(wires(array)) for array in arrays], axis))

    @staticmethod
    def choose(index: Any, options: Any) -> Wires:
        pick = np.frompyfunc(rules.choose, 1 + len(options), 1)
        return wires(pick(*(np.asarray(wires(x)) for x in (index, *options))))

    @staticmethod
    def take_along_axis(array: Any, index: Any, axis: int) -> Wires:
        return wires(np.take_along_axis(np.asarray(wires(array)), places(index), axis))

    @staticmethod
    def einsum(subscripts: str, a: Any, b: Any) -> Wires:
        """Multiply and add as `np.einsum` does, for two operands of which no index is repeated."""
        inputs, output = subscripts.split("->")
        names = inputs.split(",")
        summed = "".join(sorted(set("".join(names)) - set(output)))
        order = output + summed
        aligned = []
        for array, axes in zip((a, b), names, strict=True):
            present = [axes.index(name) for name in order if name in axes]
            index = tuple(slice(None) if name in axes else None for name in order)
            aligned.append(wires(np.asarray(wires(array)).transpose(present)[index]))
        product = aligned[0] * aligned[1]
        for _ in summed:
            product = product.sum(axis=-1)
        return wires(product)


def bounded(array: Wires, bounds: Interval) -> Wires:
    """Return the array with the range that a contract proves for its elements."""
    return wires(np.frompyfunc(lambda x: narrowed(x, bounds), 1, 1)(np.asarray(array)))
