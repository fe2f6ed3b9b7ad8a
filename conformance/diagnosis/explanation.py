"""Explanation of a failure: a small call that fails, which known mistake returns the same, and where it begins."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Any

import numpy as np

from mamba_integer.backends import Backend, UnsupportedError
from mamba_integer.backends.programs import ProgramError
from mamba_integer.spec.contract import find_op

from ..engine.cases import draw_case, extreme_cases
from ..engine.comparison import Failure, interrupts
from ..engine.far_ends import FarCase
from ..engine.relations import RelationCase
from ..engine.vector import Vector, as_vector
from .calls import without_blocks
from .catalogue import Arrays, same, same_form, variants
from .common import in_common
from .intermediates import first_divergence, right_values
from .layout import layout_alone
from .relation import calls_of, describe
from .shrink import shrink
from .trial import Answer, try_misreadings

SECONDS = 3.0  # that one failure may take to explain; misreadings of the golden code may take twice as long again,
MOST_SECONDS = 120  # but never longer than this
TRIED = 16  # failing calls, and passing ones, for which a misreading must return what the backend returns
CALLED_AGAIN = "value", "protocol", "mutation", "memory", "crash"  # what doesn't hang
EXPLAINED = "value", "protocol", "crash"
SMALL = 4096  # integers of a call that the catalogue is run on
NAMING = 4  # calls that tell which operation of the golden code computes which intermediate
MORE = 64  # drawn calls, of which it matters alone whether they fail, for
SECONDS_FOR_MORE = 1.0
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
    """Return the explanation of wrong integers or of a crash, or None where no single call fails again."""
    if failure.kind not in CALLED_AGAIN or failure.process_ended or isinstance(failure.case, FarCase):
        return None
    if layout := layout_alone(failure):
        return passing_alone(failure.backend, as_vector(failure.case), layout)
    if failure.kind not in EXPLAINED:
        return None
    deadline, backend, side = time.monotonic() + seconds, failure.backend, ""
    failing = crashes if failure.kind == "crash" else fails
    if isinstance(failure.case, RelationCase):
        first = calls_of(backend, failure.case)
    else:
        # A program whose integers don't even fit their type may have wrong ones that do in another call.
        first = [as_vector(failure.case), *(others(failure.case.op) if failure.kind == "protocol" else ())]
    wrong = next((i for i, vector in enumerate(first) if failing(backend, vector)), None)
    if isinstance(failure.case, RelationCase):
        if wrong is None:
            return None
        side = describe(failure.case, first, wrong)
    elif wrong is None:
        return passing_alone(backend, first[0])
    original = first[wrong]
    trail: list[Vector] = []
    vector = shrink(original, lambda smaller: failing(backend, smaller), time.monotonic() + seconds / 2, trail)
    if large(vector):
        return None
    got = answer(backend, vector) if failing is fails else ()
    if got is None:
        return None
    explanation = Explanation(vector, got, side=side, intermediates=right_values(vector))
    if failing is crashes:
        explanation.failing, explanation.common = 1, crashing(backend, original, trail, deadline)
        return explanation
    search(explanation, backend, [vector, original, *others(vector.op)], deadline, trail, seconds)
    if explanation.mistakes:
        explanation.diverges = first_divergence(vector, explanation.mistakes[0], islice(others(vector.op), NAMING))
    return explanation


def crashing(backend: Backend, original: Vector, trail: Sequence[Vector], deadline: float) -> str:
    """Return the condition that crashing calls have in common."""
    crashed: list[Vector] = [original]
    passed: list[Vector] = []
    for vector in (*others(original.op), *more(original.op)):
        if time.monotonic() > deadline:
            break
        (crashed if crashes(backend, vector) else passed).append(vector)
    return in_common(crashed, passed, trail)


def crashes(backend: Backend, vector: Vector) -> bool:
    try:
        backend.run(vector.op, vector.arrays, vector.parameters)
    except interrupts():
        raise
    except UnsupportedError:
        return False
    except ProgramError as error:
        return error.kind == "crash"
    except BaseException:
        return True
    return False


def passing_alone(backend: Backend, vector: Vector, common: str = "") -> Explanation | None:
    """Describe a call that fails in its case alone, so that its integers are not the cause."""
    got = answer(backend, vector)
    if got is None or large(vector):
        return None
    return Explanation(vector, got, common=common or "not in a call by itself: an earlier call decides")


def answer(backend: Backend, vector: Vector) -> Arrays | None:
    """Return a backend's results where they have the right form."""
    try:
        got = backend.run(vector.op, vector.arrays, vector.parameters)
    except interrupts():
        raise
    except BaseException:  # a backend may do anything; only wrong integers are explained
        return None
    plain = tuple(np.asarray(array) for array in got)
    return plain if same_form(plain, vector.results) else None


def fails(backend: Backend, vector: Vector) -> bool:
    got = answer(backend, vector)
    return got is not None and not same(got, vector.results)


def search(
    explanation: Explanation,
    backend: Backend,
    vectors: Iterable[Vector],
    deadline: float,
    trail: Sequence[Vector] = (),
    seconds: float = SECONDS,
) -> None:
    """Fill in the mistakes that return the backend's integers, on as many calls as there is time for.

    Other calls tell apart mistakes that are alike in one; ``trail`` has further failing calls. A mistake that doesn't
    show in a call returns the right results there.
    A backend may have a second mistake that shows in some calls, so a mistake must explain most of the failing ones.
    """
    op = find_op(explanation.vector.op)
    remaining: list[str] | None = None
    explained: Counter[str] = Counter()
    answers: list[Answer] = []
    for reply in answers_to(backend, vectors, deadline):
        answers.append(reply)
        vector, got, wrong = reply.vector, reply.got, reply.wrong
        call = op, vector.arrays, vector.parameters
        if remaining == [] or not (wrong or remaining):
            continue
        shown = {says: same(returned, got) for says, returned in variants(*call, only=remaining, deadline=deadline)}
        explained.update(says for says, equal in shown.items() if equal)
        if remaining is None:
            remaining = [says for says, equal in shown.items() if equal]
        elif not wrong:
            # A backend may make the mistake on one of its paths alone: then a call that passes tells nothing.
            remaining = [says for says in remaining if says not in shown] or remaining
    failing = [reply for reply in answers if reply.wrong]
    passing = [reply for reply in answers if not reply.wrong]
    explanation.failing = len(failing)
    never = set.intersection(*(without_blocks(op, reply.vector.arrays) for reply in failing)) if failing else set()
    candidates = remaining or []
    counts = [(says, explained[says]) for says in candidates if says not in never or candidates[0] in never]
    if failing and not most(counts, len(failing)):
        counts = try_misreadings([*failing[:TRIED], *passing[:TRIED]], min(2 * seconds, MOST_SECONDS))
        explanation.failing = min(explanation.failing, TRIED)
    best = most(counts, explanation.failing)
    explanation.mistakes, explanation.explained = [says for says, _ in best[:NAMED]], best[0][1] if best else 0
    drawn = answers_to(backend, more(explanation.vector.op), time.monotonic() + SECONDS_FOR_MORE)
    wrong_ones = [reply.vector for reply in (*failing, *(reply for reply in drawn if reply.wrong))]
    right_ones = [reply.vector for reply in (*passing, *(reply for reply in drawn if not reply.wrong))]
    explanation.common = in_common(wrong_ones[1:], right_ones, [explanation.vector, *trail])


def answers_to(backend: Backend, vectors: Iterable[Vector], deadline: float) -> Iterator[Answer]:
    """Yield a backend's results for calls until the deadline; the first call is run even after it."""
    late = False
    for vector in vectors:
        if late:
            return
        got = answer(backend, vector)
        if got is not None and not large(vector) and all(result.size for result in vector.results):
            yield Answer(vector, got)
            late = time.monotonic() > deadline


def most(counts: Iterable[tuple[str, int]], failing: int) -> list[tuple[str, int]]:
    """Return the mistakes that explain as many failing calls as any, if those are more than half of them."""
    best = max((count for _, count in counts), default=0)
    return [(says, count) for says, count in counts if count == best and 2 * count > failing]


def more(op: str) -> Iterator[Vector]:
    for i in range(MORE):
        yield as_vector(draw_case(op, Random(f"more {op} {i}")))


def large(vector: Vector) -> bool:
    return sum(array.size for array in vector.arrays) > SMALL


def others(op: str) -> Iterator[Vector]:
    for i in range(OTHERS):
        yield as_vector(draw_case(op, Random(f"explain {op} {i}")))
    yield from map(as_vector, islice(extreme_cases(op), OTHERS))
