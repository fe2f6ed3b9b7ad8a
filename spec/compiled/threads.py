"""The threads of kernels, and the size from which a kernel uses more than one."""

import contextlib
import functools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import numpy as np
from numba import config

from .cache import compiled

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError(
        "NUMBA_DISABLE_JIT is set. Uncompiled, NumPy's narrow integers wrap where the compiled kernels widen, so the "
        "results would be wrong. Unset it, or use the golden ops of mamba_integer.spec"
    )

ENVIRONMENT = "MAMBA_INTEGER_PARALLEL_FROM"
# Elements of the largest array below which waking the other threads, and waiting for the last of them, saves no time.
WORTH_SPREADING = int(os.environ.get(ENVIRONMENT) or 1 << 16)
# A variable that OpenMP reads once. Its threads would else spin between two kernels, which take microseconds, and on a
# busy machine keep the processor from the thread that they wait for: a training step then takes ten times as long.
WAITING, ASLEEP = "OMP_WAIT_POLICY", "PASSIVE"
# How often each version of each kernel ran. The suite must run both of all: a race hides in only one.
RUNS: Counter[tuple[str, str]] = Counter()
VERSIONS = "serial", "parallel"


@contextlib.contextmanager
def spreading_from(elements: int) -> Iterator[None]:
    """Run kernels on all threads from this many elements of an array on: 0 for all calls, as the suite does."""
    global WORTH_SPREADING
    usual, WORTH_SPREADING = WORTH_SPREADING, elements
    try:
        yield
    finally:
        WORTH_SPREADING = usual


class Threads:
    """The threads that all kernels share.

    Two of Numba's threading layers end the process where two Python threads start a parallel loop at once, and where
    a forked child starts one after its parent did. So one parallel kernel runs at a time, and the child of a process
    that has run one keeps to a single thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used = self._lost = self._started = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._lost = self._used

    @property
    def usable(self) -> bool:
        return not self._lost

    def run(self, kernel: Callable, arguments: tuple[Any, ...]) -> Any:
        self._used = True  # before the lock: a child forked in between must not wait for it
        with self._lock:
            return kernel(*arguments) if self._started else self._start(kernel, arguments)

    def _start(self, kernel: Callable, arguments: tuple[Any, ...]) -> Any:
        """Run the first kernel, at which OpenMP reads how its threads wait: asleep, where the user hasn't chosen."""
        chosen = WAITING in os.environ
        os.environ.setdefault(WAITING, ASLEEP)
        try:
            return kernel(*arguments)
        finally:
            self._started = True
            if not chosen:
                os.environ.pop(WAITING, None)


def _cause_of(error: BaseException | None) -> BaseException | None:
    """Return the error that a signal's handler raised in a kernel: Numba reports one SystemError or two."""
    while isinstance(error, SystemError):
        error = error.__cause__
    return error


THREADS = Threads()


def spread(kernel: Callable, lightness: float = 1) -> Callable:
    """Compile a kernel twice: its ``prange`` loops run on all threads if one of its arrays is large, else on one.

    ``lightness`` is how many elements of this kernel are as much work as one of most others.
    """
    alone, together = compiled(renamed(kernel)), compiled(kernel, parallel=True)
    serial, parallel = ((f"{kernel.__module__}.{kernel.__name__}", version) for version in VERSIONS)
    RUNS[serial] = RUNS[parallel] = 0

    @functools.wraps(kernel)
    def call(*arguments):
        try:
            for argument in arguments:
                if type(argument) is np.ndarray and argument.size >= WORTH_SPREADING * lightness and THREADS.usable:
                    RUNS[parallel] += 1
                    return THREADS.run(together, arguments)
            RUNS[serial] += 1
            return alone(*arguments)
        except SystemError as error:
            raise _cause_of(error) or error from None

    return call


def renamed(function: Callable) -> Callable:
    """Return the function under another name: Numba's cache knows a function by its name, not by its options."""
    copy = FunctionType(function.__code__, function.__globals__, f"{function.__name__}_alone", function.__defaults__)
    copy.__qualname__, copy.__module__ = f"{function.__qualname__}_alone", function.__module__
    return copy
