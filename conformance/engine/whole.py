"""The plan's calls again as whole tiles of rows: a path for them may forget a rare clause."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import prod

import numpy as np

from mamba_integer.spec.contract import LEADING, DomainError, find_op

from ..plans.plan import Extreme

ELEMENTS, ROWS = 1024, 64  # of a tile, where a row is one element, and where it is more
MOST = 1 << 16  # elements of an argument

Call = tuple[np.ndarray, ...]


def whole_tiles(op: str, extremes: Iterable[Extreme], edges: Iterable[Extreme]) -> Iterator[Extreme]:
    """Yield calls with their rows repeated up to whole tiles.

    Calls of single elements are joined where they are alike. Of longer rows the extremes, which are many, are left out.
    """
    shapes = [tensor.shape.split() for tensor in find_op(op).inputs]
    flat = all(names == [LEADING] for names in shapes)
    if not any(names[0] == LEADING for names in shapes):
        return
    for extreme in (*extremes, *edges) if flat else edges:
        calls = joined(extreme.calls) if flat else extreme.calls
        tiled = (repeated(call, shapes, ELEMENTS if flat else ROWS) for call in calls)
        kept = [call for call in tiled if call and in_domain(op, call, extreme)]
        if kept:
            yield replace(extreme, calls=kept, purpose=f"tiles: {extreme.purpose or 'ends of widths'}")


def joined(calls: Iterable[Call]) -> list[Call]:
    """Return one call for all that have arrays of the same types."""
    alike: dict[tuple[np.dtype, ...], list[Call]] = {}
    for call in calls:
        alike.setdefault(tuple(array.dtype for array in call), []).append(call)
    return [
        tuple(np.concatenate([a.reshape(-1) for a in arrays]) for arrays in zip(*group, strict=True))
        for group in alike.values()
    ]


def repeated(call: Call, shapes: list[list[str]], tile: int) -> Call | None:
    """Return a call whose rows are repeated in turn; none without rows, or where it would be large."""
    arrays = []
    for array, names in zip(call, shapes, strict=True):
        if names[0] != LEADING:
            arrays.append(array)
            continue
        split = array.ndim - len(names) + 1
        rows = prod(array.shape[:split])
        wanted = -(-rows // tile) * tile
        shape = (wanted, *array.shape[split:])
        if not rows or prod(shape) > MOST:
            return None
        arrays.append(np.resize(array.reshape(rows, *array.shape[split:]), shape))
    return tuple(arrays)


def in_domain(op: str, call: Call, extreme: Extreme) -> bool:
    try:
        find_op(op).check(call, extreme.parameters)
    except DomainError:
        return False
    return True
