"""Relations: what must hold between results of one backend, whatever its speed or its tiling.

Prefill = decode = chunked, a row alone = the row in a batch, exact inverses, a composite = its parts.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from random import Random

import numpy as np
from hypothesis import assume

from mamba_integer.backends import Backend
from mamba_integer.spec.contract import Op, Tensor, find_op
from mamba_integer.spec.ops import rotation, transform

from .cases import Case, draw_case
from .comparison import compare, crashes_as_failures, forms, in_form

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


STEPS = {
    "causal_conv1d": "conv1d_step",
    "selective_scan": "selective_scan_step",
    "ssd_scan": "ssd_scan_step",
    "ssd_chunk_scan": "ssd_chunk_scan_step",
}


def time_axis(tensor: Tensor) -> int | None:
    names = tensor.shape.split()
    return names.index("L") if "L" in names else None


def between(tensors: Sequence[Tensor], arrays: Arrays, steps: int | slice) -> dict[str, np.ndarray]:
    """Return a step, or the steps of a piece, of every array that has a time axis, and the others whole."""
    found = {}
    for tensor, array in zip(tensors, arrays, strict=True):
        axis = time_axis(tensor)
        at = () if axis is None else (slice(None),) * axis + (steps,)
        found[tensor.name] = np.ascontiguousarray(array[at])
    return found


def carried(op: str) -> list[str]:
    """Return the names of what goes from one piece of a sequence to the next."""
    contract = find_op(op)
    return [t.name for t in contract.inputs if t.name in {o.name for o in contract.outputs}]


def pieces(case: RelationCase, bounds: Sequence[int], run: Callable[[Arrays], Arrays], step: bool) -> Arrays:
    """Run a sequence op piece by piece, the state carried over; a step has no time axis."""
    contract, names = find_op(case.op), carried(case.op)
    inputs = dict(zip((t.name for t in contract.inputs), case.arrays, strict=True))
    state = {name: inputs[name] for name in names}
    found: list[list[np.ndarray]] = []
    for start, stop in pairwise(bounds):
        given = between(contract.inputs, case.arrays, start if step else slice(start, stop)) | state
        results = run(tuple(given.values()))
        state = {t.name: r for t, r in zip(contract.outputs, results, strict=True) if t.name in names}
        axes = [time_axis(tensor) if step else None for tensor in contract.outputs]
        found.append([r if a is None else np.expand_dims(r, a) for r, a in zip(results, axes, strict=True)])
    return tuple(
        column[-1] if (axis := time_axis(tensor)) is None else np.concatenate(column, axis)
        for column, tensor in zip(zip(*found, strict=True), contract.outputs, strict=True)
    )


class Chunks(Relation):
    says = "a sequence cut into pieces, the state carried over, equals the whole"

    def needs(self, op):
        return () if op in STEPS else None

    def place(self, random, case):
        length = case.sizes["L"]
        assume(length > 0)
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


FORTH = {
    "selective_scan_backward": "selective_scan",
    "ssd_scan_backward": "ssd_scan",
    "ssd_chunk_scan_backward": "ssd_chunk_scan",
}


class BackwardChunks(Chunks):
    says = "a backward scan in pieces, the last first, from the states that the forward op has there, equals the whole"

    def needs(self, op):
        return (FORTH[op],) if op in FORTH else None

    def place(self, random, case):
        assume(case.sizes["L"] > 0)
        grid = 1 << case.parameters.get("q", 0)
        return (grid * random.randrange(case.sizes["L"] // grid + 1),)

    def cut(self, call, case, bounds):
        contract, forward = find_op(case.op), find_op(FORTH[case.op])
        (error,) = carried(case.op)
        known = {tensor.name for tensor in contract.inputs}
        (state,) = (name for name in carried(forward.name) if name in known)
        # On the grid nothing is open: what the backward op lacks of the forward op's state is zero.
        fresh = {t.name: np.zeros(case.case.shape(t), t.dtypes[0]) for t in forward.inputs if t.name not in known}
        # What the forward op's y loses, the one parameter that its backward lacks, plays no part in its states.
        parameters = {"s_y": 0} | case.parameters
        parameters = {parameter.name: parameters[parameter.name] for parameter in forward.parameters}
        parts: list[dict[str, np.ndarray]] = []
        after: dict[str, np.ndarray] = {}
        for start, stop in pairwise(bounds):
            parts.append(between(contract.inputs, case.arrays, slice(start, stop)) | after)
            given = parts[-1] | fresh
            results = call(forward.name, [given[tensor.name] for tensor in forward.inputs], parameters)
            after = {state: next(r for t, r in zip(forward.outputs, results, strict=True) if t.name == state)}
        before: dict[str, np.ndarray] = {}
        found: list[Arrays] = []
        for part in reversed(parts):
            found.insert(0, call(case.op, tuple((part | before).values()), case.parameters))
            before = {error: found[0][-1]}
        whole = []
        for tensor, column in zip(contract.outputs, zip(*found, strict=True), strict=True):
            if (axis := time_axis(tensor)) is not None:
                whole.append(np.concatenate(column, axis))
            else:
                whole.append(column[0] if tensor.name == error else sum(column))
        return tuple(whole)


class Steps(Relation):
    says = "a sequence run step by step equals the whole"

    def needs(self, op):
        return (STEPS[op],) if op in STEPS else None

    def place(self, random, case):
        assume(case.sizes["L"] > 0)
        return ()

    def sides(self, call, case):
        run = lambda arrays: call(STEPS[case.op], arrays, case.parameters)  # noqa: E731
        steps = range(case.case.sizes["L"] + 1)
        yield pieces(case, steps, run, step=True), call(case.op, case.arrays, case.parameters)


BATCH = ("B", "R")


def is_batched(tensor: Tensor) -> bool:
    return tensor.shape.split()[0] in ("...", *BATCH)


def row_of(tensor: Tensor, array: np.ndarray, case: Case, row: int) -> np.ndarray:
    """Return one row of a batched array: without leading dimensions, or with a batch of one."""
    if not is_batched(tensor):
        return array
    if tensor.shape.split()[0] in BATCH:
        return array[row : row + 1]
    index: tuple = np.unravel_index(row, case.leading) if case.leading else ()
    return array[(*index, ...)]


def numbers_rows(contract: Op) -> bool:
    """Return whether the op's results depend on where its rows stand in a larger batch."""
    return any(parameter.name == "first" for parameter in contract.parameters)


class Alone(Relation):
    says = "a row alone equals the row in a batch"

    def needs(self, op):
        contract = find_op(op)
        apart = all(is_batched(tensor) for tensor in contract.outputs) and not numbers_rows(contract)
        return () if apart and any(is_batched(tensor) for tensor in contract.inputs) else None

    def place(self, random, case):
        batch = next(tensor for tensor in find_op(case.op).inputs if is_batched(tensor))
        name = batch.shape.split()[0]
        rows = int(np.prod(case.leading)) if name == "..." else case.sizes[name]
        assume(rows > 0)
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
        return () if "_backward" in op or numbers_rows(contract) else None

    def place(self, random, case):
        batch = next(tensor for tensor in find_op(case.op).inputs if is_batched(tensor))
        in_front = batch.shape.split()[0] == "..."
        assume(not in_front or case.leading)
        return (random.randrange(1 + (case.leading[0] if in_front else case.sizes["B"])),)

    def sides(self, call, case):
        contract, (cut,) = find_op(case.op), case.place
        parameters = dict(case.parameters)
        parts = []
        for part in (slice(None, cut), slice(cut, None)):
            arrays = [
                np.ascontiguousarray(a[part]) if is_batched(t) else a
                for t, a in zip(contract.inputs, case.arrays, strict=True)
            ]
            parts.append(call(case.op, arrays, parameters))
            if numbers_rows(contract):
                parameters["first"] += int(np.prod((cut, *case.case.leading[1:])))
        together = [
            np.concatenate(pair) if is_batched(tensor) else sum(pair)
            for tensor, pair in zip(contract.outputs, zip(*parts, strict=True), strict=True)
        ]
        yield tuple(together), call(case.op, case.arrays, case.parameters)


@dataclass(frozen=True)
class Undo:
    """The op that takes a result back to the first input, and the largest |input| for which it must."""

    op: str
    limit: int | None = None


UNDO = {
    "pack_ternary": Undo("unpack_ternary"),
    "pack_trits": Undo("unpack_trits"),
    "dyadic_rotate": Undo("dyadic_rotate_inverse", rotation.ROUND_TRIP),
    "dyadic_rotate_inverse": Undo("dyadic_rotate", rotation.ROUND_TRIP),
    "rope": Undo("rope_inverse", rotation.ROUND_TRIP),
    "rope_inverse": Undo("rope", rotation.ROUND_TRIP),
    "dyadic_transform": Undo("dyadic_transform_inverse", transform.ROUND_TRIP),
    "dyadic_transform_inverse": Undo("dyadic_transform", transform.ROUND_TRIP),
}


class Inverse(Relation):
    says = "the inverse of the result equals the input"

    def needs(self, op):
        return (UNDO[op].op,) if op in UNDO else None

    def arrays(self, case):
        first, *rest = case.arrays
        if limit := UNDO[case.op].limit:
            first = np.clip(first, -limit, limit)
        return first, *rest

    def names(self, op):
        return [tensor.name for tensor in find_op(UNDO[op].op).outputs]

    def sides(self, call, case):
        undo = find_op(UNDO[case.op].op)
        first, *rest = case.arrays
        parameters = {p.name: getattr(case.case.at, p.name) for p in undo.parameters}
        back = call(undo.name, (*call(case.op, case.arrays, case.parameters), *rest), parameters)
        yield back, (first.astype(undo.outputs[0].dtypes[0]),)


def chain(call: Call, case: RelationCase) -> Arrays:
    """Run parts: each takes the results of the part before it, then as many of the remaining inputs as it needs."""
    results: Arrays = ()
    remaining = list(case.arrays)
    for part in map(find_op, find_op(case.op).composed_of):
        taken = len(part.inputs) - len(results)
        arrays, remaining = (*results, *remaining[:taken]), remaining[taken:]
        results = call(part.name, arrays, {p.name: case.parameters[p.name] for p in part.parameters})
    return results


def rotate_each_position(call: Call, case: RelationCase) -> Arrays:
    """Run a rotary embedding as the rotation of its pairs, position by position."""
    x, *coefficients = case.arrays
    pairs = x.reshape(*x.shape[:2], x.shape[2] // 2, 2)
    (rotate,) = find_op(case.op).composed_of
    turned = np.zeros(pairs.shape, np.int32)
    for position in range(x.shape[1]):
        row = (np.ascontiguousarray(pairs[:, position]), *(c[position] for c in coefficients))
        (turned[:, position],) = call(rotate, row, case.parameters)
    return (turned.reshape(x.shape),)


PARTS = {"rope": rotate_each_position, "rope_inverse": rotate_each_position}


class Composite(Relation):
    says = "the composite equals its parts run one after the other"

    def needs(self, op):
        return find_op(op).composed_of or None

    def sides(self, call, case):
        yield call(case.op, case.arrays, case.parameters), PARTS.get(case.op, chain)(call, case)


RELATIONS: dict[str, Relation] = {
    "chunks": Chunks(),
    "backward chunks": BackwardChunks(),
    "steps": Steps(),
    "alone": Alone(),
    "micro-batches": MicroBatches(),
    "inverse": Inverse(),
    "composite": Composite(),
}


def draw_relation(name: str, op: str, random: Random) -> RelationCase:
    case = draw_case(op, random)
    return RelationCase(name, case, RELATIONS[name].place(random, case))


def check_relation(backend: Backend, case: RelationCase) -> int:
    """Check a relation on a backend alone; return how many integers were compared.

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
        return in_form(backend, case, results, forms(op, arrays, parameters), says)

    # Results in form may still hold integers that the relation can't go on with.
    with crashes_as_failures(backend, case, f"{relation.says}; "):
        return sum(
            compare(backend, case, got, want, relation.names(case.op), relation.says)
            for got, want in relation.sides(call, case)
        )
