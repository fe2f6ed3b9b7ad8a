"""Drawn cases: hypothesis draws them, a failing one is shrunk, one that then passes is called unstable."""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisException

from .case_cache import FOLDER
from .comparison import AnyCase, Failure
from .strategies import drawn

# Hypothesis keeps tables of characters and constants; by itself it would put them where its user happens to stand.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str((FOLDER or Path(tempfile.gettempdir())) / "hypothesis"))
SHRINKING_SECONDS = 20


class ShrunkEnoughError(BaseException):
    """Ends hypothesis, which catches each Exception to go on shrinking."""


def input_size(failure: Failure) -> int:
    return sum(array.size for array in failure.case.arrays)


def check_drawn(
    examples: int, run_seed: int, make: Callable[[Random], AnyCase], check: Callable[[AnyCase], Any]
) -> None:
    """Check ``examples`` cases that ``make`` makes of random sources, which the seed decides.

    Raises
    ------
    Failure
        The smallest failure that hypothesis found; of kind "unstable" if it didn't happen again.
    """
    failures: list[Failure] = []
    deadline, stopped = float("inf"), False

    @seed(run_seed)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )
    @given(drawn(make))
    def each(case):
        nonlocal deadline, stopped
        if time.monotonic() > deadline:
            stopped = True
            raise ShrunkEnoughError
        try:
            check(case)
        except Failure as failure:
            if not failures:
                deadline = time.monotonic() + SHRINKING_SECONDS
            failures.append(failure)
            raise

    try:
        each()
    except Failure:
        raise
    except (ShrunkEnoughError, HypothesisException, ExceptionGroup):
        # Hypothesis may find an example that was stopped flaky, which says nothing about the op.
        if stopped:
            raise min(failures, key=input_size) from None
        if not failures:
            raise
        raise unstable(failures[-1]) from None


def unstable(failure: Failure) -> Failure:
    """Mark a failure as unstable, for its case passed when repeated; a failure of memory keeps its kind."""
    if failure.kind == "memory":
        return failure
    failure.kind = "unstable"
    failure.message += " (the same case passed when it was repeated: the op isn't deterministic)"
    return failure


def check_listed(check: Callable[[AnyCase], int | None], case: AnyCase) -> int | None:
    """Check a case that isn't drawn, again if it failed: hypothesis does so with those it draws."""
    try:
        return check(case)
    except Failure as failure:
        with contextlib.suppress(Failure):
            check(case)
            unstable(failure)
        raise
