"""Sensitive cases: results that are neither zero nor at an end, and that every input has a part in.

At most parameters an op says little: everything is shifted out or saturated. So parameters are looked for, by the
golden results of a case, at which a part of each result is alive and each input is felt.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, islice
from random import Random
from typing import Any

import numpy as np

from mamba_integer.spec.contract import Constant, DomainError, Packed, Parameter, find_op

from .cases import Case, draw_case
from .dimensions import settings
from .golden import golden_results
from .patterns import SEEDLESS

ALIVE, FELT = 0.1, 0.0  # what is asked of a case: at least, and more than
LIVELY, STRONG = 0.3, 0.05  # what is looked for
DRAWN, LEVELS = 8, 8
FEW = 8
SEEDS = 6
LARGE = 1 << 10  # elements of a case that is seldom dead by ill luck
PATTERNS = ("uniform", "scaled", "small", "walking", "runs", "extremes")
STARTS = 3  # of the drawn cases, from which a better one is looked for

# A bound that is a formula may divide by what parameters outside their ranges make zero.
OUTSIDE = DomainError, ValueError, ZeroDivisionError

Arrays = tuple[np.ndarray, ...]


def results_of(case: Case, arrays: Sequence[np.ndarray]) -> Arrays:
    results = find_op(case.op).golden(*arrays, **case.parameters)
    return tuple(map(np.asarray, results if isinstance(results, tuple) else (results,)))


def alive(case: Case, results: Sequence[np.ndarray]) -> Iterator[float]:
    """Yield which part of each result is neither zero nor an end of its range or dtype."""
    for tensor, result in zip(find_op(case.op).outputs, results, strict=True):
        allowed, limit = tensor.range(case.at, str(result.dtype)), np.iinfo(result.dtype).max
        ends = {0} if allowed.high - allowed.low < FEW else {0, allowed.low, allowed.high, -limit, limit}
        inside = np.ones(result.shape, bool)
        for end in ends:  # of digits, each is an end
            inside &= result != end
        yield float(inside.mean()) if result.size else 1.0


def redrawn(case: Case, argument: int) -> np.ndarray:
    """Return other integers of the same pattern and dtype for an argument; without a seed, its own moved on by one."""
    tensor, array = find_op(case.op).inputs[argument], case.arrays[argument]
    if case.patterns[argument] in SEEDLESS:
        return np.roll(array, 1)
    other = replace(case, seed=case.seed + (1 << 40), layouts=())
    if isinstance(tensor, Packed):
        return other.array(argument, tensor)
    return other.array(argument, tensor, str(array.dtype))


def felt(case: Case, results: Sequence[np.ndarray]) -> Iterator[float]:
    """Yield for each input which part of a result changes with it, of the result that changes most."""
    for i, tensor in enumerate(find_op(case.op).inputs):
        if isinstance(tensor, Constant) or not case.arrays[i].size:
            yield 1.0
            continue
        changed = results_of(case, (*case.arrays[:i], redrawn(case, i), *case.arrays[i + 1 :]))
        yield max(float((a != b).mean()) if a.size else 1.0 for a, b in zip(results, changed, strict=True))


def in_domain(case: Case) -> bool:
    try:
        find_op(case.op).check(case.arrays, case.parameters)
    except OUTSIDE:
        return False
    return True


def score(case: Case, kinds: str = "alive felt", above: float = -1.0) -> float:
    """Return a case's sensitivity: 1 where all results depend on all inputs, below 0 outside the domain.

    ``kinds`` says what counts: whether results are alive, whether inputs are felt, or both. Where the case can't be
    more sensitive than ``above``, the rest of it is not worked out.
    """
    try:
        results = golden_results(case)
    except OUTSIDE:
        return -1.0
    contract, total = find_op(case.op), 0.0
    wanted = [LIVELY] * len(contract.outputs) * ("alive" in kinds) + [STRONG] * len(contract.inputs) * ("felt" in kinds)
    parts = chain(alive(case, results) if "alive" in kinds else (), felt(case, results) if "felt" in kinds else ())
    for left, part, enough in zip(reversed(range(len(wanted))), parts, wanted, strict=True):
        total += min(part / enough, 1.0)
        if (total + left) / len(wanted) <= above:
            break
    return total / len(wanted)


def reseeded(case: Case) -> Case:
    """Return the case, with another seed where its results are dead by ill luck."""
    tries = SEEDS if sum(array.size for array in case.arrays) < LARGE else SEEDS // 2
    for attempt in range(tries):
        other = replace(case, seed=case.seed + (attempt << 32)) if attempt else case
        try:
            if min(alive(other, golden_results(other))) >= ALIVE:
                return other
        except OUTSIDE:
            break
    return case


def is_alive(case: Case) -> bool:
    """Return whether a case is in the domain, and at least a tenth of each result neither zero nor an end."""
    try:
        return min(alive(case, golden_results(case))) >= ALIVE
    except OUTSIDE:
        return False


def enlivened(case: Case, most: int) -> Case:
    """Return the case; where it is dead, one of ``most`` others that isn't: of other seeds, patterns or parameters."""
    if not all(array.size for array in case.arrays) or is_alive(case):
        return case
    patterns = (other for other in neighbours(case) if other.parameters == case.parameters)
    seeds = (replace(case, seed=case.seed + (attempt << 33)) for attempt in range(1, SEEDS))
    parameters = (other for other in neighbours(case) if other.parameters != case.parameters)
    for other in islice(chain(seeds, patterns, parameters), most):
        if is_alive(other):
            return other
    return case


def levels(parameter: Parameter, at: Any) -> list[int]:
    """Return a few values of a parameter, both ends among them."""
    allowed = parameter.range(at)
    size = allowed.high - allowed.low
    return sorted({allowed.low + i * size // LEVELS for i in range(LEVELS + 1)})


def neighbours(case: Case) -> Iterator[Case]:
    """Yield the cases that differ in one parameter or one pattern."""
    for parameter in settings(case.op):
        for value in levels(parameter, case.at):
            if value != case.parameters[parameter.name]:
                yield replace(case, parameters={**case.parameters, parameter.name: value})
    for i, pattern in enumerate(case.patterns):
        if pattern in PATTERNS:
            for other in PATTERNS:
                if other != pattern:
                    yield replace(case, patterns=(*case.patterns[:i], other, *case.patterns[i + 1 :]))


def improved(case: Case, fixed: Iterable[str] = (), kinds: str = "alive felt", most: int = 1 << 30) -> Case:
    """Return the case, or one with other parameters and patterns that is more sensitive.

    The parameters in ``fixed`` stay; ``most`` is how many others are tried.
    """
    best, kept = score(case, kinds), {name: case.parameters[name] for name in fixed}
    tried: set[str] = set()
    progress = True
    while progress and best < 1.0:
        progress = False
        for other in neighbours(case):
            key = other.to_json()
            if key in tried or any(other.parameters[name] != value for name, value in kept.items()):
                continue
            if len(tried) == most:
                return case
            tried.add(key)
            reached = score(other, kinds, above=best)
            if reached > best:
                case, best, progress = other, reached, True
                break
    return case


def sized(case: Case, sizes: Mapping[str, int], leading: tuple[int, ...] | None = None, seed: int = 0) -> Case:
    """Return the case with other sizes, some of which are parameters."""
    return replace(
        case,
        sizes={name: sizes[name] for name in case.sizes},
        leading=case.leading if leading is None else leading,
        parameters={name: sizes.get(name, value) for name, value in case.parameters.items()},
        seed=seed or case.seed,
    )


@cache
def typical(op: str, sizes: tuple[tuple[str, int], ...]) -> Case:
    """Return a sensitive case of an op at the given small sizes, which a random source and no clock decides."""
    random, fixed = Random(f"typical {op}"), dict(sizes)
    cases = [replace(draw_case(op, random, fixed), layouts=()) for _ in range(DRAWN)]
    plain = [replace(case, patterns=("uniform",) * len(case.patterns)) for case in cases]
    reached: list[Case] = []
    best = (sorted(group, key=score, reverse=True)[:STARTS] for group in (plain, cases))
    for case in chain.from_iterable(best):
        reached.append(improved(case))
        if score(reached[-1]) >= 1.0:
            break
    return max(reached, key=score)
