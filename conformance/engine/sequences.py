"""The earlier calls that a failure needs: the command of a failure card must show it again in a fresh process."""

import contextlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from mamba_integer.backends import Backend

from .calls import Caller, variant_of
from .comparison import Failure
from .journal import alarm
from .workers import as_they_end, processes

GROWTH = 4
TRIES = 8  # at leaving out cases that aren't needed


def confirm(failures: Sequence[Failure], timeout: float) -> None:
    """Set ``before`` of each failure to the cases that must run before the failing one, as few as are found quickly."""
    waiting = list(failures)
    while waiting:
        with processes(1) as pool:  # one process for all, until a case passes in it or ends it
            while waiting:
                failure = waiting.pop(0)
                history, failure.history = failure.history, ()
                if not fails(failure, [failure.case.to_json()], timeout, pool):
                    failure.before = needed_before(failure, history, timeout)
                    break
                if pool._broken:
                    break


def needed_before(failure: Failure, history: tuple[str, ...], timeout: float) -> tuple[str, ...]:
    """Return the end of the history that a failure needs; say so where not even all of it brings the failure back."""
    case, length = failure.case.to_json(), 0
    while not fails(failure, [*history[len(history) - length :], case], timeout):
        if length >= len(history):
            failure.kind = "unstable"
            failure.message += f" (not seen again in a fresh process, alone or after the {length} calls before it)"
            return ()
        length = min(len(history), max(1, GROWTH * length))
    return reduced(failure, history[len(history) - length :], case, timeout)


def reduced(failure: Failure, needed: tuple[str, ...], case: str, timeout: float) -> tuple[str, ...]:
    """Leave out halves, quarters and so on of the cases for as long as the failure stays."""
    tries, part = TRIES, max(1, len(needed) // 2)
    while tries and len(needed) > 1:
        for start in range(0, len(needed), part):
            fewer = needed[:start] + needed[start + part :]
            tries -= 1
            if fails(failure, [*fewer, case], timeout):
                needed = fewer
                break
            if not tries:
                break
        else:
            if part == 1:
                break
        part = max(1, min(part, len(needed)) // 2)
    return needed


def fails(failure: Failure, cases: Sequence[str], timeout: float, pool: ProcessPoolExecutor | None = None) -> bool:
    """Return whether one of the cases fails, run one after the other in a fresh process, or in that of ``pool``."""
    arguments = failure.backend, failure.case.op, cases, failure.variant, timeout
    with contextlib.nullcontext(pool) if pool else processes(1) as chosen:
        try:
            return next(as_they_end([chosen.submit(_fails, *arguments)])).result()
        except BrokenProcessPool:
            return True


def _fails(backend: Backend, op: str, cases: Sequence[str], variant: str, timeout: float) -> bool:
    from . import replay

    caller = Caller(backend)
    try:
        with variant_of(backend, variant):
            for case in cases:
                with alarm(timeout):
                    replay.check(caller, replay.parse(case, op))
    except Failure:
        return True
    return False
