"""Products whose sums must fit: a float below 2**24, int32 times 64, or int32. Longer rows take another way."""

from random import Random

import numpy as np
import pytest
import torch

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.backends.triton import few_rows, linear, linear_backward, ternary_product
from mamba_integer.backends.triton.ternary_product import (
    FLOAT_SUMS,
    add_product,
    exact_in_floats,
    float_units,
    product,
    zero_sums,
)
from mamba_integer.backends.triton.variants import variant
from mamba_integer.conformance.engine.cases import draw_case
from mamba_integer.conformance.plans.linear import FLOAT_END, LONGEST_IN_FLOATS, float_edges

triton, tl = ternary_product.triton, ternary_product.tl  # the backend says first whether it is interpreted
LONGEST = LONGEST_IN_FLOATS
CPU = torch.device("cpu")


def test_the_bound_is_the_contracts():
    assert FLOAT_SUMS == FLOAT_END and LONGEST == 132104
    assert exact_in_floats(LONGEST) and not exact_in_floats(LONGEST + 1)


@pytest.mark.parametrize("depth, taken", [(LONGEST, True), (LONGEST + 1, False)])
def test_float_units_are_refused_beyond_the_bound(depth, taken, monkeypatch):
    assert not float_units(CPU, depth)  # nobody asked
    monkeypatch.setattr(ternary_product, "FLOAT_UNITS", True)
    assert float_units(CPU, depth) is taken
    chosen = []
    monkeypatch.setattr(ternary_product, "launch", lambda *arguments, **constants: chosen.append(constants))
    q, e = torch.zeros((2, depth), dtype=torch.int8), torch.zeros(2, dtype=torch.int32)
    product(q, e, torch.zeros((1, -(-depth // 4)), dtype=torch.uint8), 1, 0)
    assert chosen[-1]["FLOAT"] is taken


@pytest.mark.parametrize("op, most", [("ternary_linear", 32767), ("ternary_linear_requant", 127)])
def test_listed_sums_are_added_in_floats_up_to_the_bound_alone(op, most, deep_tiles, monkeypatch):
    chosen, launch = [], ternary_product.launch

    def watched(*arguments, **constants):
        chosen.append(constants["FLOAT"])
        launch(*arguments, **constants)

    monkeypatch.setattr(ternary_product, "launch", watched)
    backend = load("triton")
    with variant("float units"):
        for edge in float_edges(most):
            (call,) = edge.calls
            got = backend.run(op, call, edge.parameters)
            assert all(map(np.array_equal, got, load("golden").run(op, call, edge.parameters)))
    assert chosen == [True, False, False]


@triton.jit
def sum_kernel(sums_pointer, q_pointer, depth, BLOCK: tl.constexpr, FLOAT: tl.constexpr):
    """Add up a row of int8 in 16 x 16 equal sums."""
    sums = zero_sums(16, 16, FLOAT)
    digits = tl.full([16, BLOCK], 1, tl.int8)
    for start in range(0, depth, BLOCK):
        q = tl.load(q_pointer + start + tl.arange(0, BLOCK)[:, None] + tl.zeros([1, 16], tl.int32))
        sums = add_product(sums, digits, q, FLOAT)
    place = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(sums_pointer + place, sums.to(tl.int32))


def sum_of_row(total: int, in_floats: bool) -> set[int]:
    """Return the sums that the kernels' units make of int8 that add up to ``total``."""
    q = torch.zeros(1 << 18, dtype=torch.int8)
    q[: total // 127], q[total // 127] = 127, total % 127
    backend = load("triton")
    sums = backend.load(np.zeros(256, np.int32))
    sum_kernel[(1,)](sums, backend.load(q.numpy()), q.numel(), BLOCK=1 << 12, FLOAT=in_floats)
    return set(backend.store(sums).tolist())


@pytest.mark.parametrize("in_floats", [True, False])
def test_sums_just_below_the_bound_are_exact(in_floats):
    assert sum_of_row(FLOAT_SUMS - 1, in_floats) == {FLOAT_SUMS - 1}


def test_sums_just_beyond_the_bound_are_rounded_by_the_float_units_alone():
    assert sum_of_row(FLOAT_SUMS + 1, False) == {FLOAT_SUMS + 1}
    assert sum_of_row(FLOAT_SUMS + 1, True) != {FLOAT_SUMS + 1}


@pytest.mark.parametrize("depth", [few_rows.MOST_DEPTH, 270_000])
@pytest.mark.parametrize("digit", [1, -1])
def test_one_row_is_exact_where_raised_sums_fit_and_beyond(depth, digit, deep_tiles):
    q, e = np.full((1, depth), 127, np.int8), np.zeros(1, np.int32)
    w = spec.pack_ternary(np.full((1, depth), digit, np.int8))
    (got,) = load("triton").run("ternary_linear", [q, e, w], {"num": 1, "shift": 11})
    assert got == spec.ternary_linear(q, e, w, num=1, shift=11)


def test_a_sum_of_limbs_would_wrap_beyond_its_bound(deep_tiles, monkeypatch):
    rows = 140_000
    dy, q = np.full((rows, 1), -32767, np.int16), np.full((rows, 1), 127, np.int8)
    sums = []
    for longest in (linear_backward.LONGEST_SUM, 2 * rows):
        monkeypatch.setattr(linear_backward, "LONGEST_SUM", longest)
        (dw,) = load("triton").run("ternary_linear_backward_weight", [dy, q], {"bits": 16})
        sums.append(dw.item())
    assert sums[0] == rows * -32767 * 127 != sums[1]


def test_variants_take_the_float_units():
    case = draw_case("ternary_linear", Random(0), {"K": 37, "N": 5, "...": 3})
    with variant("float units"):
        assert ternary_product.FLOAT_UNITS
        got = load("triton").run(case.op, case.arrays, case.parameters)
    want = load("golden").run(case.op, case.arrays, case.parameters)
    assert all(map(np.array_equal, got, want))


def test_rows_in_panels_are_those_at_once(monkeypatch):
    case = draw_case("ternary_linear_requant", Random(0), {"K": 37, "N": 5, "...": (300,)})
    backend = load("triton")
    whole = backend.run(case.op, case.arrays, case.parameters)
    monkeypatch.setattr(linear, "HELD_BYTES", 1)
    panels = backend.run(case.op, case.arrays, case.parameters)
    assert all(map(np.array_equal, whole, panels))
