"""Listed calls that come before all others of an op: of small integers, then of the same shapes up to the ends.

A backend that makes a table over the range of its first call, or chooses a type by it, must not keep that.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from random import Random

import numpy as np

from mamba_integer.spec.contract import Constant, Packed, find_op

from .bases import EVEN, Listed, base, settled, with_pattern
from .cases import Case, draw_case
from .dimensions import ODD, few
from .sensitivity import in_domain, results_of

FIRST = "first"  # the group, whose calls one process takes before any other
DRAWN = 4  # further starts
ENDS = ("extremes", "uniform", "walking", "powers", "scaled")


def first_plans(op: str) -> Iterator[Listed]:
    """Yield a call of small integers, and those after it in which each integer beyond its ranges tells."""
    for i, case in enumerate(first_calls(op)):
        point = f"first call {i}: {'up to the ends' if i else 'small integers'}"
        yield Listed(FIRST, (point,), 0, partial(replace, case))


@cache
def first_calls(op: str) -> tuple[Case, ...]:
    """Return calls of the same shapes and parameters: the first is of small integers.

    Each input, were it clipped to its range in the first, would change a result of one of the others.
    """
    best, least = tuple[Case, ...](), len(drawn(op))
    for start in starts(op):
        if least:
            calls, hidden = calls_from(start)
            best, least = (calls, hidden) if hidden < least else (best, least)
    return best


def starts(op: str) -> Iterator[Case]:
    """Yield sensitive cases, and others: parameters may bound an input to a few integers."""
    yield from (base(op, options) for options in (ODD, EVEN))
    yield from (replace(draw_case(op, Random(f"first {op} {i}"), few(op)), layouts=()) for i in range(DRAWN))


def calls_from(start: Case) -> tuple[tuple[Case, ...], int]:
    """Return calls at the sizes of a case, and the number of inputs that they don't show."""
    small = settled(replace(start, patterns=("small",) * len(start.patterns)))
    missing = drawn(start.op)
    if small is None:
        return (), len(missing)
    patterns = [*((pattern,) * len(start.patterns) for pattern in ENDS), start.patterns]
    patterns += [with_pattern(start, i, pattern).patterns for i in missing for pattern in ENDS]
    others = (other for kinds in patterns if in_domain(other := replace(small, patterns=kinds)))
    found = [small]
    for other in others:
        told = missing & shown(small, other)
        if told:
            found.append(other)
            missing -= told
        if not missing:
            break
    return tuple(found), len(missing)


def drawn(op: str) -> set[int]:
    """Return the inputs whose integers may be small or not."""
    return {i for i, tensor in enumerate(find_op(op).inputs) if not isinstance(tensor, Constant | Packed)}


def shown(first: Case, later: Case) -> set[int]:
    """Return the inputs of a later call of which a result would differ, if clipped to their range in the first."""
    results, told = results_of(later, later.arrays), set[int]()
    for i in drawn(first.op):
        small, array = first.arrays[i], later.arrays[i]
        if not small.size:
            continue
        clipped = array.clip(small.min(), small.max()).astype(array.dtype)
        changed = results_of(later, (*later.arrays[:i], clipped, *later.arrays[i + 1 :]))
        if any(map(np.any, (a != b for a, b in zip(results, changed, strict=True)))):
            told.add(i)
    return told
