"""Launches that a kernel's tables choose for large arrays alone, forced at any size so that the suite runs them too."""

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from . import linear_backward, scan, ternary_product

# What each variant sets in which module, instead of what it is there.
VARIANTS: dict[str, list[tuple[ModuleType, dict[str, Any]]]] = {
    "large launches": [
        (scan, {"PROGRAMS": 0}),
        (ternary_product, {"TILES": ()}),
        (linear_backward, {"SMALL_TILE": linear_backward.LARGE_TILE}),
    ],
    "8 states per lane": [(scan, {"PROGRAMS": 0, "STATES": (8, 4)})],
    "few lanes": [(scan, {"LANES": 8}), (ternary_product, {"FLOAT_UNITS": True})],
}


def variants() -> tuple[str, ...]:
    """Return the names of the launches that small arrays don't have by themselves."""
    return tuple(VARIANTS)


@contextlib.contextmanager
def variant(name: str) -> Iterator[None]:
    """Launch kernels inside the block, for arrays of any size, as a variant says."""
    with contextlib.ExitStack() as stack:
        for module, changes in VARIANTS[name]:
            usual = {key: vars(module)[key] for key in changes}
            stack.callback(vars(module).update, usual)
            vars(module).update(changes)
        yield
