"""Processes that share the work: one that dies or hangs costs the op it was running, and nothing else."""

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mamba_integer.backends import Backend, BackendError
from mamba_integer.backends.app.main import show_warning
from mamba_integer.backends.launch import start_tracker
from mamba_integer.backends.processors import cores, variables
from mamba_integer.backends.stopping import unstopped

from ..presets import LONGER
from ..report import Result
from . import journal
from .comparison import Failure
from .task import Task

ENDED = "until its process ended"  # the group of cases of which only that is known
SECONDS_TO_END = 5  # that a process has to end itself when it is told to

Finish = Callable[[Task, Backend, Result], None]


def run_in_processes(tasks: list[Task], jobs: int, timeout: float, finish: Finish) -> list[Task]:
    """Run tasks until all are finished or one ends its process, whose op has then failed; return the other tasks."""
    with tempfile.TemporaryDirectory() as folder:
        with processes(min(jobs, len(tasks))) as pool:
            running: dict[Future, int] = {}
            with contextlib.suppress(BrokenProcessPool):
                for i, task in enumerate(tasks):
                    running[pool.submit(run_and_note, Path(folder), i, task, timeout)] = i
            left = dict(enumerate(tasks))
            for done in as_they_end(running):
                with contextlib.suppress(BrokenProcessPool):
                    results = done.result()
                    task = left.pop(running[done])
                    for backend, result in zip(task.backends, results, strict=True):
                        finish(task, backend, result)
            started = workers(pool)
        # The pool itself ended those that were well.
        died = {Path(folder, str(w.pid)): w.exitcode for w in started if w.exitcode != -signal.SIGTERM}
        notes = {path: journal.read(path) for path in died if path.exists()}
        if left and not notes:
            raise BackendError("a process ended before it ran an op, or was ended by something else")
        for path, note in notes.items() if left else ():
            number, position = map(int, note.title.split())
            task = tasks[number]
            backend = task.backends[position]
            result = Result(task.op, backend.name, backend.device, "failed")
            result.groups[ENDED] = len(note.cases)
            if note.running:
                result.failure = ended(backend, task.op, note.cases, died[path], timeout)
            else:
                result.notes.append(f"between two cases {why(died[path], LONGER * timeout)}")
            finish(task, backend, result)
            left[number] = task.only(other for other in task.backends if other is not backend)
    return [task for task in left.values() if task.backends]


def ended(backend: Backend, op: str, cases: Sequence[str], code: int | None, timeout: float) -> Failure:
    """Return the failure of the last of the cases that a process ran before it ended."""
    from . import replay

    kind = "timeout" if is_late(code) else "crash"
    failure = Failure(backend, replay.parse(cases[-1], op), kind, why(code, timeout))
    failure.history, failure.process_ended = tuple(cases[:-1]), True
    return failure


def run_and_note(folder: Path, number: int, task: Task, timeout: float) -> list[Result]:
    """Run a task, its number and its cases noted in a file that is named after this process."""
    from .judge import run_task

    with journal.alarm(LONGER * timeout):
        return run_task(task, journal.Journal(folder / str(os.getpid()), timeout), str(number))


def is_late(code: int | None) -> bool:
    """Return whether a process ended because its time was up."""
    return code in (-signal.SIGALRM, journal.LATE)


def why(code: int | None, seconds: float) -> str:
    """Return why a process ended that was given so many seconds."""
    if is_late(code):
        return f"no result came within {seconds:g} s: the process was ended"
    return f"the process died ({meaning(code)})"


def meaning(code: int | None) -> str:
    """Return the meaning of a process' exit code."""
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
        # A user's wish stays: such threads spin after each start of NumPy, and only float products need them.
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # a thread that spins between small kernels takes a processor from others
    }
    pool = None
    # Processes that are ended remove nothing: their temporary files go with this folder.
    folder = tempfile.TemporaryDirectory(prefix="mamba-integer-", ignore_cleanup_errors=True)
    try:
        start_tracker()
        with unstopped(), variables(settings | {"TMPDIR": folder.name}):
            pool = Pool(jobs, multiprocessing.get_context("spawn"), _serve)
            # Workers are as deaf to Ctrl-C as we are when they start; each hears again when it knows what to do then.
            heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                while len(workers(pool)) < jobs:  # a call starts one, unless one has nothing to do
                    pool.submit(int)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        yield pool
    finally:
        with unstopped():
            if pool:
                end(pool)
            folder.cleanup()


class Pool(ProcessPoolExecutor):
    """One that can be interrupted between two calls, never inside one."""

    def submit(self, *call: Any, **options: Any) -> Future:
        with unstopped():
            return super().submit(*call, **options)


def as_they_end(futures: Iterable[Future]) -> Iterator[Future]:
    """Yield futures as they end; an interrupt comes while this waits for one, where no lock is taken."""
    waiting, ended = list(futures), SimpleQueue[Future]()
    with unstopped():
        for future in waiting:
            future.add_done_callback(ended.put)
    for _ in waiting:
        yield ended.get()


def end(pool: ProcessPoolExecutor) -> None:
    """End a pool's processes, whatever they do, and all that a backend started in them."""
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
        assert worker.pid
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing of it is left
            os.killpg(worker.pid, signal.SIGKILL)


def workers(pool: ProcessPoolExecutor) -> list[multiprocessing.Process]:
    """Return a pool's processes, for which there is no public way before Python 3.14."""
    return list(pool._processes.values())


def _serve() -> None:
    """Leave Ctrl-C to the parent, and end with it; what a backend starts here ends with this process."""
    os.setpgid(0, 0)
    warnings.showwarning = show_warning  # type: ignore[assignment]
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.Thread(target=journal.watch, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os.killpg(0, signal.SIGKILL)
