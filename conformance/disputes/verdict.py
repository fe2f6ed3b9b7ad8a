"""Verdicts: the sides that committed to wrong integers, and the failure that shows it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from time import monotonic
from typing import Any

from mamba_integer.backends import Backend
from mamba_integer.backends.programs.wire import result_forms
from mamba_integer.backends.transcripts.errors import CountError
from mamba_integer.backends.transcripts.opening import Opening
from mamba_integer.spec.contract import OPS, DomainError

from ..diagnosis.catalogue import same, variants
from ..diagnosis.explanation import SMALL
from ..engine.comparison import Failure, compare
from ..engine.vector import MOST_INTEGERS, Vector

NAMED = 3  # mistakes that are told
SECONDS = 1.0  # that the search for them may take


@dataclass(frozen=True)
class Verdict:
    """The result of a referee.

    ``liars`` are the names of the sides that are wrong: none where the transcripts are equal, both where neither is
    what the specification gives. ``where`` is the first leaf on which they differ, ``says`` what is wrong with it.
    ``roots`` has each side's root, which must be the one that it published.
    """

    liars: tuple[str, ...]
    where: str
    says: str
    rounds: int = 0
    failures: tuple[Failure, ...] = ()
    mistakes: tuple[str, ...] = ()
    leaf: str = ""  # which the command open takes
    roots: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "liars": list(self.liars),
            "where": self.where,
            "leaf": self.leaf,
            "says": self.says,
            "rounds": self.rounds,
            "failures": [failure.to_dict() for failure in self.failures],
            "mistakes": list(self.mistakes),
            "roots": dict(self.roots),
        }


def failure_of(side: str, opening: Opening) -> Failure | None:
    """Return the difference of an opening's outputs from the golden code's results for its inputs, or None.

    Raises
    ------
    CountError
        The call asks for more integers than a referee computes.
    """
    call = opening.leaf.call
    accused = Backend(side, None, "its transcript")
    vector = Vector(call.op, tuple(call.inputs), dict(call.parameters))
    try:
        largest = max(prod(form.shape) for form in result_forms(call.op, call.inputs, call.parameters))
        if largest > MOST_INTEGERS:
            raise CountError(f"{side}: found a result of {largest} integers, allowed {MOST_INTEGERS}")
        compare(accused, vector, call.outputs, vector.results)
    except DomainError as error:
        return Failure(accused, vector, "accepted", f"the call is outside the op's domain: {error}")
    except Failure as failure:
        return failure
    return None


def failures_of(sides: Sequence[tuple[str, Opening]]) -> dict[str, tuple[Failure, Opening]]:
    """Return the failures of openings, by the names of their sides."""
    failures = {name: (failure_of(name, opening), opening) for name, opening in sides}
    return {name: (failure, opening) for name, (failure, opening) in failures.items() if failure}


def mistakes_of(failures: Iterable[tuple[Failure, Opening]]) -> tuple[str, ...]:
    """Return known mistakes that give the same wrong integers as an opening."""
    result: dict[str, None] = {}
    for failure, opening in failures:
        if failure.differs and sum(array.size for array in failure.case.arrays) <= SMALL:
            case, outputs = failure.case, tuple(opening.leaf.call.outputs)
            known = variants(OPS[case.op], case.arrays, case.parameters, deadline=monotonic() + SECONDS)
            result |= {says: None for says, returned in known if same(returned, outputs)}
    return tuple(result)[:NAMED]
