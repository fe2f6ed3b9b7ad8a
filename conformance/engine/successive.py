"""Listed calls of the same arrays, each of which differs from the call before in one parameter alone and in a result.

A backend that keeps a kernel, a table or a workspace under all parameters but one answers with what it kept. The search
is for calls at which each result changes with each parameter; a parameter that is a bound alone changes none.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from random import Random

import numpy as np

from mamba_integer.spec.contract import TIME, Packed, Parameter, find_op

from .bases import Listed, base
from .cases import Case, draw_case
from .costs import cost, loops
from .dimensions import FAR, ODD, ROWS, allowed, chunk_exponents, dimensions, exponents
from .patterns import ZERO
from .sensitivity import OUTSIDE, in_domain, levels, results_of, sized

SUCCESSIVE = "successive"  # the group, whose calls one process takes in their order
DRAWN = ("uniform", "scaled", "extremes", "small", "walking") * 2  # patterns of further starts
ENOUGH = 4  # starts, where a parameter is seen to change a result
NEAR = 4  # how far a size, or a parameter beside its other levels, is moved
SMALL = (1, 8, 64, 4096)
PLENTY = 1 << 14  # elements of a long call, above which its other sizes are smaller


@dataclass(frozen=True)
class Call:
    """A call, and which parameter it changes; the first of a row of calls changes none."""

    case: Case
    changed: str = ""


def successive_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield the calls at small sizes, then along a long axis, for which a backend may keep something of its own."""
    for i, call in enumerate(calls(op)):
        work = cost(op, sizes_of(call.case), line)
        yield Listed(SUCCESSIVE, (named(i, call),), work, of_sizes(call.case, {}))
    names = [name for name in dimensions(op) if not loops(op).get(name) and name not in exponents(op)]
    for dimension in [name for name in names if allowed(op, name)[1] >= FAR[0]][:1]:
        for i, call in enumerate(calls(op)):
            sizes = sizes_of(call.case) | {dimension: FAR[0]}
            if cost(op, sizes, line) > PLENTY:
                sizes |= {name: min(2, size) for name, size in call.case.sizes.items() if name != dimension}
            point = f"{named(i, call)}, {dimension}={FAR[0]}"
            yield Listed(SUCCESSIVE, (point,), cost(op, sizes, line), of_sizes(call.case, sizes))


def named(position: int, call: Call) -> str:
    return f"call {position}: {f'another {call.changed}' if call.changed else 'a start'}"


def sizes_of(case: Case) -> dict[str, int]:
    """Return all sizes of a case: of its rows, and those that are parameters, as well."""
    known = {**case.sizes, **case.parameters, ROWS: prod(case.leading)}
    return {name: known[name] for name in dimensions(case.op)}


def of_sizes(case: Case, sizes: Mapping[str, int]) -> Callable[[], Case | None]:
    def make() -> Case | None:
        other = sized(case, {**sizes_of(case), **sizes}, (sizes[ROWS],) if ROWS in sizes else case.leading)
        return other if in_domain(other) else None

    return make


@cache
def calls(op: str) -> tuple[Call, ...]:
    """Return calls, at which each result changes with each parameter that it is seen to change with."""
    parameters, outputs, found = find_op(op).parameters, len(find_op(op).outputs), list[Call]()
    wanted = {parameter.name: set(range(outputs)) for parameter in parameters}
    for turn, start in enumerate(starts(op) if parameters else ()):
        now = None
        for parameter in parameters:
            missing = wanted[parameter.name]
            if not missing or (turn >= ENOUGH and len(missing) < outputs):
                continue
            for case in (now, start) if now else (start,):
                other, shown = best_step(case, parameter, missing)
                if shown:
                    found += [Call(start)] * (case is start)
                    found.append(Call(other, parameter.name))
                    missing -= shown
                    now = other
                    break
    return tuple(found)


def starts(op: str) -> Iterator[Case]:
    """Yield cases of small sizes, and with integers that other parameters don't change."""
    first = base(op, ODD)
    sizes = dict(first.sizes)
    for exponent in chunk_exponents(op) - exponents(op):
        sizes[TIME] = (1 << allowed(op, exponent)[0]) + 1  # a second chunk begins
    first = sized(first, sizes)
    chosen = {**sizes, **({ROWS: first.leading} if ROWS in dimensions(op) else {})}
    drawn = (draw_case(op, Random(f"successive {op} {i}"), chosen) for i in range(len(DRAWN)))
    kinds = ((pattern,) * len(first.patterns) for pattern in DRAWN)
    further = (replace(case, patterns=kind, layouts=()) for case, kind in zip(drawn, kinds, strict=True))
    for case in (first, *further):
        changing = changed_inputs(case)
        for pattern in ("", *(("small", ZERO) if changing else ())):
            patterns = (pattern if pattern and i in changing else own for i, own in enumerate(case.patterns))
            other = replace(case, patterns=tuple(patterns))
            if in_domain(other):
                yield other


def changed_inputs(case: Case) -> set[int]:
    """Return the inputs whose integers a parameter changes, for it is a bound or a size of theirs."""
    changed = set[int]()
    for parameter in find_op(case.op).parameters:
        for other in others(case, parameter):
            for i, tensor in enumerate(find_op(case.op).inputs):
                if isinstance(tensor, Packed):
                    changed |= {i} if tensor.packed == parameter.name else set()
                    continue
                with suppress(*OUTSIDE):
                    now, then = (tensor.range(one.at, tensor.dtypes[0]) for one in (case, other))
                    changed |= {i} if now != then else set()
    return changed


def others(case: Case, parameter: Parameter) -> Iterator[Case]:
    """Yield the case with other values of a parameter."""
    now = case.parameters[parameter.name]
    for value in values(case, parameter):
        if value != now:
            yield replace(case, parameters={**case.parameters, parameter.name: value})


def values(case: Case, parameter: Parameter) -> list[int]:
    """Return levels of a parameter's range, the values beside its own, and small ones; of a size those beside it."""
    now = case.parameters[parameter.name]
    near = {now + step for step in range(-NEAR, NEAR + 1)}
    if parameter.name in dimensions(case.op):
        low, high = allowed(case.op, parameter.name)
    else:
        bounds = parameter.range(case.at)
        low, high = bounds.low, bounds.high
        near |= {*levels(parameter, case.at), *SMALL, *(-value for value in SMALL)}
    return sorted(value for value in near if low <= value <= high)


def best_step(case: Case, parameter: Parameter, wanted: set[int]) -> tuple[Case, set[int]]:
    """Return the case with another value of a parameter at which most of the wanted results change, and which do."""
    best, chosen, shown = 0.0, case, set[int]()
    results = results_of(case, case.arrays) if wanted else ()
    for other in others(case, parameter) if wanted else ():
        if not in_domain(other) or not all(map(np.array_equal, case.arrays, other.arrays)):
            continue
        changes = [change(a, b) for a, b in zip(results, results_of(other, other.arrays), strict=True)]
        now = {i for i in wanted if changes[i]}
        reached = len(now) + sum(changes[i] for i in now) / len(wanted)
        if reached > best:
            best, chosen, shown = reached, other, now
    return chosen, shown


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Return which part of a result is another one."""
    return float((before != after).mean()) if before.shape == after.shape else 1.0
