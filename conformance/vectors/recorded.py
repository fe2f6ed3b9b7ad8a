"""Answers from files as a backend, so that they can be explained; it answers the calls of the files alone."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from mamba_integer.backends import Backend

from ..diagnosis.explanation import NAMING, Explanation, large, others, search
from ..diagnosis.intermediates import first_divergence, right_values
from ..diagnosis.trial import Answer

SECONDS = 10.0  # in which mistakes are tried on the answers of one op


@dataclass(frozen=True)
class Recorded(Backend):
    """A backend whose every answer is in a file."""

    answers: dict[tuple[Any, ...], tuple[np.ndarray, ...]] = field(default_factory=dict)

    def run(self, op: str, arrays: Sequence[np.ndarray], parameters: Mapping[str, int]) -> tuple[Any, ...]:
        return self.answers[key(op, arrays, parameters)]


def key(op: str, arrays: Sequence[np.ndarray], parameters: Mapping[str, int]) -> tuple[Any, ...]:
    inputs = tuple((array.dtype.str, array.shape, array.tobytes()) for array in arrays)
    return op, inputs, tuple(sorted(parameters.items()))


def explain_answers(answers: Sequence[Answer]) -> Explanation | None:
    """Return the explanation of answers to one op's vectors: of the smallest wrong one, and of all in common."""
    wrong = [answer for answer in answers if answer.wrong and not large(answer.vector)]
    if not wrong:
        return None
    first = min(wrong, key=lambda answer: sum(array.size for array in answer.vector.arrays))
    vector = first.vector
    calls = {key(a.vector.op, a.vector.arrays, a.vector.parameters): a.got for a in answers}
    ordered = {id(answer.vector): answer.vector for answer in (first, *wrong, *answers)}.values()
    explanation = Explanation(vector, first.got, intermediates=right_values(vector))
    search(explanation, Recorded("answers", None, answers=calls), ordered, time.monotonic() + SECONDS)
    if explanation.mistakes:
        explanation.diverges = first_divergence(vector, explanation.mistakes[0], islice(others(vector.op), NAMING))
    return explanation
