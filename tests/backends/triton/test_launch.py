"""Kernels are launched on dense inputs, over grids that every size of the domain fits."""

from contextlib import suppress
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mamba_integer import spec
from mamba_integer.backends import BackendError, UnsupportedError, load
from mamba_integer.backends.triton.launch import (
    MOST_PROGRAMS,
    CompiledKernel,
    aligned,
    dense,
    launch,
    launch_compiled,
    words,
)
from mamba_integer.backends.triton.primitives import saturate_kernel
from mamba_integer.conformance.engine.cases import draw_case
from mamba_integer.conformance.plans import PLANS
from mamba_integer.spec.contract import DomainError, trusted_values

# Of one dimension, the others being small: the longest of them that the op allows.
LENGTHS = ((1 << 28) + 1, (1 << 23) + 1, (1 << 20) + 1, 70_000)
SHORT_AXIS = 65_535


def extreme_call(op, name, small):
    """Return a call on tensors without memory, dimension ``name`` the longest that the op allows."""
    contract = spec.OPS[op]
    highest = contract.sizes.get(name, (0, LENGTHS[0]))[1]
    for length in sorted({min(highest, length) for length in LENGTHS}, reverse=True):
        case = draw_case(op, Random(0), small | {name: length})
        arrays = [torch.empty(case.shape(t), dtype=getattr(torch, t.dtypes[0]), device="meta") for t in contract.inputs]
        try:
            contract.check(arrays, case.parameters)
        except DomainError:
            continue
        return arrays, case.parameters
    raise AssertionError(f"{op}: no length of {name} is allowed")


@pytest.mark.parametrize("op", spec.OPS)
def test_grids_hold_every_size(op, monkeypatch):
    grids = []

    def note(kernel, *arguments, grid, **constants):
        grids.append((kernel.__name__, grid))

    monkeypatch.setattr(type(saturate_kernel), "run", note)
    small = {name: min(n for n in plan if n > 0) for name, plan in PLANS[op].sizes.items()}
    rows = {"...": 1} if any("..." in tensor.shape for tensor in spec.OPS[op].inputs) else {}
    backend = load("triton", "meta")
    with trusted_values():
        for name in small | rows:
            with suppress(UnsupportedError):  # the Torch version would take over
                backend.call(op, *extreme_call(op, name, small | rows))
    assert grids
    for kernel, (programs, *short) in grids:
        assert 0 < programs <= MOST_PROGRAMS, kernel
        assert all(axis <= SHORT_AXIS for axis in short), kernel


def test_more_programs_than_a_grid_holds_are_refused():
    with pytest.raises(BackendError, match=f"saturate_kernel: {MOST_PROGRAMS + 1} programs, at most {MOST_PROGRAMS}"):
        launch(saturate_kernel, MOST_PROGRAMS + 1, (), ())


class SearchedKernel:
    """A kernel that notes how often Triton's search for a compiled one was asked."""

    arg_names = ("y", "x", "size", "WIDTH", "BLOCK")
    params = tuple(SimpleNamespace(name=name, default=64) for name in arg_names)

    def __init__(self):
        self.searches, self.launched = 0, []

    def __getitem__(self, grid):
        def search(*arguments, **constants):
            self.searches += 1
            return FoundKernel(self.launched)

        return search


class FoundKernel(CompiledKernel):
    module = None

    def __init__(self, launched):
        self.launched = launched

    def __getitem__(self, grid):
        return lambda *arguments: self.launched.append((grid, arguments))


def test_a_kernel_is_searched_once_for_each_specialisation():
    kernel, flat = SearchedKernel(), torch.zeros(64, dtype=torch.int32)
    x = flat[(-flat.data_ptr() // 4) % 4 :]  # starts where the widest load may
    usual = (0, (x, x, 32), {"WIDTH": 8, "num_warps": 4})
    described = [SimpleNamespace(base=x, block_shape=[size], layout="swizzled") for size in (32, 64)]
    others = [
        (1, *usual[1:]),
        *((0, (x, tile, 32), usual[2]) for tile in described),
        (0, (x, x[1:], 32), usual[2]),
        (0, (x, x.short(), 32), usual[2]),
        (0, (x, None, 32), usual[2]),
        (0, (x, x, 1), usual[2]),
        (0, (x, x, 33), usual[2]),
        (0, (x, x, 1 << 31), usual[2]),
        (0, (x, x, 1 << 63), usual[2]),
        (0, usual[1], {"WIDTH": 16, "num_warps": 4}),
        (0, usual[1], {"WIDTH": 8, "num_warps": 8}),
        (0, usual[1], {"WIDTH": 8, "num_warps": 4, "BLOCK": 32}),
    ]
    for searches, call in enumerate((usual, *others), start=1):
        launch_compiled(kernel, 5, *call)
        assert (kernel.searches, kernel.launched) == (searches, [])
    launch_compiled(kernel, 7, 0, (x, x[4:], 48), usual[2])
    launch_compiled(kernel, 5, *others[-1])
    assert kernel.searches == len(others) + 1
    (grid, (_, second, size, *constants)), (_, (*_, width, block)) = kernel.launched
    assert (grid, second.data_ptr(), size, constants) == ((7, 1, 1), x[4:].data_ptr(), 48, [8, 64])
    assert (width, block) == (8, 32)


def test_dense_inputs_are_not_copied():
    array = torch.arange(24).reshape(4, 6)
    assert dense(array)[0].data_ptr() == array.data_ptr()
    assert dense(array[1:3])[0].data_ptr() == array[1:].data_ptr()
    assert dense(array[:, 1:3], array.t())[1].is_contiguous()


VIEWS = pytest.mark.parametrize(
    "view",
    [
        lambda flat: flat[:8].view(2, 4),
        lambda flat: flat[1:9].view(2, 4),
        lambda flat: flat.view(4, 8)[1:2, :4],
        lambda flat: flat.view(4, 8)[:1, 3:7],
        lambda flat: flat[:30].view(2, 15)[:1, :4],
        lambda flat: flat.view(4, 8).t()[:3],
        lambda flat: flat[:0].view(0, 4),
    ],
    ids=["dense", "shifted", "one row", "one row, shifted", "one row of odd ones", "transposed", "empty"],
)


@VIEWS
def test_bytes_are_read_as_words(view):
    array = view(torch.arange(32, dtype=torch.int8))
    assert words(array).tolist() == [int.from_bytes(bytes(row), "little") for row in array.tolist()]


@VIEWS
def test_aligned_arrays_can_be_viewed_as_words(view):
    array = view(torch.arange(32, dtype=torch.int8))
    assert aligned(array).view(torch.int32).tolist() == words(array).view(-1, 1).tolist()


def test_many_arrays_at_once_are_one_after_the_other():
    backend, random = load("triton"), np.random.default_rng(0)
    sizes = ((5, "int16"), (0, "int32"), (9000, "int16"), (70, "int64"), (3, "int8"))
    arrays = [backend.load(random.integers(-100, 100, size).astype(dtype)) for size, dtype in sizes]
    arrays += [arrays[2][1:77], arrays[2].reshape(90, 100)[:, 3:9]]
    want = [int(backend.ops.largest_magnitude(array)) for array in arrays]
    assert backend.ops.largest_magnitudes(arrays).tolist() == want
