"""Slips of products that are added up in floats: where the bound is too high by one digit, or is the result's alone."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mamba_integer.spec import integers, unpack_ternary
from mamba_integer.spec.ops.linear import quantize_rows

from ..plans.linear import FLOAT_END, LONGEST_IN_FLOATS, float_edges
from .slip import Array, slip


def adding(add: Callable[[Array, Array], Array]) -> Callable[..., Any]:
    """Return a product whose sums are made so of rows and of the digits of columns."""

    def runs(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
        q, e, w = arrays
        sums = add(q, unpack_ternary.golden(w, K=q.shape[-1])).astype(np.int64)
        aligned = sums * parameters["num"] << e[..., None].astype(np.int64)
        y = integers.saturate(integers.shift_round(aligned, parameters["shift"]), 16).astype(np.int16)
        return y if op == "ternary_linear" else quantize_rows.golden(y)

    return runs


def in_float32(q: Array, digits: Array) -> Array:
    return q.astype(np.float32) @ digits.T.astype(np.float32)


def in_23_bits(q: Array, digits: Array) -> Array:
    """Add as `in_float32`, and keep one bit less."""
    sums = in_float32(q, digits)
    return np.where(abs(sums) < FLOAT_END // 2, sums, 2 * np.rint(sums / 2))


def in_turn(q: Array, digits: Array) -> Array:
    """Add one product after another in float32, where it holds their sum."""
    exact = q.astype(np.int64) @ digits.T.astype(np.int64)
    terms = (q[..., None, :] * digits).astype(np.float32)
    return np.where(abs(exact) < FLOAT_END, np.add.accumulate(terms, -1)[..., -1].astype(np.int64), exact)


for op, most in (("ternary_linear", 32767), ("ternary_linear_requant", 127)):
    about, beyond, parts = float_edges(most)
    for name, says, add, when, edge in (
        (
            "sums_of_23_bits",
            "sums have one bit less than float32 has",
            in_23_bits,
            lambda c: c.K <= LONGEST_IN_FLOATS,
            about,
        ),
        (
            "a_digit_too_many",
            "the bound of float32 allows one digit more",
            in_float32,
            lambda c: c.K <= LONGEST_IN_FLOATS + 1,
            beyond,
        ),
        (
            "bound_of_the_sum",
            "float32 adds parts that it rounds, where it holds their sum",
            in_turn,
            lambda c: c.K > LONGEST_IN_FLOATS,
            parts,
        ),
    ):
        q, e, w = edge.calls[0]
        slip(
            f"{name}_{op}",
            op,
            says,
            when=when,
            runs=adding(add),
            values={"q": lambda c, q=q: q, "e": lambda c, e=e: e, "w": lambda c, w=w: w},
            at={"leading": q.shape[:1], "K": q.shape[1], "N": len(w), **edge.parameters},
        )
