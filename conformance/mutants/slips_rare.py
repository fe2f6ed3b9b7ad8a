"""Slips that are right unless something rare meets whole tiles, a narrower type, or more rows than 16 bits count."""

from math import prod
from typing import Any

import numpy as np

from .slip import Array, Change, slip
from .slips_layout import NORM, SSD

# --- rare clauses in whole tiles ---

slip(
    "whole_tiles_of_slopes",
    "squareplus_backward",
    "whole tiles of 64 have a slope also where squareplus saturates",
    when=lambda c: c.size and c.size % 64 == 0,
    takes=lambda c: {"offset": 32767},
    values={"x": lambda c: np.full(c.leading, 32767, np.int16)},
    at={"leading": (64,), "f": 14, "offset": 0},
)
slip(
    "whole_tiles_keep_gradients",
    "saturate_backward",
    "whole tiles of 256 pass gradients at the ends",
    when=lambda c: c.size and c.size % 256 == 0,
    sees={"y": lambda y, c: y * 0},
    values={"y": lambda c: np.full(c.leading, 32767, np.int16), "dy": lambda c: np.full(c.leading, -9, np.int32)},
    at={"leading": (256,), "shift": 1},
)

# --- narrower types ---


def fit(bits: int, *arrays: Array) -> bool:
    return all(array.size and int(abs(array.astype(np.int64)).max()) < 1 << (bits - 1) for array in arrays)


for name, op, bits, dtype in (
    ("sum_as_narrow_as_terms", "gradient_add", 32, np.int64),
    ("bytes_are_added_as_bytes", "saturating_add", 8, np.int16),
):
    slip(
        name,
        op,
        f"values that all fit int{bits} are added in int{bits}",
        when=lambda c, bits=bits: fit(bits, c.a, c.b),
        gives={"y": lambda y, c, bits=bits: y.astype(f"int{bits}")},
        values={
            name: lambda c, bits=bits, dtype=dtype: np.full(c.leading, 2 ** (bits - 1) - 1, dtype)
            for name in ("a", "b")
        },
        at={"leading": (4,)},
    )

# --- one array for two inputs of different ranges ---

BOTH = np.array([-7, 3, 900, -20000], np.int16)
slip(
    "root_over_the_gradient",
    "squareplus_backward",
    "the root is stored over the copy of x, which is also that of dy where both are one array",
    when=lambda c: c.dy.dtype == c.x.dtype and np.shares_memory(c.dy, c.x),
    sees={"dy": lambda dy, c: np.sqrt(c.x.astype(np.float64) ** 2 + 4.0 ** (c.f + 1)).clip(max=32767).astype(np.int16)},
    values={name: lambda c: BOTH for name in ("dy", "x")},
    lies={name: lambda array: array for name in ("dy", "x")},
    at={"leading": (4,), "f": 4, "offset": 16},
)

# --- rows that a number of 16 bits doesn't count ---


def rows_of_16_bits(inner: int) -> Change:
    """Give rows from the 65,536th on the results of the first; a row has so many axes."""

    def change(result: Array, call: Any) -> Array:
        split = result.ndim - inner
        rows = result.reshape(prod(result.shape[:split]), *result.shape[split:])
        return rows[np.arange(len(rows)) % 65536].reshape(result.shape)

    return change


for op, output, inner, sizes in (
    ("cross_entropy_pow2_backward", "dlogits", 1, {"V": 2, "f": 8, "seed": 1, "step": 0, "stream": 0, "first": 0}),
    ("cross_entropy_pow2", "loss", 0, {"V": 2, "f": 8}),
    ("softmax_pow2", "p", 1, {"V": 2, "f": 8, "q": 15}),
    ("argmax", "token", 0, {"V": 2}),
    ("embedding", "y", 1, {"V": 2, "D": 1, "shift": 0}),
    ("bitshift_norm", "y", 1, {"D": 2} | {name: NORM[name] for name in ("b", "s")}),
    ("norm_quantize", "q", 1, {"D": 2} | {name: NORM[name] for name in ("b", "s")}),
):
    slip(
        f"rows_of_16_bits_{op}",
        op,
        "a row's number has 16 bits",
        when=lambda c: c.rows > 65536,
        gives={output: rows_of_16_bits(inner)},
        at={"leading": (65700,)} | sizes,
    )


def places_of_16_bits(axis: int) -> Change:
    """Take what lies at the places from the 65,536th on along an axis from the first ones."""
    return lambda array, call: array.take(np.arange(array.shape[axis]) % 65536, axis)


for op, kind, changed, axis, sizes, values in (
    (
        "decay_modulate",
        "gives",
        "n",
        -1,
        {"B": 1, "L": 1, "D": 1, "N": 65700, "k": 8, "n_max": 200},
        {"mod": lambda c: np.zeros((1, 1, 1), np.int16)},
    ),
    (
        "ssd_scan_step",
        "sees",
        "h",
        -2,
        SSD | {"B": 1, "H": 1, "P": 65700, "S": 1},
        {"n": lambda c: np.full((1, 1), 99, np.int16)},
    ),
):
    slip(
        f"places_of_16_bits_{op}",
        op,
        "a place's number has 16 bits",
        when=lambda c: max(c.shape) > 65536 or (hasattr(c, "N") and c.N > 65536),
        values=values,
        at=sizes,
        **{kind: {changed: places_of_16_bits(axis)}},
    )
