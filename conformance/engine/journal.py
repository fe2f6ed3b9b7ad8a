"""A journal of the cases that a process ran on one backend, and the clock that each of them runs against."""

import contextlib
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from .comparison import AnyCase


@contextlib.contextmanager
def alarm(seconds: float | None) -> Iterator[None]:
    """End this process by SIGALRM unless the block ends in time: a kernel that hangs may never return to Python.

    Around a block inside it, an alarm waits, and starts anew after it.
    """
    again = signal.getitimer(signal.ITIMER_REAL)[1]  # the interval keeps the seconds of the alarm around this one
    signal.setitimer(signal.ITIMER_REAL, seconds or again, seconds or again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, again, again)


@dataclass
class Journal:
    """The cases run so far, as JSON; with a ``path`` also in a file, which outlives the process."""

    path: Path | None = None
    timeout: float | None = None
    cases: list[str] = field(default_factory=list)
    file: TextIO | None = None

    def start(self, title: str) -> None:
        """Begin anew, for one task on one backend."""
        self.cases.clear()
        if self.path:
            self.file = self.path.open("w", buffering=1)
            self.write(title)

    def write(self, line: str) -> None:
        if self.file:
            self.file.write(line + "\n")

    @contextlib.contextmanager
    def running(self, case: AnyCase) -> Iterator[None]:
        """Note a case, give it no more than its time, and note its end by an empty line."""
        self.cases.append(case.to_json())
        self.write(self.cases[-1])
        try:
            with alarm(self.timeout):
                yield
        finally:
            self.write("")


@dataclass(frozen=True)
class Note:
    """A journal of a process that has ended: its title, its cases, and whether the last of them was still running."""

    title: str
    cases: list[str]
    running: bool


def read(path: Path) -> Note:
    """Read a journal, without a last line that was cut."""
    title, *lines = path.read_text().splitlines()
    if lines and lines[-1]:
        try:
            json.loads(lines[-1])
        except json.JSONDecodeError:
            lines.pop()
    return Note(title, [line for line in lines if line], bool(lines and lines[-1]))
