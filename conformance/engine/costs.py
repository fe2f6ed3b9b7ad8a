"""Cost of a case to the golden code: its elements, and the lines of Python that a loop runs for each unit of a size.

Lines are counted, not timed, so that the same cases are listed on every machine.
"""

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from mamba_integer.spec.contract import find_op

from .dimensions import ROWS, allowed, dimensions, exponents, few
from .sensitivity import sized, typical

FURTHER = 4
SPEC = find_op("isqrt").golden.__module__.rpartition(".")[0]


@cache
def loops(op: str) -> Mapping[str, int]:
    """Return the number of lines that the golden code runs for each further unit of a size."""
    sizes = few(op)
    case = typical(op, tuple(sizes.items()))
    counted = {}
    for name in dimensions(op):
        size = sizes[name] + FURTHER
        if name in exponents(op) or size > allowed(op, name)[1]:
            continue
        more = sizes | {name: size}
        less, much = (sized(case, s, (s[ROWS],) if ROWS in s else ()) for s in (sizes, more))
        lines(much), lines(less)  # what they remember is not counted
        counted[name] = max(0, lines(much) - lines(less)) // FURTHER
    return counted


def lines(case: Any) -> int:
    """Return the number of lines of Python that the golden op runs for a case."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace if frame.f_globals.get("__name__", "").startswith(SPEC) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        find_op(case.op).golden(*case.arrays, **case.parameters)
    finally:
        sys.settrace(before)
    return count


def cost(op: str, sizes: Mapping[str, int], line: int) -> int:
    """Return an estimate of the work of a call of these sizes; a line of a loop counts as ``line`` elements."""
    product, looped = 1, 0
    for name, size in sizes.items():
        product *= 1 << size if name in exponents(op) else size
        looped += loops(op).get(name, 0) * size * line
    return product + looped
