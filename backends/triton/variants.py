"""Launches that a kernel's tables choose for large arrays alone, forced at any size so that the suite runs them too."""

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from . import linear_backward, scan, ssd_chunk, ternary_product

SCANS = "selective_scan", "ssd_scan"
PRODUCTS = "ternary_linear", "ternary_linear_requant", "ternary_linear_backward"
BACKWARD = "ternary_linear_backward", "ternary_linear_backward_weight"
# The ops that each variant changes, and what it sets in which module.
VARIANTS: dict[str, tuple[tuple[str, ...], ModuleType, dict[str, Any]]] = {
    "largest scan tiles": (SCANS, scan, {"PROGRAMS": 0}),
    "few lanes": (SCANS, scan, {"LANES": 8, "SLICES": (1, 4)}),
    "outputs after states": (("ssd_chunk_scan",), ssd_chunk, {"FEWEST_WALKS": 1 << 30, "FEW_CHUNKS": 0}),
    "tiles of many rows": (PRODUCTS, ternary_product, {"TILES": ()}),
    "float units": (PRODUCTS, ternary_product, {"FLOAT_UNITS": True}),
    "large tiles": (BACKWARD, linear_backward, {"SMALL_TILE": linear_backward.LARGE_TILE}),
}


def variants(op: str) -> tuple[str, ...]:
    """Return the names of the launches that small arrays of an op don't have by themselves."""
    return tuple(name for name, (changed, _, _) in VARIANTS.items() if op in changed)


@contextlib.contextmanager
def variant(name: str) -> Iterator[None]:
    """Launch kernels inside the block, for arrays of any size, as a variant says."""
    _, module, changes = VARIANTS[name]
    usual = {key: vars(module)[key] for key in changes}
    vars(module).update(changes)
    try:
        yield
    finally:
        vars(module).update(usual)
