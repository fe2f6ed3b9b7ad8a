"""When a kernel uses more than one thread."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import FunctionType

import numpy as np
from numba import njit

# Elements of the largest array below which waking the other threads, and waiting for the last of them, saves no time.
WORTH_SPREADING = 1 << 16

_least = WORTH_SPREADING


@contextlib.contextmanager
def spreading_from(elements: int) -> Iterator[None]:
    """Use more than one thread from this many elements on, in this process: tests run the parallel kernels so."""
    global _least
    before, _least = _least, elements
    try:
        yield
    finally:
        _least = before


def spread(kernel: Callable) -> Callable:
    """Compile a kernel twice: its ``prange`` loops run on all threads if one of its arrays is large, else on one."""
    alone, together = njit(cache=True)(renamed(kernel)), njit(cache=True, parallel=True)(kernel)

    @functools.wraps(kernel)
    def call(*arguments):
        for argument in arguments:
            if type(argument) is np.ndarray and argument.size >= _least:
                return together(*arguments)
        return alone(*arguments)

    return call


def renamed(function: Callable) -> Callable:
    """Return the function under another name: Numba's cache knows a function by its name, not by its options."""
    copy = FunctionType(function.__code__, function.__globals__, f"{function.__name__}_alone", function.__defaults__)
    copy.__qualname__, copy.__module__ = f"{function.__qualname__}_alone", function.__module__
    return copy
