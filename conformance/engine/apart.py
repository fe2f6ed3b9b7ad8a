"""Calls of backends in a process of their own: a crash or a hang there costs the call alone."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from .workers import as_they_end, processes, workers


class Ended(Exception):
    """The process of a call has ended before the call; ``code`` is its exit code."""

    def __init__(self, code: int | None):
        self.code = code
        super().__init__(code)


@dataclass
class Apart:
    """A process that runs one call after the other, and a fresh one after each call that ends it."""

    opened: ExitStack = field(default_factory=ExitStack)
    pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what the function returns, or raise Ended."""
        if self.pool is None:
            self.pool = self.opened.enter_context(processes(1))
        started = workers(self.pool)
        try:
            return next(as_they_end([self.pool.submit(function, *arguments)])).result()
        except BrokenProcessPool:
            self.close()  # two threads that wait for one process at once may both miss how it ended
            raise Ended(started[0].exitcode if started else None) from None

    def close(self) -> None:
        self.opened.close()
        self.pool = None
