"""Every op of every backend reads inputs of any layout, writes to none, and returns fresh memory."""

from dataclasses import replace
from itertools import combinations
from random import Random

import numpy as np
import pytest
import torch

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.conformance.engine.cases import draw_case
from mamba_integer.conformance.plans import PLANS
from mamba_integer.spec.contract import Constant, DomainError

BACKENDS = ("golden", "numba", "torch", "triton")


def small_case(op, seed):
    """Return a case of uniform values whose sizes are the plan's smallest from 2 on, where it has such."""
    sizes = {name: min((n for n in plan if n >= 2), default=max(plan)) for name, plan in PLANS[op].sizes.items()}
    leading = {"...": 3} if any("..." in tensor.shape for tensor in spec.OPS[op].inputs) else {}
    case = draw_case(op, Random(seed), sizes | leading)
    return replace(case, patterns=("uniform",) * len(case.patterns))


def results_of(backend, op, arrays, parameters):
    return [backend.store(result) for result in backend.call(op, arrays, parameters)]


# A view is described by the array that it is cut from, and how.


def part_of_rows(array):
    wider = np.full((*array.shape[:-1], array.shape[-1] + 3), 99, array.dtype)
    return wider, (slice(None),) * (array.ndim - 1) + (slice(2, -1),)


def part_of_columns(array):
    axis = max(array.ndim - 2, 0)
    longer = np.full([n + 3 * (i == axis) for i, n in enumerate(array.shape)], 99, array.dtype)
    return longer, (slice(None),) * axis + (slice(1, -2),)


def every_second(array):
    return np.full((*array.shape[:-1], 2 * array.shape[-1]), 99, array.dtype), (..., slice(None, None, 2))


def axes_reversed(array):
    return np.empty(array.shape[::-1], array.dtype), None


def behind_one_element(array):
    return np.empty(array.size + 1, array.dtype), None


def view_of(array, layout, device=None):
    """Return a view of the array's values in that layout: NumPy's or, for a device, Torch's."""
    base, cut = layout(array)
    base = base if device is None else torch.from_numpy(base).to(device)
    if layout is axes_reversed:
        view = base.transpose() if device is None else base.permute(*reversed(range(array.ndim)))
    elif layout is behind_one_element:
        view = base[1:].reshape(array.shape)
    else:
        view = base[cut]
    view[...] = array if device is None else torch.from_numpy(array.copy()).to(device)
    return view


LAYOUTS = (part_of_rows, part_of_columns, every_second, axes_reversed, behind_one_element)


@pytest.mark.parametrize("op", spec.OPS)
@pytest.mark.parametrize("name", BACKENDS)
def test_inputs_of_any_layout_give_the_same_integers(name, op):
    backend, case = load(name), small_case(op, 0)
    device = backend.device if hasattr(backend.ops, "from_numpy") else None

    def check(arrays, want, text):
        got = results_of(backend, op, arrays, case.parameters)
        for wanted, result in zip(want, got, strict=True):
            assert np.array_equal(result, wanted), text

    want = load("golden").call(op, case.arrays, case.parameters)
    for turn in range(len(LAYOUTS)):
        layouts = [LAYOUTS[(turn + i) % len(LAYOUTS)] for i in range(len(case.arrays))]
        views = [view_of(array, layout, device) for array, layout in zip(case.arrays, layouts, strict=True)]
        check(views, want, [layout.__name__ for layout in layouts])
    if device is None:
        check([np.flip(np.flip(array).copy()) for array in case.arrays], want, "negative strides")

    repeated = [
        array if isinstance(tensor, Constant) or array.ndim < 2 else np.broadcast_to(array[:1], array.shape)
        for tensor, array in zip(spec.OPS[op].inputs, case.arrays, strict=True)
    ]
    want = load("golden").call(op, [array.copy() for array in repeated], case.parameters)
    if device is None:
        check(repeated, want, "strides of 0")
    else:
        expanded = [backend.load(array[:1] if 0 in array.strides else array) for array in repeated]
        check([a.expand(b.shape) for a, b in zip(expanded, repeated, strict=True)], want, "strides of 0")


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_numpy_views_of_any_layout_are_loaded(name):
    backend, array = load(name), np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for view in (array[:, ::-1], array[::-1, :, ::-2], array.T, array[:, 1:2], np.broadcast_to(array, (5, 2, 3, 4))):
        loaded = backend.load(view)
        assert np.array_equal(backend.store(loaded), view)
        loaded += 1
    assert array[0, 0, 0] == 0
    assert backend.store(backend.load(np.array(7, np.int32))).shape == ()


def span(array):
    """Return the first address of an array's elements and the first behind them."""
    if isinstance(array, torch.Tensor):
        start, size, strides = (
            array.data_ptr(),
            array.element_size(),
            [n * array.element_size() for n in array.stride()],
        )
    else:
        start, size, strides = array.ctypes.data, array.itemsize, array.strides
    reach = [(n - 1) * stride for n, stride in zip(array.shape, strides, strict=True)]
    return start + sum(min(r, 0) for r in reach), start + sum(max(r, 0) for r in reach) + size


def overlap(a, b):
    if 0 in a.shape or 0 in b.shape:
        return False
    (first_a, last_a), (first_b, last_b) = span(a), span(b)
    return first_a < last_b and first_b < last_a


def plain_parameters(op, case):
    """Return the case's parameters with 0 for each that may be 0: a shift by nothing tempts to return the input."""
    parameters = dict(case.parameters)
    for name in parameters:
        try:
            spec.OPS[op].check(case.arrays, parameters | {name: 0})
        except DomainError:
            continue
        parameters[name] = 0
    return parameters


def empty_cases(op):
    """Return arrays of each size 0 that the op takes."""
    case = small_case(op, 0)
    for name in [*case.sizes, *(["..."] if case.leading else [])]:
        try:
            cut = draw_case(op, Random(0), case.sizes | {"...": 3} | {name: 0})
            spec.OPS[op].check(cut.arrays, cut.parameters)
        except (DomainError, ValueError, KeyError, IndexError, ZeroDivisionError):
            continue
        yield cut.arrays, cut.parameters


@pytest.mark.parametrize("op", spec.OPS)
@pytest.mark.parametrize("name", BACKENDS)
def test_results_are_fresh(name, op):
    backend, case, other = load(name), small_case(op, 0), small_case(op, 1)
    calls = [(case.arrays, plain_parameters(op, case)), *empty_cases(op)]
    for arrays, parameters in calls:
        loaded = [backend.load(array.copy()) for array in arrays]
        results = backend.call(op, loaded, parameters)
        for result in results:
            assert not any(overlap(result, array) for array in loaded)
            if isinstance(result, torch.Tensor):  # a part of a larger tensor isn't what a fake result says
                assert result.untyped_storage().nbytes() == result.nbytes
        assert not any(overlap(a, b) for a, b in combinations(results, 2))
        before = [backend.store(result).copy() for result in results]
        for wanted, result in zip(load("golden").call(op, arrays, parameters), before, strict=True):
            assert np.array_equal(wanted, result)
        backend.call(op, [backend.load(array) for array in other.arrays], other.parameters)
        for result, kept in zip(results, before, strict=True):
            assert np.array_equal(backend.store(result), kept)
        for array, now in zip(arrays, loaded, strict=True):
            assert np.array_equal(backend.store(now), array)
