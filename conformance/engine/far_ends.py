"""Calls that only a GPU has room and time for: sizes past 65,535, and arrays of more than 2**31 elements.

The full preset runs them on CUDA. A long size is compared with the Numba twin, which is first held against the golden
code on all that is listed for the op; the golden code stays the definition. Of many rows, which repeat a few, each must
be the golden result of the row that it repeats.
"""

import json
from collections.abc import Iterator
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from random import Random
from typing import Any

import numpy as np

from mamba_integer.backends import Backend, load
from mamba_integer.spec.contract import BATCH, Tensor, find_op

from ..plans import PLANS
from .calls import Caller, check_case, filled_memory, on_cuda
from .cases import Case, draw_case
from .comparison import Failure, crashes_as_failures
from .dimensions import ROWS, allowed, exponents
from .golden import golden_results
from .listed import listed
from .sensitivity import in_domain

LONG = 70_000  # past the 65,535 programs of a grid's second and third axis
ELEMENTS = (1 << 31) + 1
FEW_ROWS = 3
WORKSPACE = 1.25  # times the bytes that a small call takes for each of its rows
TRIAL = 1 << 24  # elements of the call by which that is measured
PIECE = 1 << 26  # elements that are compared at a time


@dataclass(frozen=True)
class FarCase:
    """An op at one long size; where ``elements`` isn't 0, at so many rows that an array has more elements than that."""

    op: str
    far: str
    size: int = LONG
    elements: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @cached_property
    def case(self) -> Case:
        """The long call itself, or the one whose rows are repeated."""
        plan = PLANS[self.op].sizes
        if self.elements:
            sizes = {name: max(1, sorted(options)[len(options) // 2]) for name, options in plan.items()}
        else:
            sizes = {name: min(option for option in options if option) for name, options in plan.items()}
        sizes |= {ROWS: 1} if row_dimension(self.op) == ROWS else {}
        case = draw_case(self.op, Random(f"{self.op} {self.far}"), sizes | {self.far: self.size})
        return replace(case, patterns=("uniform",) * len(case.patterns), layouts=())

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.case.arrays

    @property
    def parameters(self) -> Any:
        return self.case.parameters

    def check(self, caller: Caller) -> int:
        return check_rows(caller.backend, self) if self.elements else check_long(caller, self)


def row_dimension(op: str) -> str | None:
    """Return the name of the dimension along which an op's rows are independent of each other."""
    names = find_op(op).inputs[0].shape.split()
    return names[0] if names and names[0] in (ROWS, BATCH, "R") else None


def long_cases(op: str) -> Iterator[FarCase]:
    """Yield a call for each dimension, that one long and the others small."""
    for name in dict.fromkeys([*PLANS[op].sizes, *([ROWS] if row_dimension(op) == ROWS else [])]):
        if name not in exponents(op):
            long = FarCase(op, name, min(LONG, allowed(op, name)[1]))
            if in_domain(long.case):
                yield long


def row_cases(op: str, memory: int, backend: Backend | None = None) -> Iterator[FarCase]:
    """Yield a call of so many rows that an array has more than 2**31 elements, or as many as there may be.

    The op's domain may allow fewer, and so may the memory, by what a call on ``backend`` is seen to need. Where a row's
    number draws its random words there is none: rows that repeat have other results.
    """
    rows = row_dimension(op)
    if rows and not find_op(op).row_number:
        few = FarCase(op, rows, FEW_ROWS, ELEMENTS)
        repeated = [array for tensor, array in arrays_of(few) if has_rows(tensor, rows)]
        largest = max(array.size for array in repeated)
        needed = measured(backend, few) if backend and on_cuda(backend) else 0
        times = memory // int(WORKSPACE * (needed or sum(array.nbytes for array in repeated)))
        times = most_times(few, min(times, -(-ELEMENTS // largest)))
        yield replace(few, elements=min(ELEMENTS, times * largest))


def most_times(few: FarCase, times: int) -> int:
    """Halve the number of times that a call's rows are to be repeated until the op's domain allows it."""
    while times > 1 and not times_allowed(few, times):
        times //= 2
    return times


def times_allowed(few: FarCase, times: int) -> bool:
    """Return whether an op's intermediates fit their types where the rows of a call are repeated so often."""
    contract, rows = find_op(few.op), few.far
    at = copy(contract.check(few.arrays, few.parameters))
    if rows == ROWS:
        at.leading = (times * FEW_ROWS,)
    else:
        setattr(at, rows, times * FEW_ROWS)
    return all(width.fits for width in contract.widths(at).values())


def measured(backend: Backend, few: FarCase) -> int:
    """Return the peak bytes of GPU memory that a call takes for each repetition of the rows."""
    import torch

    times = most_times(few, 1 + TRIAL // max(array.size for _, array in arrays_of(few)))
    with crashes_as_failures(backend, few):
        arrays = repeated_inputs(backend, few, 1)
        backend.call(few.op, arrays, few.parameters)  # what a first call loads isn't counted
        torch.cuda.reset_peak_memory_stats(backend.device)
        before = torch.cuda.memory_allocated(backend.device)
        backend.call(few.op, repeated_inputs(backend, few, times), few.parameters)
    return int((torch.cuda.max_memory_allocated(backend.device) - before) / times)


def repeated_inputs(backend: Backend, far: FarCase, times: int) -> list[Any]:
    rows = row_dimension(far.op)

    def repeated(tensor: Tensor, array: np.ndarray) -> Any:
        loaded = backend.load(array)
        return loaded.repeat(times, *[1] * (array.ndim - 1)) if has_rows(tensor, rows) else loaded

    return [repeated(*pair) for pair in zip(find_op(far.op).inputs, far.arrays, strict=True)]


def arrays_of(far: FarCase) -> list[tuple[Tensor, np.ndarray]]:
    """Return each input of the call whose rows are repeated, and each golden result of it."""
    contract = find_op(far.op)
    arrays = (*far.arrays, *golden_results(far.case))
    return list(zip((*contract.inputs, *contract.outputs), arrays, strict=True))


def has_rows(tensor: Tensor, rows: str | None) -> bool:
    return tensor.shape.split()[:1] == [rows]


def memory_of(backend: Backend) -> int:
    """Return the free bytes of GPU memory, or 0 where the backend's arrays aren't on a GPU."""
    if not on_cuda(backend):
        return 0
    import torch

    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(backend.device)[0]


def out_of_memory(failure: Failure) -> bool:
    import torch

    return isinstance(failure.__cause__, torch.OutOfMemoryError)


@cache
def numba_twin(op: str) -> Caller:
    """Return the Numba twin of an op, which gave the golden results of all that is listed for it in this process."""
    twin = Caller(load("numba"))
    for case in listed(op):
        check_case(twin, case)
    return twin


def check_long(caller: Caller, far: FarCase) -> int:
    return check_case(caller, far.case, numba_twin(far.op))


def check_rows(backend: Backend, far: FarCase) -> int:
    """Repeat the case's rows until its largest input or result has the elements; compare each result that has rows."""
    import torch

    contract, rows = find_op(far.op), row_dimension(far.op)
    pairs, compared = arrays_of(far), 0
    count = -(-far.elements // max(array.size for tensor, array in pairs if has_rows(tensor, rows)))
    with crashes_as_failures(backend, far):
        arrays = repeated_inputs(backend, far, count)
        with filled_memory():
            results = backend.call(far.op, arrays, far.parameters)
        del arrays
        for (tensor, want), result in zip(pairs[len(contract.inputs) :], results, strict=True):
            if has_rows(tensor, rows):
                compared += compare_rows(backend, far, tensor.name, result, backend.load(want), count)
    del results
    torch.cuda.empty_cache()
    return compared


def compare_rows(backend: Backend, far: FarCase, name: str, result: Any, rows: Any, count: int) -> int:
    """Compare a result, a piece at a time, with the rows that it repeats."""
    if tuple(result.shape) != (count * len(rows), *rows.shape[1:]) or result.dtype != rows.dtype:
        raise Failure(backend, far, "result", f"{name} is {result.dtype}{list(result.shape)}")
    for piece in result.view(count, *rows.shape).split(max(1, PIECE // max(1, rows.numel()))):
        if wrong := int((piece != rows).sum()):
            raise Failure(
                backend, far, "result", f"{wrong} integers of {name} differ from those of the row that they repeat"
            )
    return result.numel()
