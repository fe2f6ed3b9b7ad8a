"""Products of small matrices are exact with the machine's own instruction and without it, at the ends of types."""

from types import SimpleNamespace

import numpy as np
import pytest
from numba import njit

from mamba_integer.spec.compiled import products
from mamba_integer.spec.compiled.products import (
    LANES,
    ROWS,
    multiply_bytes,
    multiply_pairs,
    paired,
    round_lanes,
    sum_digits,
)

DEPTH = 3


def numbers(dtype, shape):
    """Return numbers of a type, its ends among them."""
    ends = np.iinfo(dtype)
    drawn = np.random.default_rng(0).integers(ends.min, ends.max, shape, dtype, endpoint=True)
    drawn[..., :2] = ends.min, ends.max
    return drawn


def multiplied(multiply, rows, panel):
    """Return the block of rows (ROWS, DEPTH, parts) and a panel (DEPTH, LANES, parts)."""
    block = np.empty((ROWS, LANES), np.int32)
    kernel = njit(lambda block, rows, panel: multiply(block, rows, panel))
    kernel(block, *(np.ascontiguousarray(a).view(np.int32)[..., 0] for a in (rows, panel)))
    return block


@pytest.mark.parametrize("known", [True, False])
def test_products_of_bytes(known, monkeypatch):
    present = products.has_byte_instruction
    monkeypatch.setattr(products, "has_byte_instruction", lambda context: known and present(context))
    rows, panel = numbers(np.uint8, (ROWS, DEPTH, 4)), numbers(np.int8, (DEPTH, LANES, 4))
    want = np.einsum("rdi,dli->rl", rows.astype(np.int64), panel.astype(np.int64))
    assert np.array_equal(multiplied(multiply_bytes, rows, panel), want)


@pytest.mark.parametrize("features", ["", "+avx512f,-avx512vnni", "+avx512f,+avx512vnni", "-sse4a,+avx512vnni,+xsave"])
def test_the_instruction_is_taken_where_the_processor_has_it(features):
    """Other code would end the process there, or be slow: on one processor no result tells which was chosen."""
    context = SimpleNamespace(codegen=lambda: SimpleNamespace(magic_tuple=lambda: ("", "", features)))
    known = "+avx512vnni" in features
    assert products.add_of_bytes(context) is (products.add_bytes_at_once if known else products.add_bytes)


def test_products_of_pairs():
    rows, panel = numbers(np.int16, (ROWS, DEPTH, 2)), numbers(np.int16, (DEPTH, LANES, 2))
    want = np.einsum("rdi,dli->rl", rows.astype(np.int64), panel.astype(np.int64))
    assert np.array_equal(multiplied(multiply_pairs, rows, panel), want.astype(np.int32))


def test_columns_become_panels_of_pairs_of_rows():
    x = numbers(np.int16, (5, LANES + 3))
    panels = paired(x).view(np.int16).reshape(2, 3, LANES, 2)
    padded = np.zeros((6, 2 * LANES), np.int16)
    padded[:5, : LANES + 3] = x
    assert np.array_equal(panels.transpose(1, 3, 0, 2).reshape(padded.shape), padded)


@pytest.mark.parametrize("known", [True, False])
def test_sums_of_digits(known, monkeypatch):
    """Of rows that lie apart and don't begin with the first, with codes that no digit has among them."""
    present = products.has_byte_instruction
    monkeypatch.setattr(products, "has_byte_instruction", lambda context: known and present(context))
    codes, values = numbers(np.uint8, (1 + ROWS, 8 * LANES + 5)), numbers(np.int8, (4, 8 * LANES))
    block, kernel = np.empty(ROWS, np.int32), njit(lambda block, codes, values: sum_digits(block, codes, 1, values))
    kernel(block, codes, values)
    digits = np.stack([((codes[1:, : 8 * LANES].astype(np.int64) >> 2 * i) & 3) ^ 2 for i in range(4)])
    assert block.tolist() == np.einsum("irj,ij->r", digits, values.astype(np.int64)).tolist()


WORDS, DIGITS = ((ROWS, LANES), (ROWS, DEPTH), (DEPTH, LANES)), ((ROWS,), (1 + ROWS, 4 * LANES), (4, 4 * LANES))
# A function, the dtypes and the least shapes of its arrays, and which of them, along which axis, may be no shorter.
CHECKED = {
    "pairs": (lambda *a: multiply_pairs(*a), ("int32",) * 3, WORDS, ("00", "01", "10", "11", "21")),
    "bytes": (lambda *a: multiply_bytes(*a), ("int32",) * 3, WORDS, ("00", "01", "10", "11", "21")),
    "digits": (
        lambda block, codes, values: sum_digits(block, codes, 1, values),
        ("int32", "uint8", "int8"),
        DIGITS,
        ("00", "10", "11", "20"),
    ),
    "rounding": (
        lambda y, block, excess: round_lanes(y, 1, 3, block, 2, excess, 1, 0, 0),
        ("int16", "int32", "int32"),
        ((2, 3 + LANES), (3, LANES), (LANES,)),
        ("00", "01", "10", "11", "20"),
    ),
    "a column before the first": (
        lambda y, column, block, excess: round_lanes(y, 0, column[0], block, 0, excess, 1, 0, 0),
        ("int16", "int64", "int32", "int32"),
        ((1, LANES), (1,), (1, LANES), (LANES,)),
        (),
    ),
}


@pytest.mark.parametrize("name", CHECKED)
def test_an_array_that_is_too_short_is_found_where_bounds_are_checked(name):
    """``make mutation`` compiles kernels so: Numba checks no pointer that a function of ours is handed."""
    function, dtypes, shapes, ends = CHECKED[name]
    kernel = njit(function, boundscheck=True)
    arrays = [np.zeros(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    kernel(*arrays)
    for end in ends:
        argument, axis = map(int, end)
        short = [np.delete(array, -1, axis) if i == argument else array for i, array in enumerate(arrays)]
        with pytest.raises(IndexError):
            kernel(*short)
    if not ends:
        arrays[1][0] = -1
        with pytest.raises(IndexError):
            kernel(*arrays)
