"""When a kernel uses more than one thread."""

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from types import FunctionType

import numpy as np
from numba import njit

ENVIRONMENT = "MAMBA_INTEGER_PARALLEL_FROM"
# Elements of the largest array below which waking the other threads, and waiting for the last of them, saves no time.
WORTH_SPREADING = int(os.environ.get(ENVIRONMENT) or 1 << 16)
# How often each version of each kernel ran: the suite must run both of all, a race hides in only one.
RUNS: Counter[tuple[str, str]] = Counter()
VERSIONS = "serial", "parallel"


@contextlib.contextmanager
def spreading_from(elements: int) -> Iterator[None]:
    """Run kernels on all threads if one of their arrays has so many elements: 0 for all calls, as the tests do."""
    global WORTH_SPREADING
    usual, WORTH_SPREADING = WORTH_SPREADING, elements
    try:
        yield
    finally:
        WORTH_SPREADING = usual


def spread(kernel: Callable) -> Callable:
    """Compile a kernel twice: its ``prange`` loops run on all threads if one of its arrays is large, else on one."""
    alone, together = njit(cache=True)(renamed(kernel)), njit(cache=True, parallel=True)(kernel)
    serial, parallel = ((f"{kernel.__module__}.{kernel.__name__}", version) for version in VERSIONS)
    RUNS[serial] = RUNS[parallel] = 0

    @functools.wraps(kernel)
    def call(*arguments):
        for argument in arguments:
            if type(argument) is np.ndarray and argument.size >= WORTH_SPREADING:
                RUNS[parallel] += 1
                return together(*arguments)
        RUNS[serial] += 1
        return alone(*arguments)

    return call


def renamed(function: Callable) -> Callable:
    """Return the function under another name: Numba's cache knows a function by its name, not by its options."""
    copy = FunctionType(function.__code__, function.__globals__, f"{function.__name__}_alone", function.__defaults__)
    copy.__qualname__, copy.__module__ = f"{function.__qualname__}_alone", function.__module__
    return copy
