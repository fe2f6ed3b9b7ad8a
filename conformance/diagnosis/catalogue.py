"""The catalogue of known mistakes, and the results that each would give for a call."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mamba_integer.spec.contract import Op

from . import arithmetic
from .calls import wrong_inputs, wrong_outputs
from .primitives import REPLACED, RULES
from .sequences import wrong_sequences
from .sites import Site, at, constants, replaced_at, used

Arrays = tuple[np.ndarray, ...]


def variants(
    op: Op,
    arrays: Sequence[np.ndarray],
    parameters: Mapping[str, int],
    only: Container[str] | None = None,
    deadline: float = float("inf"),
) -> Iterator[tuple[str, Arrays]]:
    """Yield each variant that says something about a call: its description, and its results, which aren't right.

    Results of another dtype or shape, and variants that can't be computed, are left out; ``only`` names those that are
    wanted. Variants of whole ops come first, then those of single lines of golden code.
    """
    right = results(op.golden(*arrays, **parameters))
    every = attempts(op, tuple(arrays), dict(parameters), right, only is None)
    for says, wrong in every if only is None else wanted(every, only):
        if time.monotonic() > deadline:
            return
        try:
            with np.errstate(all="ignore"):
                returned = results(wrong())
        except Exception:  # a wrong call may leave any domain: then it is no candidate
            continue
        if same_form(returned, right) and not same(returned, right):
            yield says, returned


def wanted(every: Iterable[tuple[str, Callable]], only: Container[str]) -> Iterator[tuple[str, Callable]]:
    """Yield the wanted attempts until none can follow."""
    left = set(only) if isinstance(only, Collection) else None
    for says, wrong in every if left != set() else ():
        if says in only:
            yield says, wrong
            if left is not None:
                left.remove(says)
                if not left:
                    return


def attempts(
    op: Op, arrays: Arrays, parameters: dict[str, int], right: Arrays, most: bool = False
) -> Iterator[tuple[str, Callable]]:
    """Yield mistakes, each once; if most are wanted, those of operations that the call lacks are left out at once."""
    lines = used(op, arrays, parameters) if most else None
    for says, functions in REPLACED.items():
        if lines is None or not lines.keys().isdisjoint(functions):
            yield says, lambda functions=functions: replaced(op, arrays, parameters, functions)
    for says, wrong in RULES.items():
        if lines is None or not lines.keys().isdisjoint(wrong.operations):
            yield says, lambda rule=wrong.rule: arithmetic.run(op, arrays, parameters, rule)
    for says, sequence in wrong_sequences(op, arrays):
        yield says, lambda sequence=sequence: sequence(parameters)
    for says, before in wrong_inputs(op, arrays, parameters):
        yield says, lambda before=before: arithmetic.golden(op, *before(arrays, parameters))
    for says, after in wrong_outputs(op, right):
        yield says, lambda after=after: after(right, arrays)
    yield from attempts_at_lines(op, arrays, parameters, used(op, arrays, parameters) if lines is None else lines)
    read = constants(op)
    modules = Counter(name for _, name, _ in read)
    for module, name, value in read:
        where = f", in {module['__name__'].rpartition('.')[2]}.py" if modules[name] > 1 else ""
        for other in (value + 1, value - 1):
            says = f"{name} is {other} in place of {value}{where}"
            yield says, lambda m=module, n=name, v=other: with_constant(op, arrays, parameters, m, n, v)


def attempts_at_lines(
    op: Op, arrays: Arrays, parameters: dict[str, int], lines: Mapping[str, Sequence[Site]]
) -> Iterator[tuple[str, Callable]]:
    """Yield the mistakes of arithmetic once for each line that could make them, if there are several."""
    for says, functions in REPLACED.items():
        for site in several(lines, functions):
            there = replaced_at(site, functions)
            yield f"{says}, in {site.text}", lambda there=there: replaced(op, arrays, parameters, there)
    for says, operation in RULES.items():
        for site in several(lines, operation.operations):
            rule = at(site, operation)
            yield f"{says}, in {site.text}", lambda rule=rule: arithmetic.run(op, arrays, parameters, rule)


def several(lines: Mapping[str, Sequence[Site]], names: Iterable[str]) -> list[Site]:
    sites = list(dict.fromkeys(site for name in names for site in lines.get(name, ())))
    return sites if len(sites) > 1 else []


def with_constant(op: Op, arrays: Arrays, parameters: Mapping[str, int], module: dict, name: str, value: int) -> Any:
    right = module[name]
    module[name] = value
    try:
        return arithmetic.golden(op, arrays, parameters)
    finally:
        module[name] = right


def replaced(op: Op, arrays: Arrays, parameters: Mapping[str, int], functions: Mapping[str, Callable]) -> Any:
    with arithmetic.replaced(**functions):
        return arithmetic.golden(op, arrays, parameters)


def results(returned: Any) -> Arrays:
    return tuple(map(np.asarray, returned if isinstance(returned, tuple) else (returned,)))


def same_form(a: Arrays, b: Arrays) -> bool:
    return [(x.dtype, x.shape) for x in a] == [(y.dtype, y.shape) for y in b]


def same(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
