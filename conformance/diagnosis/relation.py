"""The wrong call of a relation, found by golden results: the relation itself only tells that two sides differ."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mamba_integer.backends import Backend

from ..engine.comparison import Failure
from ..engine.relations import InapplicableError, RelationCase, check_relation
from ..engine.vector import Vector


@dataclass(frozen=True)
class Recorder(Backend):
    """A backend that notes its calls."""

    calls: list[Vector] = field(default_factory=list)

    def run(self, op: str, arrays: Sequence[np.ndarray], parameters: Mapping[str, int]) -> tuple[Any, ...]:
        self.calls.append(Vector(op, tuple(array.copy() for array in arrays), dict(parameters)))
        return super().run(op, arrays, parameters)


def calls_of(backend: Backend, case: RelationCase) -> list[Vector]:
    """Return the calls that a relation makes, in their order, until it fails."""
    recorder = Recorder(backend.name, backend.ops, backend.device)
    with contextlib.suppress(Failure, InapplicableError):
        check_relation(recorder, case)
    return recorder.calls


def describe(case: RelationCase, calls: Sequence[Vector], wrong: int) -> str:
    """Return which side of a relation is wrong, and where the sequence or batch was cut."""
    vector, places = calls[wrong], ", ".join(map(str, case.place)) or "nowhere"
    whole = vector.op == case.op and all(
        a.shape == b.shape and np.array_equal(a, b) for a, b in zip(vector.arrays, case.arrays, strict=True)
    )
    side = "the whole is wrong" if whole else f"a part is wrong: call {wrong + 1} of {len(calls)}, of {vector.op}"
    return f"{side}; cut at {places}"
