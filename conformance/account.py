"""The accounts of failures, in a process of its own: they call the backend again, which may hang or crash now."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mamba_integer.backends import Backend
from mamba_integer.backends.app.main import warn
from mamba_integer.backends.escapes import told

from .engine.apart import Apart, Ended
from .engine.comparison import Failure
from .engine.exhaustive import ExhaustiveCase
from .engine.far_ends import FarCase
from .engine.journal import alarm
from .engine.relations import RelationCase
from .engine.workers import why
from .presets import LONGER

if TYPE_CHECKING:
    from .diagnosis.explanation import Explanation
    from .report import Report

SECONDS = 60.0  # for one account at most, and about as long for those of a run

Maps = Sequence[tuple[str, Sequence[str]]]


def explain_failures(report: "Report", timeout: float) -> None:
    """Explain the failures of a report, as many as there is time for."""
    deadline = time.monotonic() + SECONDS
    with Apart() as process:
        for result in report.results:
            if result.failure and time.monotonic() < deadline:
                result.explanation = explain_apart(process, result.failure, timeout)


def explain_apart(process: Apart, failure: Failure, timeout: float) -> "Explanation | None":
    """Return the explanation of a failure; where there is none, say why and go on: the verdict stands without it."""
    op, seconds = failure.case.op, seconds_of(timeout)
    try:
        return process.run(_explain, failure, seconds)
    except Ended as error:
        warn(f"{op}: no explanation: {why(error.code, seconds)}")
    except Exception as error:
        warn(f"{op}: no explanation: {told(error)}")
    return None


def maps_apart(process: Apart, failure: Failure, reference: Backend, timeout: float) -> Maps:
    """Return the maps of the places where results differ, if the backend returns them once more."""
    if not failure.differs or isinstance(failure.case, RelationCase | ExhaustiveCase | FarCase):
        return []
    try:
        return process.run(_maps, failure, reference, seconds_of(timeout))
    except Ended as error:
        warn(f"{failure.case.op}: no map of the differences: {why(error.code, seconds_of(timeout))}")
    except Exception as error:
        warn(f"{failure.case.op}: no map of the differences: {told(error)}")
    return []


def seconds_of(timeout: float) -> float:
    return min(SECONDS, LONGER * timeout)


def _explain(failure: Failure, seconds: float) -> "Explanation | None":
    from .diagnosis.explanation import explain

    with alarm(seconds):
        return explain(failure)


def _maps(failure: Failure, reference: Backend, seconds: float) -> Maps:
    from .maps import maps

    with alarm(seconds):
        return list(maps(failure, reference))
