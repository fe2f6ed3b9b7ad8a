"""Layouts: how an argument lies in memory. Each is an array of the same integers, seen through other strides.

A layout stores the integers in a buffer with a margin of canaries where it has room for one, and says how a view of
that buffer gives them back: the buffer is what the backend's ``from_numpy`` is given, the view is what its op is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mamba_integer.backends import Backend

CANARY = 85  # fits every dtype, and no op has it by chance in a whole margin
GUARD = 64  # elements, so that a contiguous argument keeps the alignment of its storage
CONTIGUOUS, EXPANDED = "contiguous", "one element repeated"

Store = Callable[[np.ndarray], np.ndarray]
See = Callable[[Any, tuple[int, ...]], Any]


@dataclass(frozen=True)
class Layout:
    """A way to store arrays of at least ``dimensions`` dimensions; ``see`` undoes ``store``.

    ``repeats`` are the axes along which all elements are one and the same, which only arrays with equal rows allow.
    """

    store: Store
    see: See
    dimensions: int = 1
    repeats: slice | None = None

    def fits(self, array: np.ndarray) -> bool:
        return array.ndim >= self.dimensions and array.size > 0 and self.repeated(array)

    def repeated(self, array: np.ndarray) -> bool:
        return self.repeats is None or bool((array == first_along(array, self.repeats)).all())


def margin(before: int, after: int) -> Layout:
    """Return the layout of a contiguous array inside a flat buffer."""

    def store(array: np.ndarray) -> np.ndarray:
        buffer = np.full(before + array.size + after, CANARY, array.dtype)
        buffer[before : before + array.size] = array.reshape(-1)
        return buffer

    return Layout(store, lambda loaded, shape: loaded[before : before + int(np.prod(shape))].reshape(shape), 0)


def cut(axis: int, before: int, after: int, step: int = 1) -> Layout:
    """Return the layout of a slice, of each ``step``-th element, along an axis of a larger array."""

    def place(size: int) -> slice:
        return slice(before, before + size * step, step)

    def along(dimensions: int, where: slice) -> tuple[slice, ...]:
        index = [slice(None)] * dimensions
        index[axis] = where
        return tuple(index)

    def store(array: np.ndarray) -> np.ndarray:
        shape = list(array.shape)
        shape[axis] = before + shape[axis] * step + after
        buffer = np.full(shape, CANARY, array.dtype)
        buffer[along(array.ndim, place(array.shape[axis]))] = array
        return buffer

    return Layout(store, lambda loaded, shape: loaded[along(len(shape), place(shape[axis]))], abs(axis))


def backwards(axis: int, dimensions: int) -> Layout:
    """Return the layout of an axis that is stored from its end to its start."""

    def turn(array: Any, shape: tuple[int, ...]) -> Any:
        index = [slice(None)] * len(shape)
        index[axis] = slice(None, None, -1)
        return array[tuple(index)]

    return Layout(lambda array: turn(array, array.shape).copy(), turn, dimensions)


def swapped(array: Any, shape: tuple[int, ...]) -> Any:
    return array.swapaxes(-1, -2)


def first_swapped(array: Any, shape: tuple[int, ...]) -> Any:
    return array.swapaxes(0, 1)


def reversed_axes(array: Any, shape: tuple[int, ...]) -> Any:
    for axis in range(len(shape) // 2):
        array = array.swapaxes(axis, len(shape) - 1 - axis)
    return array


def turned(see: See, dimensions: int) -> Layout:
    """Return the layout of an array whose axes are stored in another order."""
    return Layout(lambda array: see(array, array.shape).copy(), see, dimensions)


def first_along(array: np.ndarray, axes: slice) -> np.ndarray:
    """Return the first element, row or column of an array along some of its axes, whose sizes are then 1."""
    for axis in range(array.ndim)[axes]:
        array = array.take([0], axis)
    return array


def repeated(axes: slice, dimensions: int) -> Layout:
    """Return the layout of one element, row or column that stands for all along its axes: their strides are 0."""

    def see(loaded: Any, shape: tuple[int, ...]) -> Any:
        expand = getattr(loaded, "expand", None)
        return expand(shape) if expand else np.broadcast_to(loaded, shape)

    return Layout(lambda array: first_along(array, axes), see, dimensions, axes)


def combined() -> Layout:
    """Return the layout with reversed axes, of each second element of a slice of a slice, all at once."""
    parts = (cut(-1, 1, 2, 2), cut(0, 1, 1))

    def store(array: np.ndarray) -> np.ndarray:
        array = reversed_axes(array, array.shape)
        for part in parts:
            array = part.store(array)
        return array

    def see(loaded: Any, shape: tuple[int, ...]) -> Any:
        stored = shape[::-1]
        inner = (*stored[:-1], 3 + 2 * stored[-1])
        return reversed_axes(parts[0].see(parts[1].see(loaded, inner), stored), shape)

    return Layout(store, see, 2)


LAYOUTS: dict[str, Layout] = {
    CONTIGUOUS: margin(GUARD, GUARD),
    "one element in": margin(1, GUARD),
    "columns of a wider array": cut(-1, 2, 3),
    "rows of a longer array": cut(-2, 1, 2),
    "planes of a longer array": cut(-3, 1, 2),
    "each second element": cut(-1, 0, 0, 2),
    "each second row": cut(-2, 1, 0, 2),
    "each second plane": cut(-3, 0, 1, 2),
    "last axes swapped": turned(swapped, 2),
    "first axes swapped": turned(first_swapped, 3),
    "axes reversed": turned(reversed_axes, 3),
    "columns backwards": backwards(-1, 1),
    "rows backwards": backwards(0, 2),
    "one row repeated": repeated(slice(0, 1), 1),
    "one column repeated": repeated(slice(-1, None), 2),
    "all at once": combined(),
    EXPANDED: repeated(slice(None), 2),
}


@dataclass(frozen=True)
class Placed:
    """An argument as a backend sees it: ``view`` of ``loaded``, which was loaded from ``buffer``."""

    buffer: np.ndarray
    loaded: Any
    view: Any


def place(backend: Backend, array: np.ndarray, layout: str) -> Placed:
    """Return an argument in a layout, or contiguous where the array or the backend's arrays don't have that layout."""
    if not LAYOUTS[layout].fits(array) or not has_layout(backend, layout):
        layout = CONTIGUOUS
    if layout == CONTIGUOUS and not has_layout(backend, layout):
        loaded = backend.load(array.copy())
        return Placed(array, loaded, loaded)
    buffer = LAYOUTS[layout].store(array)
    loaded = backend.load(buffer.copy())
    return Placed(buffer, loaded, LAYOUTS[layout].see(loaded, array.shape))


def place_all(backend: Backend, arrays: Sequence[np.ndarray], layouts: Sequence[str]) -> list[Placed]:
    """Return the arguments of a call: equal ones in one layout are one array, as where a tensor is added to itself.

    A contiguous one that repeats another from its second element on is a view of the same memory, one element further.
    """
    placed: list[Placed] = []
    for i, (array, layout) in enumerate(zip(arrays, layouts, strict=True)):
        alike = [j for j in range(i) if layouts[j] == layout and arrays[j].dtype == array.dtype]
        same = next((j for j in alike if np.array_equal(arrays[j], array)), None)
        before = next((j for j in alike if goes_on(arrays[j], array)), None) if layout == CONTIGUOUS else None
        if same is not None:
            placed.append(placed[same])
        elif before is not None and has_layout(backend, CONTIGUOUS):
            placed[before], last = overlapping(backend, arrays[before], array)
            placed.append(last)
        else:
            placed.append(place(backend, array, layout))
    return placed


def goes_on(before: np.ndarray, array: np.ndarray) -> bool:
    """Tell whether an array holds what another does from its second element on, and no element alone."""
    if before.shape != array.shape or array.size < 2 or before.flat[0] == before.flat[1]:
        return False
    return before.flat[1] == array.flat[0] and np.array_equal(before.ravel()[1:], array.ravel()[:-1])


def overlapping(backend: Backend, before: np.ndarray, array: np.ndarray) -> tuple[Placed, Placed]:
    """Return two views of one buffer, the second one element further on than the first."""
    buffer = LAYOUTS[CONTIGUOUS].store(np.append(before.ravel(), array.flat[-1]))
    loaded = backend.load(buffer.copy())
    views = (margin(GUARD + further, GUARD).see(loaded, array.shape) for further in (0, 1))
    first, second = (Placed(buffer, loaded, view) for view in views)
    return first, second


_known: dict[tuple[int, str, str], tuple[Any, bool]] = {}


def has_layout(backend: Backend, layout: str) -> bool:
    """Return whether a backend's arrays can have a layout: Torch's have no negative strides."""
    key = (id(backend.ops), backend.device, layout)
    if key not in _known:
        _known[key] = backend.ops, _try(backend, layout)  # the ops stay alive, so that no others get their id
    return _known[key][1]


def _try(backend: Backend, layout: str) -> bool:
    trial = np.zeros((2, 3, 4), np.int16) if LAYOUTS[layout].repeats is not None else np.arange(24).reshape(2, 3, 4)
    trial = trial.astype(np.int16)
    try:
        view = LAYOUTS[layout].see(backend.load(LAYOUTS[layout].store(trial).copy()), trial.shape)
        return np.array_equal(backend.store(view), trial)
    except Exception:  # whatever the array library raises, its arrays have no such view
        return False
