"""What a failure tells: a small call that fails, which known mistake returns the same, and where it begins."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Any

import numpy as np

from mamba_integer.backends import Backend
from mamba_integer.spec.contract import find_op

from ..engine.cases import draw_case, extreme_cases
from ..engine.comparison import Failure
from ..engine.vector import Vector, as_vector
from .catalogue import Arrays, same, same_form, variants
from .intermediates import first_divergence, right_values
from .shrink import shrink

SECONDS = 3.0  # that one failure may take to explain
SMALL = 4096  # integers of a call that the catalogue is run on
NAMING = 4  # calls that tell which operation of the golden code computes which intermediate
OTHERS = 12  # further calls on which a mistake must return what the backend returns
NAMED = 3  # mistakes that are told
LISTED = 8  # values of an intermediate that are told


@dataclass
class Explanation:
    """Where a backend first leaves the specification, as far as its results tell."""

    vector: Vector
    got: Arrays
    mistakes: list[str] = field(default_factory=list)
    diverges: str = ""  # the first intermediate that the mistake changes, and its values
    intermediates: dict[str, list[int]] = field(default_factory=dict)  # the right values on the way

    def to_dict(self) -> dict[str, Any]:
        return {
            "case": self.vector.to_json(),
            "inputs": {
                t.name: a.tolist() for t, a in zip(find_op(self.vector.op).inputs, self.vector.arrays, strict=True)
            },
            "got": [array.tolist() for array in self.got],
            "want": [array.tolist() for array in self.vector.results],
            "mistakes": self.mistakes,
            "diverges": self.diverges,
            "intermediates": {name: values[:LISTED] for name, values in self.intermediates.items()},
        }


def explain(failure: Failure, seconds: float = SECONDS) -> Explanation | None:
    """Return what a failure with wrong integers tells, or None where the call alone doesn't fail again."""
    if failure.kind not in ("value", "protocol"):
        return None
    deadline = time.monotonic() + seconds
    # A program whose integers don't even fit their type may have wrong ones that do in another call.
    first = [as_vector(failure.case), *(others(failure.case.op) if failure.kind == "protocol" else ())]
    original = next((vector for vector in first if fails(failure.backend, vector)), None)
    if original is None:
        return None
    vector = shrink(original, lambda smaller: fails(failure.backend, smaller), time.monotonic() + seconds / 2)
    got = answer(failure.backend, vector)
    if got is None or sum(array.size for array in vector.arrays) > SMALL:
        return None
    found = Explanation(vector, got)
    found.mistakes = narrowed(failure.backend, [vector, original], deadline)
    found.intermediates = right_values(vector)
    if found.mistakes:
        found.diverges = first_divergence(vector, found.mistakes[0], islice(others(vector.op), NAMING))
    return found


def answer(backend: Backend, vector: Vector) -> Arrays | None:
    """Return a backend's results where they have the right form."""
    try:
        got = backend.run(vector.op, vector.arrays, vector.parameters)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a backend may do anything; only wrong integers are explained
        return None
    plain = tuple(np.asarray(array) for array in got)
    return plain if same_form(plain, vector.results) else None


def fails(backend: Backend, vector: Vector) -> bool:
    got = answer(backend, vector)
    return got is not None and not same(got, vector.results)


def narrowed(backend: Backend, first: Sequence[Vector], deadline: float) -> list[str]:
    """Return the mistakes that return what the backend returns, on as many calls as there is time for.

    What one call can't tell apart, others can. A mistake that doesn't show in a call returns the right results there.
    """
    remaining: list[str] | None = None
    for vector in (*first, *others(first[0].op)):
        if sum(array.size for array in vector.arrays) > SMALL:
            continue
        if remaining is not None and (len(remaining) < 2 or time.monotonic() > deadline):
            break
        got = answer(backend, vector)
        if got is None:
            continue
        wrong = not same(got, vector.results)
        call = find_op(vector.op), vector.arrays, vector.parameters
        shown = {says: same(returned, got) for says, returned in variants(*call, only=remaining, deadline=deadline)}
        if remaining is None:
            remaining = [says for says, equal in shown.items() if equal]
            continue
        # A backend may have a second mistake that shows in this call alone: then the call tells nothing.
        left = [says for says in remaining if shown.get(says, not wrong)]
        remaining = left or remaining
    return (remaining or [])[:NAMED]


def others(op: str) -> Iterator[Vector]:
    for i in range(OTHERS):
        yield as_vector(draw_case(op, Random(f"explain {op} {i}")))
    yield from map(as_vector, islice(extreme_cases(op), OTHERS))
