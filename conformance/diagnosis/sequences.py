"""Known-wrong sequences: a state that is lost at the cuts of a sequence, or used a step too late or too early."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from mamba_integer.spec.contract import Op

from ..engine.relations import RELATIONS
from .arithmetic import golden

Arrays = tuple[np.ndarray, ...]
ZERO, FIRST, EARLY = "zero", "first", "early"
CARRIED = {
    "isn't carried from chunk to chunk": ZERO,
    "starts from the first state in every chunk": FIRST,
    "is carried a step too early from each chunk": EARLY,
}
WithParameters = Callable[[Mapping[str, int]], Arrays]
CHUNKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def wrong_sequences(op: Op, arrays: Sequence[np.ndarray]) -> Iterator[tuple[str, WithParameters]]:
    """Yield descriptions and results of an op that carries a state along a sequence."""
    names = [tensor.name for tensor in op.inputs]
    if any(tensor.shape.startswith("... ") for tensor in op.inputs) and arrays[0].ndim > 1:
        yield "all rows are taken as one", lambda parameters: rows_as_one(op, arrays, parameters)
    state = next((tensor.name for tensor in op.outputs if tensor.name in names), None)
    if state is None:
        return
    if {"x", "b", "c", "h", "skip"} <= set(names) and op.outputs[0].name == "y":
        yield "y is taken from the state before the step", lambda parameters: from_old_state(op, arrays, parameters)
    if all(tensor.shape.startswith("B ") for tensor in (*op.outputs, op.inputs[names.index(state)])):
        yield f"the sequences of a batch share one {state}", partial(sharing_state, op, arrays, state=state)
    axes = [tensor.shape.split().index("L") if "L" in tensor.shape.split() else None for tensor in op.inputs]
    length = next((a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None), 0)
    forward = RELATIONS["chunks"].needs(op.name) is not None
    if forward and length > 1:
        yield "the last step isn't run", partial(without_last, op, arrays, axes=axes)
    for chunk in CHUNKS:
        for says, carried in CARRIED.items() if forward and chunk < length else ():
            whole = f"{state} {says} of {chunk} steps"
            yield whole, partial(in_chunks, op, arrays, state=state, axes=axes, chunk=chunk, carried=carried)


def rows_as_one(op: Op, arrays: Sequence[np.ndarray], parameters: Mapping[str, int]) -> Arrays:
    """Return the results of an op that takes all its rows as one long row."""
    flat = []
    for tensor, array in zip(op.inputs, arrays, strict=True):
        if tensor.shape == "...":
            array = array.reshape(-1)[0]
        flat.append(array.reshape(-1) if tensor.shape.startswith("... ") else np.asarray(array))
    joined = []
    for one, many in zip(results_of(op, flat, parameters), results_of(op, arrays, parameters), strict=True):
        spread = one.reshape(many.shape) if one.size == many.size else np.broadcast_to(one, many.shape)
        joined.append(np.array(spread))
    return tuple(joined)


def results_of(op: Op, arrays: Sequence[np.ndarray], parameters: Mapping[str, int]) -> Arrays:
    results = golden(op, arrays, parameters)
    return tuple(map(np.asarray, results if isinstance(results, tuple) else (results,)))


def in_chunks(op, arrays, parameters, state, axes, chunk, carried) -> Arrays:
    """Return the results of an op that hands a wrong state from each chunk of a sequence to the next."""
    position = [tensor.name for tensor in op.inputs].index(state)
    returned = [tensor.name for tensor in op.outputs].index(state)
    length = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
    before, parts = arrays[position], []
    for start in range(0, length, chunk):
        part = steps(arrays, axes, slice(start, start + chunk))
        part[position] = before
        parts.append(results_of(op, part, parameters))
        if carried == ZERO:
            before = np.zeros_like(arrays[position])
        elif carried == EARLY:
            last = steps(arrays, axes, slice(start, start + chunk - 1))
            last[position] = before
            before = results_of(op, last, parameters)[returned]
    joined = []
    for i, tensor in enumerate(op.outputs):
        names = tensor.shape.split()
        joined.append(np.concatenate([p[i] for p in parts], names.index("L")) if "L" in names else parts[-1][i])
    return tuple(joined)


def without_last(op: Op, arrays: Sequence[np.ndarray], parameters: Mapping[str, int], axes) -> Arrays:
    """Return the results of all steps but the last, for which zeros are written."""
    shortened = results_of(op, steps(arrays, axes, slice(0, -1)), parameters)
    written = []
    for tensor, result in zip(op.outputs, shortened, strict=True):
        names = tensor.shape.split()
        added = [(0, int(name == "L")) for name in names]
        written.append(np.pad(result, added) if "L" in names else result)
    return tuple(written)


def sharing_state(op: Op, arrays: Sequence[np.ndarray], parameters: Mapping[str, int], state: str) -> Arrays:
    """Return the results of an op that steps the state of the first sequence of a batch for all of them."""
    position = [tensor.name for tensor in op.inputs].index(state)
    returned = [tensor.name for tensor in op.outputs].index(state)
    batched = [tensor.shape.startswith("B ") for tensor in op.inputs]
    states, parts = arrays[position].copy(), []
    for i in range(len(states)):
        one = [a[i : i + 1] if batch else a for a, batch in zip(arrays, batched, strict=True)]
        one[position] = states[:1]
        parts.append(results_of(op, one, parameters))
        states[:1] = parts[-1][returned]
    joined = [np.concatenate([part[i] for part in parts]) for i in range(len(op.outputs))]
    joined[returned] = states
    return tuple(joined)


def steps(arrays: Sequence[np.ndarray], axes: Sequence[int | None], part: slice) -> list[np.ndarray]:
    """Return some of the steps of each array that has time."""
    timed = zip(arrays, axes, strict=True)
    return [a if axis is None else a[(slice(None),) * axis + (part,)] for a, axis in timed]


def from_old_state(op: Op, arrays: Sequence[np.ndarray], parameters: Mapping[str, int]) -> Arrays:
    """Return the right states with outputs that are computed before each state is stepped.

    A step with a decay of one and no input leaves the state as it is, so its output is that of the old state.
    """
    now = dict(zip((tensor.name for tensor in op.inputs), arrays, strict=True))
    timed = [tensor.name for tensor in op.inputs if "L" in tensor.shape.split()]
    calm = dict(parameters) | {"k": 1, "n_max": 2, "convex": 0}
    outputs = []
    for t in range(now["x"].shape[1] if timed else 1):
        step = now | {name: now[name][:, t : t + 1] for name in timed}
        still = step | {name: np.full_like(step[name], 2) for name in ("n", "base") if name in step}
        still |= {name: np.zeros_like(step[name]) for name in ("b", "mod") if name in step}
        outputs.append(run(op, still, calm)[0])
        now["h"] = run(op, step, parameters)[1]
    return np.concatenate(outputs, 1) if timed else outputs[0], now["h"]


def run(op: Op, arrays: Mapping[str, np.ndarray], parameters: Mapping[str, int]) -> Arrays:
    return golden(op, [arrays[tensor.name] for tensor in op.inputs], parameters)
