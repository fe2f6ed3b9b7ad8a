"""Explanation of a failure: a small call that fails, which known mistake returns the same, and where it begins."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Any

import numpy as np

from mamba_integer.backends import Backend
from mamba_integer.spec.contract import find_op

from ..engine.cases import draw_case, extreme_cases
from ..engine.comparison import Failure
from ..engine.far_ends import FarCase
from ..engine.relations import RelationCase
from ..engine.vector import Vector, as_vector
from .catalogue import Arrays, same, same_form, variants
from .common import in_common
from .intermediates import first_divergence, right_values
from .layout import layout_alone
from .relation import calls_of, describe
from .shrink import shrink

SECONDS = 3.0  # that one failure may take to explain
CALLED_AGAIN = "value", "protocol", "mutation", "memory"  # what neither hangs nor ends the process
SMALL = 4096  # integers of a call that the catalogue is run on
NAMING = 4  # calls that tell which operation of the golden code computes which intermediate
OTHERS = 16  # further calls on which a mistake must return what the backend returns
NAMED = 3  # mistakes that are told
LISTED = 8  # values of an intermediate that are told


@dataclass
class Explanation:
    """The place at which a backend first leaves the specification, as far as its results tell."""

    vector: Vector
    got: Arrays
    mistakes: list[str] = field(default_factory=list)
    explained: int = 0  # of the failing calls that were looked at, those where the first mistake returns the same
    failing: int = 0
    common: str = ""  # what failing calls have in common
    side: str = ""  # of a relation, which one is wrong
    diverges: str = ""  # the first intermediate that the mistake changes, with a wrong and a right value
    intermediates: dict[str, list[int]] = field(default_factory=dict)  # the right values on the way

    def to_dict(self) -> dict[str, Any]:
        return {
            "case": self.vector.to_json(),
            "inputs": {name: array.tolist() for name, array in self.vector.inputs.items()},
            "got": [array.tolist() for array in self.got],
            "want": [array.tolist() for array in self.vector.results],
            "mistakes": self.mistakes,
            "explained": self.explained,
            "failing": self.failing,
            "common": self.common,
            "side": self.side,
            "diverges": self.diverges,
            "intermediates": {name: values[:LISTED] for name, values in self.intermediates.items()},
        }


def explain(failure: Failure, seconds: float = SECONDS) -> Explanation | None:
    """Explain a failure with wrong integers; return None where no single call fails again."""
    if failure.kind not in CALLED_AGAIN or isinstance(failure.case, FarCase):
        return None
    if layout := layout_alone(failure):
        return passing_alone(failure.backend, as_vector(failure.case), layout)
    if failure.kind not in ("value", "protocol"):
        return None
    deadline, backend, side = time.monotonic() + seconds, failure.backend, ""
    if isinstance(failure.case, RelationCase):
        first = calls_of(backend, failure.case)
        wrong = next((i for i, vector in enumerate(first) if fails(backend, vector)), None)
        if wrong is None:
            return None
        side, original = describe(failure.case, first, wrong), first[wrong]
    else:
        # A program whose integers don't even fit their type may have wrong ones that do in another call.
        first = [as_vector(failure.case), *(others(failure.case.op) if failure.kind == "protocol" else ())]
        known = next((vector for vector in first if fails(backend, vector)), None)
        if known is None:
            return passing_alone(backend, first[0])
        original = known
    vector = shrink(original, lambda smaller: fails(backend, smaller), time.monotonic() + seconds / 2)
    got = answer(backend, vector)
    if got is None or sum(array.size for array in vector.arrays) > SMALL:
        return None
    explanation = Explanation(vector, got, side=side, intermediates=right_values(vector))
    search(explanation, backend, [vector, original, *others(vector.op)], deadline)
    if explanation.mistakes:
        explanation.diverges = first_divergence(vector, explanation.mistakes[0], islice(others(vector.op), NAMING))
    return explanation


def passing_alone(backend: Backend, vector: Vector, common: str = "") -> Explanation | None:
    """Describe a call that fails in its case alone, so that its integers are not the cause."""
    got = answer(backend, vector)
    if got is None or sum(array.size for array in vector.arrays) > SMALL:
        return None
    return Explanation(vector, got, common=common or "not in a call by itself: an earlier call decides")


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


def search(explanation: Explanation, backend: Backend, vectors: Iterable[Vector], deadline: float) -> None:
    """Fill in the mistakes that return the backend's integers, on as many calls as there is time for.

    What one call can't tell apart, others can. A mistake that doesn't show in a call returns the right results there.
    """
    remaining: list[str] | None = None
    explained: Counter[str] = Counter()
    failing: list[Vector] = []
    passing: list[Vector] = []
    for vector in vectors:
        if remaining is not None and time.monotonic() > deadline:
            break
        got = answer(backend, vector)
        if got is None or sum(array.size for array in vector.arrays) > SMALL:
            continue
        wrong = not same(got, vector.results)
        if all(result.size for result in vector.results):
            (failing if wrong else passing).append(vector)
        if remaining == []:
            continue
        call = find_op(vector.op), vector.arrays, vector.parameters
        shown = {says: same(returned, got) for says, returned in variants(*call, only=remaining, deadline=deadline)}
        explained.update(says for says, equal in shown.items() if equal)
        if remaining is None:
            remaining = [says for says, equal in shown.items() if equal]
        else:
            # A backend may have a second mistake that shows in this call alone: then the call tells nothing.
            remaining = [says for says in remaining if shown.get(says, not wrong)] or remaining
    explanation.mistakes = (remaining or [])[:NAMED]
    explanation.failing = len(failing)
    explanation.explained = explained[explanation.mistakes[0]] if explanation.mistakes else 0
    explanation.common = in_common(failing[1:], passing)


def others(op: str) -> Iterator[Vector]:
    for i in range(OTHERS):
        yield as_vector(draw_case(op, Random(f"explain {op} {i}")))
    yield from map(as_vector, islice(extreme_cases(op), OTHERS))
