"""Processes that share the work: one that dies or hangs costs the op it was running, and nothing else."""

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from mamba_integer.backends import Backend, BackendError
from mamba_integer.backends.processors import cores, variables

from ..report import Result
from . import journal, replay
from .comparison import Failure
from .judge import Task, run_task

ENDED = "until its process ended"  # the group of cases of which only that is known
SECONDS_TO_END = 5  # that a process has to end itself when it is told to

Finish = Callable[[Task, Backend, Result], None]


def run_in_processes(tasks: list[Task], jobs: int, timeout: float, finish: Finish) -> list[Task]:
    """Run tasks until all are finished or one ends its process, whose op has then failed; return what is left."""
    with tempfile.TemporaryDirectory() as folder:
        with processes(jobs) as pool:
            running: dict[Future, int] = {}
            with contextlib.suppress(BrokenProcessPool):
                for i, task in enumerate(tasks):
                    running[pool.submit(run_and_note, Path(folder), i, task, timeout)] = i
            left = dict(enumerate(tasks))
            for done in as_completed(running):
                with contextlib.suppress(BrokenProcessPool):
                    results = done.result()
                    task = left.pop(running[done])
                    for backend, result in zip(task.backends, results, strict=True):
                        finish(task, backend, result)
            started = workers(pool)
        # The pool itself ended those that were well.
        died = {Path(folder, str(w.pid)): w.exitcode for w in started if w.exitcode != -signal.SIGTERM}
        notes = {path: journal.read(path) for path in died if path.exists()}
        ran = {path: note for path, note in notes.items() if note[1]}
        if left and not ran:
            raise BackendError("a process ended before it ran a case, or was ended by something else")
        for path, (title, cases) in ran.items() if left else ():
            number, position = map(int, title.split())
            task = tasks[number]
            backend = task.backends[position]
            failure = ended(backend, task.op, cases, died[path], timeout)
            result = Result(task.op, backend.name, backend.device, "failed", failure=failure)
            result.groups[ENDED] = len(cases)
            finish(task, backend, result)
            left[number] = task.only(other for other in task.backends if other is not backend)
    return [task for task in left.values() if task.backends]


def ended(backend: Backend, op: str, cases: Sequence[str], code: int | None, timeout: float) -> Failure:
    """Return the failure of the last of the cases that a process ran before it ended."""
    case = replay.parse(cases[-1], op)
    if code == -signal.SIGALRM:
        failure = Failure(backend, case, "timeout", f"no result within {timeout:g} s: the process was ended")
    else:
        failure = Failure(backend, case, "crash", f"the process died ({meaning(code)})")
    failure.history, failure.process_ended = tuple(cases[:-1]), True
    return failure


def run_and_note(folder: Path, number: int, task: Task, timeout: float) -> list[Result]:
    """Run a task, its number and its cases noted in a file that is named after this process."""
    return run_task(task, journal.Journal(folder / str(os.getpid()), timeout), str(number))


def meaning(code: int | None) -> str:
    """Return what a process' exit code tells."""
    return f"exit code {code}" if code is None or code >= 0 else f"signal {-code}, {signal.strsignal(-code)}"


@contextlib.contextmanager
def processes(jobs: int, sharing: int = 0) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of fresh processes that end with the block.

    They share the processors out among them, or among ``sharing`` processes where other pools run beside.
    """
    threads = max(1, cores() // (sharing or jobs))
    racing = max(2, threads)  # with one thread no kernel could race
    settings: dict[str, object] = {
        "NUMBA_NUM_THREADS": racing,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # a thread that spins between small kernels takes a processor from others
    }
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _serve)
    try:
        # Workers start one a call, and as deaf to Ctrl-C as we are; each hears again when it knows what to do then.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        with variables(settings):
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
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)
