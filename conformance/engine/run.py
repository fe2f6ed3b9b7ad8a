"""The conformance run: the ops of one or more backends, in this process or shared out among others.

Modules that run cases are loaded where cases run: a process that only hands tasks out starts without them.
"""

from collections.abc import Callable, Iterable, Sequence

from mamba_integer.backends import Backend, BackendError
from mamba_integer.backends.stopping import within
from mamba_integer.spec import OPS
from mamba_integer.spec.contract import find_op

from ..presets import LONGER, PRESETS, TIMEOUT
from ..report import Report, Result
from .calls import on_cuda
from .journal import Journal
from .task import Task
from .workers import ENDED, run_in_processes

MOST_ON_A_GPU = 2  # processes that share its memory where arrays of many rows fill it


def conform(
    backends: Backend | Sequence[Backend],
    ops: Iterable[str] | None = None,
    preset: str = "minimal",
    run_seed: int = 0,
    progress: Callable[[Result], None] = lambda result: None,
    exhaustive: bool = False,
    report: Report | None = None,
    jobs: int = 0,
    timeout: float = TIMEOUT,
) -> Report:
    """Run the suite for one or more backends; without ``ops``, for all of the specification.

    A ``report`` handed in is filled as the run goes, so that an interrupted run has one too. With ``jobs`` above 0 that
    many processes share the work, and find the backends by name; the cases are the same. An op that ends its process,
    or that takes more than ``timeout`` seconds for one case, has then failed, and the others go on. With 0 all runs in
    this process.
    """
    report = Report() if report is None else report
    selected = list(OPS if ops is None else ops)
    tested = (backends,) if isinstance(backends, Backend) else tuple(backends)
    shares = range(-(-PRESETS[preset].drawn // PRESETS[preset].share))
    with within(LONGER * timeout, BackendError("a backend's from_numpy() didn't return")):
        on_gpus = [backend for backend in tested if preset == "full" and on_cuda(backend)]
    planned = {
        (op, id(backend)): Result(op, backend.name, backend.device, shares=len(shares) + (backend in on_gpus))
        for backend in tested
        for op in selected
    }
    report.results += planned.values()

    def of(task: Task, backend: Backend) -> Result:
        return planned[task.op, id(backend)]

    def finish(task: Task, backend: Backend, share: Result) -> None:
        result = of(task, backend)
        if ENDED in share.groups:
            result.shares = 1  # the op's other shares would end their processes as well
        result.add(share)
        if not result.shares:
            progress(result)

    order = sorted(selected, key=arguments, reverse=True) if jobs else selected
    tasks = [Task(op, tested, preset, run_seed, exhaustive, share, len(shares)) for op in order for share in shares]
    sharing = min(jobs or 1, MOST_ON_A_GPU)
    rows = [Task(op, tuple(on_gpus), preset, run_seed, many_rows=sharing) for op in order if on_gpus]
    if jobs == 0:
        from .judge import run_task

        for task in tasks + rows:
            for backend, result in zip(task.backends, run_task(task, Journal()), strict=True):
                finish(task, backend, result)
        return report

    def still_open(tasks: list[Task]) -> list[Task]:
        waiting = ([backend for backend in task.backends if of(task, backend).shares] for task in tasks)
        return [task.only(backends) for task, backends in zip(tasks, waiting, strict=True) if backends]

    for phase, most in ((tasks, jobs), (rows, sharing)):
        left = still_open(phase)
        while left:
            left = still_open(run_in_processes(left, most, timeout, finish))
    if report.failures:
        from .sequences import confirm

        confirm(report.failures, timeout)
    return report


def arguments(op: str) -> int:
    """Return the number of an op's arguments: the more it has, the more cases, and the longer they take."""
    return len(find_op(op).inputs) + len(find_op(op).parameters)
