"""The ranks of a run: a process for each, all of which end when one fails. Nothing here needs Torch; a rank does."""

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any

from .processors import cores, variables
from .protocol import BackendError

NCCL_BLOCKS = "NCCL_MAX_CTAS"  # thread blocks of an exchange, which others of a pass then wait for
IGNORED = signal.SIGINT, signal.SIGHUP  # by ranks: they reach all processes of a terminal
FEW_BLOCKS = "4"  # enough for sums that travel while the pass goes on


class RankError(BackendError):
    """A rank died or failed; the message names the rank and how it ended, or its error."""


def free_address() -> str:
    """Return an address on this machine at which ranks can meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def launch(ranks: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run ``work(rank, *arguments)`` in one process per rank; end them all when one fails or this process dies.

    Raises
    ------
    RankError
        A rank died or raised: with the message of its own RankError, if it was one.
    """
    context = multiprocessing.get_context("spawn")
    threads, blocks = max(1, cores() // ranks), os.environ.get(NCCL_BLOCKS, FEW_BLOCKS)
    failures = context.SimpleQueue()
    processes = [
        context.Process(target=_run_rank, args=(failures, work, rank, *arguments), daemon=True) for rank in range(ranks)
    ]
    try:
        with (
            ignored(*IGNORED),
            variables({"NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, NCCL_BLOCKS: blocks}),
        ):
            for process in processes:
                process.start()
        running = processes
        while running:
            wait([process.sentinel for process in running])
            codes = [process.exitcode for process in processes]
            if any(codes):
                raise RankError(_cause(codes, failures))
            running = [process for process, code in zip(processes, codes, strict=True) if code is None]
    finally:
        alive = [process for process in processes if process.is_alive()]
        for process in alive:
            process.terminate()
        for process in alive:
            process.join()


@contextmanager
def ignored(*numbers: int) -> Iterator[None]:
    """Ignore signals in processes that are started in the block: they reach them too, but their parent ends them."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_tracker() -> None:
    """Start the process that keeps track of what processes share: it would hear SIGHUP when a terminal is closed."""
    if threading.current_thread() is threading.main_thread():
        with ignored(signal.SIGHUP):
            resource_tracker.ensure_running()


def _cause(codes: Sequence[int | None], failures: Any) -> str:
    """Return why the first rank failed, which takes the others with it: one that was killed, or the first to tell."""
    code, rank = min((code, rank) for rank, code in enumerate(codes) if code)
    if code > 0 and not failures.empty():
        return failures.get()
    ending = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"rank {rank} of {len(codes)} ended with {ending}; --resume goes on from the last checkpoint"


def _run_rank(failures: Any, work: Callable[..., None], rank: int, *arguments: Any) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        work(rank, *arguments)
    except Exception as error:
        expected = isinstance(error, RankError)
        failures.put(str(error) if expected else f"rank {rank}: internal error: {type(error).__name__}: {error}")
        os._exit(1)  # an orderly exit may wait for exchanges that the others never join


def _die_with_parent() -> None:
    """End this process with the one that launched it, however that ends: an orphan would train on in its folder."""
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
        os._exit(1)
