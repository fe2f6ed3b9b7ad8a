"""All that is listed for an op: what no seed decides, so that it finds the same mistakes in every run."""

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from random import Random

from mamba_integer.spec.contract import find_op

from .cases import Case, draw_case, extreme_cases, large_cases
from .comparison import AnyCase

LEADING = ((2, 2, 3), (2, 0, 3))


def listed(op: str) -> Iterator[AnyCase]:
    """Yield the calls that the op's plan lists, one at each of its large sizes, and some with many dimensions."""
    yield from extreme_cases(op)
    yield from leading_cases(op)
    yield from large_cases(op, 0)


def leading_cases(op: str) -> Iterator[Case]:
    """Yield calls with three leading dimensions, for an op that takes any."""
    if any("..." in tensor.shape for tensor in find_op(op).inputs):
        for number, leading in enumerate(LEADING):
            case = draw_case(op, Random(f"{op} {number}"), {"...": prod(leading)})
            uniform = ("uniform",) * len(case.patterns)
            yield replace(case, leading=leading, patterns=uniform, strided=False)
