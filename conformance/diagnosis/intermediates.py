"""The intermediates of a call: their right values, and the first that a mistake changes.

The golden code names no intermediates; the unbounded oracle does. An instruction of the golden code that computes the
values of one intermediate in several calls is taken for it.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from mamba_integer.conformance import oracle
from mamba_integer.conformance.oracle.observe import collecting
from mamba_integer.spec.contract import Op, find_op

from ..engine.vector import Vector
from . import arithmetic
from .catalogue import attempts, results
from .misreadings import Misreading, in_place, misreadings
from .sites import OPS_PACKAGE, Site

BETWEEN = (__name__, arithmetic.__name__, "numpy")


@dataclass(frozen=True)
class Instruction:
    """A place of an op's golden code that computes an intermediate, or calls the function that does."""

    file: str
    place: tuple[int | None, ...]  # first and last line, first and last column

    @property
    def text(self) -> str:
        return Site(self.file, self.place[0] or 0).text


Values = dict[Instruction, list[int]]


def right_values(vector: Vector) -> dict[str, list[int]]:
    """Return the values of every intermediate of the contract's widths, by unbounded integers."""
    with collecting() as values:
        getattr(oracle, vector.op)(*vector.arrays, **vector.parameters)
    return values


def first_divergence(vector: Vector, mistake: str, others: Iterable[Vector]) -> str:
    """Return the first intermediate that a mistake changes, with a wrong and a right value of it.

    Where the first that changes has no name in the contract, the first that has one is told too.
    """
    op = find_op(vector.op)
    right = computed(lambda: arithmetic.golden(op, vector.arrays, vector.parameters))
    wrong = computed(attempt(op, vector.arrays, vector.parameters, mistake))
    names = named([vector, *others])
    told: list[str] = []
    for instruction, values in right.items():
        other = wrong.get(instruction, values)
        if values == other or len(values) != len(other):
            continue
        first = next(i for i, (a, b) in enumerate(zip(values, other, strict=True)) if a != b)
        name = names.get(instruction, "")
        if name or not told:
            told.append(f"{name or instruction.text}: {other[first]} in place of {values[first]}")
        if name:
            break
    return "; then ".join(told)


def attempt(op: Op, arrays: Sequence[np.ndarray], parameters: Mapping[str, int], mistake: str) -> Callable[[], Any]:
    """Return the call that makes a mistake: one of the catalogue, or a misreading."""
    for says, wrong in attempts(op, tuple(arrays), dict(parameters), results(op.golden(*arrays, **parameters))):
        if says == mistake:
            return wrong
    for misreading in misreadings(op):
        if misreading.says == mistake:
            return lambda: misread(misreading, op, arrays, parameters)
    raise LookupError(mistake)


def misread(misreading: Misreading, op: Op, arrays: Sequence[np.ndarray], parameters: Mapping[str, int]) -> Any:
    with in_place(misreading):
        return arithmetic.golden(op, arrays, parameters)


def named(vectors: Iterable[Vector]) -> dict[Instruction, str]:
    """Return a name for each instruction: the intermediate whose values it computes in every call."""
    names: dict[Instruction, list[str]] = {}
    for vector in vectors:
        if not all(result.size for result in vector.results):
            continue  # it has no values by which anything could be told
        op, arrays, parameters = find_op(vector.op), vector.arrays, vector.parameters
        known = {name: sorted(values) for name, values in right_values(vector).items()}
        for instruction, values in computed(partial(arithmetic.golden, op, arrays, parameters)).items():
            fitting = {name for name, expected in known.items() if expected == sorted(values)}
            names[instruction] = [name for name in names.get(instruction, known) if name in fitting]
    return {instruction: fitting[0] for instruction, fitting in names.items() if fitting}


def computed(call: Callable[[], Any]) -> Values:
    """Return the values that each instruction of the golden code computes in a call."""
    values: Values = {}

    def note(result: Any) -> None:
        instruction, numbers = calling(), np.asarray(result)
        if instruction is not None and numbers.dtype.kind in "iu":
            values.setdefault(instruction, []).extend(numbers.ravel().tolist())

    with arithmetic.noting(note), np.errstate(all="ignore"):
        call()
    return values


def calling() -> Instruction | None:
    """Return the instruction of an op that called, if nothing but NumPy and the noting is in between."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(BETWEEN):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None or not frame.f_globals.get("__name__", "").startswith(OPS_PACKAGE):
        return None
    code = frame.f_code
    return Instruction(code.co_filename, tuple(next(islice(code.co_positions(), frame.f_lasti // 2, None))))
