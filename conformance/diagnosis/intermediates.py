"""The intermediates of a call: their right values, and the first that a mistake changes.

The golden code names no intermediates; the unbounded oracle does. An instruction of the golden code that computes the
values of one intermediate in several calls is taken for it.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np

from mamba_integer.conformance import oracle
from mamba_integer.conformance.oracle.observe import collecting
from mamba_integer.spec.contract import find_op

from ..engine.vector import Vector
from . import arithmetic
from .catalogue import run_arithmetic
from .sites import OPS_PACKAGE, Site

BETWEEN = (__name__, arithmetic.__name__, "numpy")


@dataclass(frozen=True)
class Instruction:
    """An instruction of an op's golden code that computes an intermediate, or calls the function that does."""

    code: CodeType
    offset: int
    line: int

    @property
    def text(self) -> str:
        return Site(self.code.co_filename, self.line).text


Values = dict[Instruction, list[int]]


def right_values(vector: Vector) -> dict[str, list[int]]:
    """Return the values of every intermediate of the contract's widths, by unbounded integers."""
    with collecting() as values:
        getattr(oracle, vector.op)(*vector.arrays, **vector.parameters)
    return values


def first_divergence(vector: Vector, mistake: str, others: Iterable[Vector]) -> str:
    """Return the first intermediate that a mistake of arithmetic changes, with a wrong and a right value of it."""
    right, wrong = computed(vector, ""), computed(vector, mistake)
    names = named([vector, *others])
    for instruction, values in right.items():
        other = wrong.get(instruction, values)
        if values != other and len(values) == len(other):
            first = next(i for i, (a, b) in enumerate(zip(values, other, strict=True)) if a != b)
            where = names.get(instruction, instruction.text)
            return f"{where}: {other[first]} in place of {values[first]}"
    return ""


def named(vectors: Iterable[Vector]) -> dict[Instruction, str]:
    """Return the names of instructions: those of intermediates whose values each has in every call."""
    names: dict[Instruction, set[str]] = {}
    for vector in vectors:
        known = {name: sorted(values) for name, values in right_values(vector).items()}
        for instruction, values in computed(vector, "").items():
            fitting = {name for name, expected in known.items() if expected == sorted(values)}
            names[instruction] = names.get(instruction, fitting) & fitting
    return {instruction: min(fitting) for instruction, fitting in names.items() if len(fitting) == 1}


def computed(vector: Vector, mistake: str) -> Values:
    """Return the values that each instruction of the golden code computes under a mistake."""
    values: Values = {}

    def note(result: Any) -> None:
        instruction, numbers = calling(), np.asarray(result)
        if instruction is not None and numbers.dtype.kind in "iu":
            values.setdefault(instruction, []).extend(numbers.ravel().tolist())

    def noting(function: Callable) -> Callable:
        def noted(*arguments: Any) -> Any:
            result = function(*arguments)
            note(result)
            return result

        return noted

    with arithmetic.noting(note):
        run_arithmetic(find_op(vector.op), vector.arrays, vector.parameters, mistake, noting)
    return values


def calling() -> Instruction | None:
    """Return the instruction of an op that called, if nothing but NumPy and the noting is in between."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(BETWEEN):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None or not frame.f_globals.get("__name__", "").startswith(OPS_PACKAGE):
        return None
    return Instruction(frame.f_code, frame.f_lasti, frame.f_lineno)
