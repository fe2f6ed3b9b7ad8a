"""Listed cases decide: results are alive, each input changes them, every layout and pair of ends is there."""

from random import Random

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import Backend, load
from mamba_integer.conformance.engine.cases import draw_case
from mamba_integer.conformance.engine.dimensions import FAR, ROWS, axis_of, dimensions, settings
from mamba_integer.conformance.engine.generated import EVEN, ODD, base, listed_cases, listing_of, plans, points_of
from mamba_integer.conformance.engine.judge import conform_op
from mamba_integer.conformance.engine.layouts import CONTIGUOUS, LAYOUTS, has_layout, place
from mamba_integer.conformance.engine.pairs import ENDS
from mamba_integer.conformance.engine.patterns import NARROW
from mamba_integer.conformance.engine.sensitivity import ALIVE, alive, felt, results_of
from mamba_integer.conformance.presets import PRESETS
from mamba_integer.conformance.report import Result

SMOKE, MINIMAL = PRESETS["smoke"], PRESETS["minimal"]


@pytest.mark.parametrize("op", spec.OPS)
def test_a_tenth_of_each_result_is_alive_and_each_input_is_felt(op):
    for options in (ODD, EVEN):
        case = base(op, options)
        results = results_of(case, case.arrays)
        assert min(alive(case, results)) >= ALIVE
        assert min(felt(case, results)) > 0


@pytest.mark.parametrize("op", spec.OPS)
def test_more_places_than_16_bits_count_are_told_apart(op):
    """One element is its row's own maximum and mean, and rows whose results are all at an end are alike."""
    told = dict[tuple[str, str], bool]()
    for name in dimensions(op):
        long = [
            one
            for one in listing_of(op, MINIMAL.line).plans
            if any(f"{name}={FAR[-1]}" in point for point in one.points)
        ]
        for case in (one.make() for one in long if one.cost <= MINIMAL.cost):
            for tensor, result in zip(spec.OPS[op].outputs, results_of(case, case.arrays), strict=True):
                axis = axis_of(tensor, name)
                if axis is not None and result.shape[axis] == FAR[-1]:  # not that of packed digits
                    differ = result != result.take(np.arange(FAR[-1]) % (1 << 16), axis)
                    told[name, tensor.name] = told.get((name, tensor.name), False) or bool(differ.any())
    assert all(told.values()), told


@pytest.mark.parametrize("op", [op for op in spec.OPS if ROWS in dimensions(op)])
def test_more_rows_than_16_bits_count_are_alive(op):
    (listed,) = [one for one in listing_of(op, SMOKE.line).plans if one.points == (f"size {ROWS}={FAR[-1]}",)]
    case = listed.make()
    assert case and min(alive(case, results_of(case, case.arrays))) >= ALIVE


def test_ops_without_parameters_have_values_of_each_kind():
    listed = {one.points[0]: one.make() for one in plans("gradient_add", SMOKE.line) if one.group == "values"}
    wanted = "small values", "ties values", "extremes values", *(f"all {pattern}" for pattern in NARROW)
    assert all(listed[point] for point in wanted)


EQUAL = "mixed layouts 13", "mixed layouts 15"
# Cases of which a result is nearly all zeros or ends, whatever their integers: the beginning of their points, and why.
STILL = {
    "embedding_backward": {"size V=": "a row of the table that no id names has no gradient"},
    "softmax_pow2": {"size V=": "of many tokens few have more than the last place of a probability"},
    "bitshift_norm": dict.fromkeys(EQUAL, "the elements of a row are equal"),
    "norm_quantize": dict.fromkeys(EQUAL, "the elements of a row are equal"),
    "bitshift_norm_backward": dict.fromkeys(EQUAL, "the elements of a row are equal"),
    "argmax": dict.fromkeys(EQUAL, "the elements of a row are equal"),
    "selective_scan_backward": {"mixed layouts 5": "mod is one negative number, so that n is 0 and gives no gradient"},
    "lion_update": {"leading (1,)": "one vote is an end", "leading ()": "one vote is an end"},
}


@pytest.mark.parametrize("op", spec.OPS)
def test_every_listed_case_is_in_the_domain_and_alive(op):
    """Sizes and layouts keep the parameters alive; at a far place, or at ends of parameters, little can be."""
    dead = []
    for listed, case in listed_cases(op, SMOKE):
        if case is None:
            continue
        spec.OPS[op].check(case.arrays, case.parameters)
        assert case.forms == tuple((array.shape, array.dtype.name) for array in case.arrays)
        judged = listed.group in ("layouts", "sizes", "leading") and all(array.size for array in case.arrays)
        if judged and min(alive(case, results_of(case, case.arrays))) < ALIVE:
            dead.append(listed.points[0])
    reasons = STILL.get(op, {})
    assert [point for point in dead if not point.startswith(tuple(reasons))] == []
    assert all(any(point.startswith(start) for point in dead) for start in reasons), "a reason that no case needs"


@pytest.mark.parametrize("name", ["golden", "torch"])
def test_a_layout_keeps_the_integers_and_hides_them_in_a_margin(name):
    backend = load(name, "cpu")
    for layout in LAYOUTS:
        for shape in ((), (5,), (2, 3), (2, 3, 4), (2, 3, 4, 5)):
            array = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
            array = array if LAYOUTS[layout].repeats is None else np.full_like(array, 7)
            placed = place(backend, array, layout)
            assert np.array_equal(backend.store(placed.view), array) and tuple(placed.view.shape) == shape
            strides = LAYOUTS[layout].fits(array) and has_layout(backend, layout) and array.ndim == 4
            if strides and layout not in (CONTIGUOUS, "one element in"):
                assert not np.asarray(backend.store(placed.view)).flags.c_contiguous, (layout, shape)


def test_a_layout_that_the_arrays_lack_is_counted_as_lacking():
    torch = load("torch", "cpu")
    assert {name for name in LAYOUTS if not has_layout(torch, name)} == {"columns backwards", "rows backwards"}
    assert all(has_layout(Backend("golden", spec), name) for name in LAYOUTS)


@pytest.mark.parametrize("op", spec.OPS)
def test_points_name_every_dimension_argument_and_pair_of_parameters(op):
    points = points_of(op)
    assert len(points) == len(set(points))
    assert all(any(point.startswith(f"size {name}=") for point in points) for name in dimensions(op))
    arrays = [tensor for tensor in spec.OPS[op].inputs if tensor.shape]
    assert all(any(point.startswith(f"{tensor.name}: ") for point in points) for tensor in arrays)
    names = [parameter.name for parameter in settings(op)]
    for name in names:
        assert all(any(f"{name} {end}" in point for point in points) for end in ENDS)


def test_listed_cases_do_not_depend_on_what_ran_before():
    before = [one.make().to_json() for one in plans("ssd_scan", 1)[:5]]
    base.cache_clear()
    draw_case("ssd_scan", Random(1))
    assert [one.make().to_json() for one in plans("ssd_scan", 1)[:5]] == before


@pytest.mark.parametrize("op", ["isqrt", "requantize"])
def test_the_full_preset_hits_every_point(op):
    result = conform_op(Backend("golden", spec), op, "full")
    assert result.status == "passed" and result.points and not result.missed


def test_variants_run_and_are_counted():
    result = conform_op(load("numba"), "isqrt", "smoke")
    assert result.status == "passed" and result.groups["extremes, parallel"] and result.groups["sizes, parallel"]


def test_shares_split_what_is_listed():
    """Several processes take an op's cases, each a part; together they are those of one."""
    golden = Backend("golden", spec)
    whole = conform_op(golden, "isqrt", "smoke")
    total = Result("isqrt", "golden", shares=3)
    for share in range(3):
        total.add(conform_op(golden, "isqrt", "smoke", share=share, shares=3))
    split = {group: total.groups[group] for group in ("extremes", "large", "sizes", "pairs", "far")}
    assert split == {group: whole.groups[group] for group in split} and any(split.values())
    assert total.coverpoints == whole.coverpoints and total.status == "passed"
