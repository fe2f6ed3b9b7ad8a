"""The conformance run: hypothesis draws cases op by op, a failing case is shrunk, everything is counted."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from mamba_integer.backends import Backend
from mamba_integer.spec import OPS

from .cases import draw_case, extreme_cases, large_cases
from .comparison import Failure, check_case
from .exhaustive import exhaustive_cases
from .relations import RELATIONS, check_relation, draw_relation
from .report import Report, Result

PRESETS = {"minimal": 25, "full": 150}
SHARE, SHARE_BITS = 30, 16  # examples that run in one go, and bits of a seed that number them
CASES_A_RELATION_CASE = 6
SHRINKING_SECONDS = 20


class ShrunkEnoughError(BaseException):
    """Ends hypothesis, which catches each Exception to go on shrinking."""


def input_size(failure: Failure) -> int:
    return sum(array.size for array in failure.case.arrays)


def check_drawn(examples: int, run_seed: int, check: Callable) -> None:
    """Run ``check(random)`` for ``examples`` random sources.

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
    @given(st.randoms(use_true_random=False))
    def each(random):
        nonlocal deadline, stopped
        if time.monotonic() > deadline:
            stopped = True
            raise ShrunkEnoughError
        try:
            check(random)
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
        failures[-1].kind = "unstable"
        failures[-1].message += " (the same case passed when it was repeated: the op isn't deterministic)"
        raise failures[-1] from None


def conform_op(
    backend: Backend, op: str, examples: int, run_seed: int = 0, exhaustive: bool = False, share: int = 0
) -> Result:
    """Hold a backend's op against the golden op on ``examples`` drawn cases, and against itself.

    Each ``share`` of an op draws cases of its own; share 0 also has what isn't drawn.
    """
    result = Result(op, backend.name, backend.device)
    if not backend.has(op):
        result.status = "missing"
        return result
    own_seed = (run_seed << SHARE_BITS) + share

    def compare_drawn(random):
        result.count("drawn", check_case(backend, draw_case(op, random)))

    try:
        for case in extreme_cases(op) if share == 0 else ():
            result.count("extremes", check_case(backend, case))
        for large in large_cases(op, run_seed) if share == 0 else ():
            result.count("large", check_case(backend, large))
        check_drawn(examples, own_seed, compare_drawn)
        for name, relation in RELATIONS.items():
            needed = relation.needs(op)
            if needed is not None and all(backend.has(other) for other in needed):

                def relate_drawn(random, name=name):
                    result.count(name, check_relation(backend, draw_relation(name, op, random)))

                check_drawn(-(-examples // CASES_A_RELATION_CASE), own_seed, relate_drawn)
        for every in exhaustive_cases(op, backend) if exhaustive and share == 0 else ():
            result.count(f"exhaustive {every.exhaustive}", every.check(backend))
    except Failure as failure:
        result.status, result.failure = "failed", failure
    else:
        result.status = "passed" if result.integers else "failed"
    return result


def conform(
    backends: Backend | Sequence[Backend],
    ops: Iterable[str] | None = None,
    examples: int = PRESETS["minimal"],
    run_seed: int = 0,
    progress: Callable[[Result], None] = lambda result: None,
    exhaustive: bool = False,
    report: Report | None = None,
    jobs: int = 1,
) -> Report:
    """Run the suite for one or more backends; without ``ops``, for all of the specification.

    A ``report`` handed in is filled as the run goes, so that an interrupted run has one too. With ``jobs`` above 1 that
    many processes share the work, and find the backends by name; the cases are the same.
    """
    report = Report() if report is None else report
    selected = list(OPS if ops is None else ops)
    tested = [backends] if isinstance(backends, Backend) else backends
    planned = [(backend, Result(op, backend.name, backend.device)) for backend in tested for op in selected]
    report.results += [result for _, result in planned]
    calls = []
    for backend, result in planned:
        sizes = [min(SHARE, examples - start) for start in range(0, examples, SHARE)]
        result.shares = len(sizes)
        calls += [(result, (backend, result.op, size, run_seed, exhaustive, i)) for i, size in enumerate(sizes)]

    def finish(result: Result, share: Result) -> None:
        result.add(share)
        if not result.shares:
            progress(result)

    if jobs == 1:
        for result, call in calls:
            finish(result, conform_op(*call))
    else:
        with processes(jobs) as pool:
            running = {pool.submit(conform_op, *call): result for result, call in calls}
            for done in as_completed(running):
                finish(running[done], done.result())
    return report


def processes(jobs: int) -> ProcessPoolExecutor:
    """Return a pool of fresh processes that share the processors out among them."""
    threads = str(max(1, len(os.sched_getaffinity(0)) // jobs))
    os.environ |= {"NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
