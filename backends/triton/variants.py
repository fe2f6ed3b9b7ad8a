"""Launches that a kernel's tables choose for large arrays alone, forced at any size so that the suite runs them too."""

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch

from . import (
    few_rows,
    hopper_limbs,
    hopper_product,
    hopper_requant,
    hopper_weight,
    linear_backward,
    norm_backward,
    scan,
    ssd_chunk,
    ternary_product,
)

SCANS = "selective_scan", "ssd_scan"
PRODUCTS = "ternary_linear", "ternary_linear_requant", "ternary_linear_backward"
BACKWARD = "ternary_linear_backward", "ternary_linear_backward_weight"
MANY_ROWS: dict[ModuleType, dict[str, Any]] = {
    ternary_product: {"TILES": (), "FEWEST_ON_HOPPER": 1},
    hopper_requant: {"FEWEST_STEPS": 0, "FEWEST_ROWS": 1},
}


def two(_: torch.device) -> int:
    """Return so few programs that each has several tiles or rows."""
    return 2


# The ops that each variant changes, and what it sets in which modules.
VARIANTS: dict[str, tuple[tuple[str, ...], dict[ModuleType, dict[str, Any]]]] = {
    "largest scan tiles": (SCANS, {scan: {"PROGRAMS": 0}}),
    "few lanes": (SCANS, {scan: {"LANES": 8, "SLICES": (1, 4)}}),
    "segments of chunks": (
        ("ssd_chunk_scan",),
        {ssd_chunk: {"FEWEST_WALKS": 1 << 30, "FEW_CHUNKS": 0, "SEGMENT": 2}},
    ),
    "many heads per program": (("ssd_chunk_scan",), {ssd_chunk: {"FEWEST_PROGRAMS": 0}}),
    "few rows of many columns": (PRODUCTS[:2], {few_rows: {"PROGRAMS": 2}}),
    "tiles of many rows": (PRODUCTS, MANY_ROWS),
    "dealt weights": (
        ("ternary_linear",),
        {**MANY_ROWS, hopper_product: {"MOST_UNDEALT": 0, "processors": two, "TILES": hopper_product.TILES[:1]}},
    ),
    "large tiles of one group": (
        ("ternary_linear",),
        {**MANY_ROWS, hopper_product: {"processors": two, "TILES": hopper_product.TILES[1:2]}},
    ),
    "float units": (PRODUCTS, {ternary_product: {"FLOAT_UNITS": True}}),
    "two programs": (
        (*BACKWARD, "bitshift_norm_backward"),
        {
            linear_backward: {"processors": two},
            norm_backward: {"processors": two, "PROGRAMS_OF_PROCESSOR": 1},
            hopper_limbs: {"processors": two},
            hopper_weight: {"processors": two},
        },
    ),
    "large tiles": (BACKWARD, {linear_backward: {"SMALL_TILE": linear_backward.LARGE_TILE}}),
}


def variants(op: str) -> tuple[str, ...]:
    """Return the names of the launches that small arrays of an op don't have by themselves."""
    return tuple(name for name, (changed, _) in VARIANTS.items() if op in changed)


@contextlib.contextmanager
def variant(name: str) -> Iterator[None]:
    """Launch kernels inside the block, for arrays of any size, as a variant says."""
    _, changes = VARIANTS[name]
    usual = {module: {key: vars(module)[key] for key in changed} for module, changed in changes.items()}
    try:
        for module, changed in changes.items():
            vars(module).update(changed)
        yield
    finally:
        for module, values in usual.items():
            vars(module).update(values)
