"""The conformance run: hypothesis draws cases op by op, a failing case is shrunk, everything is counted."""

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisException

from mamba_integer.backends import Backend, BackendError, UnsupportedError
from mamba_integer.backends.processors import cores
from mamba_integer.spec import OPS

from ..presets import PRESETS
from ..report import Report, Result, Text
from . import replay
from .cases import draw_case, extreme_cases, large_cases
from .comparison import AnyCase, Failure
from .exhaustive import exhaustive_cases
from .relations import RELATIONS, draw_relation
from .strategies import drawn

SHARE, SHARE_BITS = 30, 16  # examples that run in one go, and bits of a seed that number them
CASES_A_RELATION_CASE = 6
SHRINKING_SECONDS = 20
LARGE_RUNS = 3  # of each large case where many threads share it, which may race: anywhere but on a CPU
SECONDS_TO_END = 5  # that a process has to end itself when it is told to


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


def conform_op(
    backend: Backend,
    op: str,
    examples: int,
    run_seed: int = 0,
    exhaustive: bool = False,
    share: int = 0,
    begin: Callable[[AnyCase], Any] = lambda case: None,
) -> Result:
    """Hold a backend's op against the golden op on ``examples`` drawn cases, and against itself.

    Each ``share`` of an op draws cases of its own; share 0 also has what isn't drawn. ``begin`` is called before each
    case is checked.
    """
    result = Result(op, backend.name, backend.device)
    if not backend.has(op):
        result.status = "missing"
        return result
    own_seed = (run_seed << SHARE_BITS) + share

    def check(case: AnyCase) -> int | None:
        begin(case)
        try:
            return replay.check(backend, case)
        except UnsupportedError as reason:
            result.skip(str(reason))
            return None

    def check_and_count(group: str, case: AnyCase) -> None:
        result.count(group, check(case))

    try:
        for case in extreme_cases(op) if share == 0 else ():
            result.count("extremes", check_listed(check, case))
        for large in large_cases(op, run_seed) if share == 0 else ():
            for _ in range(1 if backend.device == "cpu" else LARGE_RUNS):
                result.count("large", check_listed(check, large))
        check_drawn(examples, own_seed, partial(draw_case, op), partial(check_and_count, "drawn"))
        for name, relation in RELATIONS.items():
            needed = relation.needs(op)
            if needed is not None and all(backend.has(other) for other in needed):
                few = -(-examples // CASES_A_RELATION_CASE)
                check_drawn(few, own_seed, partial(draw_relation, name, op), partial(check_and_count, name))
        for every in exhaustive_cases(op, backend) if exhaustive and share == 0 else ():
            result.count(f"exhaustive {every.exhaustive}", check_listed(check, every))
    except Failure as failure:
        result.status, result.failure = "failed", failure
    else:
        result.status = result.verdict
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
    many processes share the work, and find the backends by name; the cases are the same. An op that ends its process
    has then failed, and the others go on.
    """
    report = Report() if report is None else report
    selected = list(OPS if ops is None else ops)
    tested = [backends] if isinstance(backends, Backend) else backends
    planned = [(backend, Result(op, backend.name, backend.device)) for backend in tested for op in selected]
    report.results += [result for _, result in planned]
    calls: list[Call] = []
    for backend, result in planned:
        sizes = [min(SHARE, examples - start) for start in range(0, examples, SHARE)]
        result.shares = len(sizes)
        calls += [Call(result, (backend, result.op, size, run_seed, exhaustive, i)) for i, size in enumerate(sizes)]

    def finish(result: Result, share: Result) -> None:
        result.add(share)
        if not result.shares:
            progress(result)

    if jobs == 1:
        for call in calls:
            finish(call.result, conform_op(*call.arguments))
    while jobs > 1 and calls:
        calls = conform_in_processes(calls, jobs, finish)
    return report


Arguments = tuple[Backend, str, int, int, bool, int]


@dataclass(eq=False)
class Call:
    """One share of the work: the arguments of ``conform_op``, and the result that it is a part of."""

    result: Result
    arguments: Arguments


def conform_in_processes(calls: list[Call], jobs: int, finish: Callable[[Result, Result], None]) -> list[Call]:
    """Run calls until all are finished or one ends its process, whose op has then failed; return what is to be run."""
    with tempfile.TemporaryDirectory() as folder:
        with processes(jobs) as pool:
            running: dict[Future, Call] = {}
            with contextlib.suppress(BrokenProcessPool):
                for i, call in enumerate(calls):
                    running[pool.submit(conform_and_note, Path(folder), i, call.arguments)] = call
            left = dict.fromkeys(calls)
            for done in as_completed(running):
                with contextlib.suppress(BrokenProcessPool):
                    finish(running[done].result, done.result())
                    del left[running[done]]
            started = workers(pool)
        # The pool itself ended those that were well.
        died = {Path(folder, str(w.pid)): w.exitcode for w in started if w.exitcode != -signal.SIGTERM}
        notes = {path: path.read_text() for path in died if path.exists()}
        if left and not notes:
            raise BackendError("a process ended before it ran a case, or was ended by something else")
        for path, note in notes.items() if left else ():
            number, case = note.split(maxsplit=1)
            call = calls[int(number)]
            backend, op, *_ = call.arguments
            message = f"the process died ({meaning(died[path])})"
            failure = Failure(backend, replay.parse(case, op), "crash", message)
            call.result.shares = min(1, call.result.shares)  # the op's other shares would end their processes as well
            finish(call.result, Result(op, backend.name, status="failed", failure=failure))
    return [call for call in left if call.result.shares]


def conform_and_note(folder: Path, number: int, arguments: Arguments) -> Result:
    """Run a call, its number and the case being checked in a file that is named after this process."""
    note = folder / str(os.getpid())
    return conform_op(*arguments, lambda case: note.write_text(f"{number} {case.to_json()}"))


def meaning(code: int | None) -> str:
    """Return what a process' exit code tells."""
    return f"exit code {code}" if code is None or code >= 0 else f"signal {-code}, {signal.strsignal(-code)}"


def run_texts(
    backends: Sequence[Backend], jobs: int, name: str, run: Callable[..., list[Text]], *arguments: Any
) -> list[Text]:
    """Run texts on each backend, with ``jobs`` above 1 in a process of its own, which it may end without harm."""
    if jobs == 1:
        return run(backends, *arguments)
    texts: list[Text] = []
    for backend in backends:
        with processes(1) as pool:
            try:
                texts += pool.submit(run, [backend], *arguments).result()
            except BrokenProcessPool:
                texts.append(Text(backend.name, name, "failed", "the process died"))
    return texts


@contextlib.contextmanager
def processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of fresh processes that share the processors out among them, and that end with the block."""
    threads = str(max(1, cores() // jobs))
    os.environ |= {"NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _serve)
    try:
        # Workers start one a call, and as deaf to Ctrl-C as we are; each hears again when it knows what to do then.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        for _ in range(jobs):
            pool.submit(int)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        yield pool
    finally:
        running = workers(pool)
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in running:
            worker.terminate()
        for worker in running:
            worker.join(SECONDS_TO_END)
            worker.kill()
            # The pool's own thread may have been the one to hear of the end, and be about to note the exit code.
            while worker.exitcode is None:
                worker.join(0.01)


def workers(pool: ProcessPoolExecutor) -> list[multiprocessing.Process]:
    """Return a pool's processes, for which there is no public way before Python 3.14."""
    return list(pool._processes.values())


def _serve() -> None:
    """Leave Ctrl-C to the parent (to programs that a backend starts it is what it always was), and end with it."""
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)
