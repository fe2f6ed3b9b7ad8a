"""Relations that must hold between results of one backend, whatever its tiling.

Prefill = decode = chunked, a row alone = the row in a batch, exact inverses, a composite = its parts.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from random import Random

import numpy as np

from mamba_integer.backends import Backend
from mamba_integer.backends.programs.wire import result_forms
from mamba_integer.spec.contract import BATCH, LEADING, Tensor, find_op, known_size

from .cases import Case
from .comparison import compare, crashes_as_failures, in_form

Arrays = tuple[np.ndarray, ...]
Call = Callable[[str, Sequence[np.ndarray], Mapping[str, int]], Arrays]
SHORT = 4  # a sequence this short is cut at every place


@dataclass(frozen=True)
class RelationCase:
    """A relation checked on the arrays of a case; ``place`` says where (cuts of a sequence, a row's number)."""

    relation: str
    case: Case
    place: tuple[int, ...] = ()

    @property
    def op(self) -> str:
        return self.case.op

    @cached_property
    def arrays(self) -> Arrays:
        return RELATIONS[self.relation].arrays(self.case)

    @property
    def parameters(self):
        return self.case.parameters

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    def check(self, backend: Backend) -> int:
        return check_relation(backend, self)


class Relation:
    """One kind of relation. ``sides`` yields pairs of results that must be equal."""

    says = ""

    def needs(self, op: str) -> tuple[str, ...] | None:
        """Return the other ops that a backend must have, or None where the relation says nothing about the op."""
        raise NotImplementedError

    def arrays(self, case: Case) -> Arrays:
        return case.arrays

    def place(self, random: Random, case: Case) -> tuple[int, ...]:
        return ()

    def sides(self, call: Call, case: RelationCase) -> Iterator[tuple[Arrays, Arrays]]:
        raise NotImplementedError

    def names(self, op: str) -> list[str]:
        return [tensor.name for tensor in find_op(op).outputs]


def between(tensors: Sequence[Tensor], arrays: Arrays, steps: int | slice) -> dict[str, np.ndarray]:
    """Return a step or a piece of every array that has a time axis, and all other arrays whole."""
    states = {}
    for tensor, array in zip(tensors, arrays, strict=True):
        axis = tensor.time_axis
        at = () if axis is None else (slice(None),) * axis + (steps,)
        states[tensor.name] = np.ascontiguousarray(array[at])
    return states


def carried(op: str) -> list[str]:
    """Return the names of the arrays that go from one piece of a sequence to the next."""
    return [tensor.name for tensor in find_op(op).carried]


def pieces(case: RelationCase, bounds: Sequence[int], run: Callable[[Arrays], Arrays], step: bool) -> Arrays:
    """Run a sequence op piece by piece, the state carried over; a step has no time axis."""
    contract, names = find_op(case.op), carried(case.op)
    inputs = dict(zip((t.name for t in contract.inputs), case.arrays, strict=True))
    state = {name: inputs[name] for name in names}
    columns: list[list[np.ndarray]] = []
    for start, stop in pairwise(bounds):
        inputs = between(contract.inputs, case.arrays, start if step else slice(start, stop)) | state
        results = run(tuple(inputs.values()))
        state = {t.name: r for t, r in zip(contract.outputs, results, strict=True) if t.name in names}
        axes = [tensor.time_axis if step else None for tensor in contract.outputs]
        columns.append([r if a is None else np.expand_dims(r, a) for r, a in zip(results, axes, strict=True)])
    return tuple(
        column[-1] if (axis := tensor.time_axis) is None else np.concatenate(column, axis)
        for column, tensor in zip(zip(*columns, strict=True), contract.outputs, strict=True)
    )


class InapplicableError(Exception):
    """A relation says nothing of a case: another is drawn, and a diagnosis goes on without it."""


def require(applies: bool) -> None:
    if not applies:
        raise InapplicableError


class Chunks(Relation):
    says = "a sequence cut into pieces, the state carried over, equals the whole"

    def needs(self, op):
        return () if find_op(op).step else None

    def place(self, random, case):
        length = case.sizes["L"]
        require(length > 0)
        if length <= SHORT:
            return ()
        return tuple(sorted(random.randrange(length + 1) for _ in range(random.choice((1, 2, 3)))))

    def sides(self, call, case):
        length = case.case.sizes["L"]
        whole = call(case.op, case.arrays, case.parameters)
        cuts = [case.place] if case.place else [(cut,) for cut in range(length + 1)] + [tuple(range(1, length))]
        for cut in cuts:
            yield self.cut(call, case, (0, *cut, length)), whole

    def cut(self, call: Call, case: RelationCase, bounds: Sequence[int]) -> Arrays:
        return pieces(case, bounds, lambda arrays: call(case.op, arrays, case.parameters), step=False)


class BackwardChunks(Chunks):
    says = "a backward scan in pieces, the last first, from the states that the forward op has there, equals the whole"

    def needs(self, op):
        contract = find_op(op)
        return (contract.backward_of,) if contract.backward_of and contract.carried else None

    def place(self, random, case):
        require(case.sizes["L"] > 0)
        grid = find_op(case.op).grid(case.parameters)
        return (grid * random.randrange(case.sizes["L"] // grid + 1),)

    def cut(self, call, case, bounds):
        contract, forward = find_op(case.op), find_op(find_op(case.op).backward_of)
        (error,) = carried(case.op)
        known = {tensor.name for tensor in contract.inputs}
        (state,) = (name for name in carried(forward.name) if name in known)
        # On the grid nothing is open: the part of the forward op's state that the backward op lacks is zero.
        fresh = {t.name: np.zeros(case.case.shape(t), t.dtypes[0]) for t in forward.inputs if t.name not in known}
        # A parameter that the backward op lacks plays no part in the forward op's states.
        parameters = {p.name: case.parameters.get(p.name, p.range(case.case.at).low) for p in forward.parameters}
        parts: list[dict[str, np.ndarray]] = []
        after: dict[str, np.ndarray] = {}
        for start, stop in pairwise(bounds):
            parts.append(between(contract.inputs, case.arrays, slice(start, stop)) | after)
            arrays = parts[-1] | fresh
            results = call(forward.name, [arrays[tensor.name] for tensor in forward.inputs], parameters)
            after = {state: next(r for t, r in zip(forward.outputs, results, strict=True) if t.name == state)}
        before: dict[str, np.ndarray] = {}
        returned: list[Arrays] = []
        for part in reversed(parts):
            returned.insert(0, call(case.op, tuple((part | before).values()), case.parameters))
            before = {error: returned[0][-1]}
        whole = []
        for tensor, column in zip(contract.outputs, zip(*returned, strict=True), strict=True):
            if (axis := tensor.time_axis) is not None:
                whole.append(np.concatenate(column, axis))
            else:
                whole.append(column[0] if tensor.name == error else sum(column))
        return tuple(whole)


class Steps(Relation):
    says = "a sequence run step by step equals the whole"

    def needs(self, op):
        step = find_op(op).step
        return (step.name,) if step else None

    def place(self, random, case):
        require(case.sizes["L"] > 0)
        return ()

    def sides(self, call, case):
        (step,) = self.needs(case.op)
        run = lambda arrays: call(step, arrays, case.parameters)  # noqa: E731
        steps = range(case.case.sizes["L"] + 1)
        yield pieces(case, steps, run, step=True), call(case.op, case.arrays, case.parameters)


def row_of(tensor: Tensor, array: np.ndarray, case: Case, row: int) -> np.ndarray:
    """Return one row of a batched array: without leading dimensions, or with a batch of one."""
    if not tensor.is_batched:
        return array
    if tensor.dimensions[0] == BATCH:
        return array[row : row + 1]
    index: tuple = np.unravel_index(row, case.leading) if case.leading else ()
    return array[(*index, ...)]


class Alone(Relation):
    says = "a row alone equals the row in a batch"

    def needs(self, op):
        contract = find_op(op)
        apart = all(tensor.is_batched for tensor in contract.outputs) and not contract.row_number
        return () if apart and any(tensor.is_batched for tensor in contract.inputs) else None

    def place(self, random, case):
        batch = next(tensor for tensor in find_op(case.op).inputs if tensor.is_batched)
        rows = case.sizes[BATCH] if batch.dimensions[0] == BATCH else int(np.prod(case.leading))
        require(rows > 0)
        return (random.randrange(rows),)

    def sides(self, call, case):
        contract = find_op(case.op)

        def rows(tensors: Sequence[Tensor], arrays: Arrays) -> Arrays:
            return tuple(row_of(t, a, case.case, case.place[0]).copy() for t, a in zip(tensors, arrays, strict=True))

        batch = call(case.op, case.arrays, case.parameters)
        alone = call(case.op, rows(contract.inputs, case.arrays), case.parameters)
        yield alone, rows(contract.outputs, batch)


class MicroBatches(Relation):
    says = "a batch cut in two gives the same rows, and sums that add up to the whole"

    def needs(self, op):
        contract = find_op(op)
        return () if contract.backward_of or contract.row_number else None

    def place(self, random, case):
        batch = next(tensor for tensor in find_op(case.op).inputs if tensor.is_batched)
        in_front = batch.dimensions[0] != BATCH
        require(not in_front or bool(case.leading))
        return (random.randrange(1 + (case.leading[0] if in_front else case.sizes[BATCH])),)

    def sides(self, call, case):
        contract, (cut,) = find_op(case.op), case.place
        parameters = dict(case.parameters)
        parts = []
        for part in (slice(None, cut), slice(cut, None)):
            arrays = [
                np.ascontiguousarray(a[part]) if t.is_batched else a
                for t, a in zip(contract.inputs, case.arrays, strict=True)
            ]
            parts.append(call(case.op, arrays, parameters))
            if contract.row_number:
                parameters[contract.row_number.name] += int(np.prod((cut, *case.case.leading[1:])))
        together = [
            np.concatenate(pair) if tensor.is_batched else sum(pair)
            for tensor, pair in zip(contract.outputs, zip(*parts, strict=True), strict=True)
        ]
        yield tuple(together), call(case.op, case.arrays, case.parameters)


class Inverse(Relation):
    says = "the inverse of the result equals the input"

    def needs(self, op):
        inverse = find_op(op).inverse
        return (inverse.name,) if inverse else None

    def arrays(self, case):
        first, *rest = case.arrays
        if limit := find_op(case.op).inverse_limit:
            first = np.clip(first, -limit, limit)
        return first, *rest

    def names(self, op):
        return [tensor.name for name in self.needs(op) for tensor in find_op(name).outputs]

    def sides(self, call, case):
        inverse = find_op(*self.needs(case.op))
        first, *rest = case.arrays
        parameters = {p.name: getattr(case.case.at, p.name) for p in inverse.parameters}
        back = call(inverse.name, (*call(case.op, case.arrays, case.parameters), *rest), parameters)
        yield back, (first.astype(inverse.outputs[0].dtypes[0]),)


def chain(call: Call, case: RelationCase) -> Arrays:
    """Run parts: each takes the results of the part before it, then as many of the remaining inputs as it needs."""
    results: Arrays = ()
    remaining = list(case.arrays)
    for part in find_op(case.op).parts:
        taken = len(part.inputs) - len(results)
        arrays, remaining = (*results, *remaining[:taken]), remaining[taken:]
        results = call(part.name, arrays, {p.name: case.parameters[p.name] for p in part.parameters})
    return results


def index_along(tensor: Tensor, dimension: str, index: int) -> tuple:
    """Return the subscript of one index of a dimension: of the whole array where the tensor lacks it."""
    return (slice(None),) * tensor.dimensions.index(dimension) + (index,) if dimension in tensor.dimensions else ()


def part_at_each_index(call: Call, case: RelationCase) -> Arrays:
    """Run the one part of a composite at each index of a dimension, on arrays that have there the part's shapes."""
    contract, at = find_op(case.op), case.case.at
    (part,), along = contract.parts, contract.composed_along

    def shape(tensor: Tensor) -> tuple[int, ...]:
        return tuple(known_size(BATCH if name == LEADING else name, at) for name in tensor.dimensions)

    whole = tuple(np.zeros(shape(tensor), tensor.dtypes[0]) for tensor in contract.outputs)
    for index in range(known_size(along, at)):
        inputs = zip(contract.inputs, part.inputs, case.arrays, strict=True)
        arrays = [array[index_along(t, along, index)].reshape(shape(of_part)) for t, of_part, array in inputs]
        results = call(part.name, arrays, case.parameters)
        for tensor, array, result in zip(contract.outputs, whole, results, strict=True):
            place = array[index_along(tensor, along, index)]
            place[...] = result.reshape(place.shape)
    return whole


class Composite(Relation):
    says = "the composite equals its parts run one after the other"

    def needs(self, op):
        return find_op(op).composed_of or None

    def sides(self, call, case):
        parts = part_at_each_index if find_op(case.op).composed_along else chain
        yield call(case.op, case.arrays, case.parameters), parts(call, case)


RELATIONS: dict[str, Relation] = {
    "chunks": Chunks(),
    "backward chunks": BackwardChunks(),
    "steps": Steps(),
    "alone": Alone(),
    "micro-batches": MicroBatches(),
    "inverse": Inverse(),
    "composite": Composite(),
}


def draw_relation(name: str, make: Callable[[Random], Case], random: Random) -> RelationCase:
    case = make(random)
    return RelationCase(name, case, RELATIONS[name].place(random, case))


def check_relation(backend: Backend, case: RelationCase) -> int:
    """Check a relation on a backend alone; return the number of integers compared.

    Raises
    ------
    Failure
        The backend crashed, a result isn't in the form of its op's contract, or two that must be equal aren't.
    """
    relation = RELATIONS[case.relation]

    def call(op: str, arrays: Sequence[np.ndarray], parameters: Mapping[str, int]) -> Arrays:
        says = f"{relation.says}; {op}: "
        with crashes_as_failures(backend, case, says):
            results = backend.run(op, arrays, parameters)
        return in_form(backend, case, results, result_forms(op, arrays, parameters), says)

    # Results in form may still hold integers that the relation can't go on with.
    with crashes_as_failures(backend, case, f"{relation.says}; "):
        return sum(
            compare(backend, case, got, want, relation.names(case.op), relation.says)
            for got, want in relation.sides(call, case)
        )
