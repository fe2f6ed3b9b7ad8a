"""A journal of the cases that a process ran on one backend, and the clock that each of them runs against."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from .comparison import AnyCase

LATE = 128 + signal.SIGALRM  # as a shell gives the code of a process that an alarm ended
GRACE = 1.0  # second that a process may live longer than its alarm

_seconds = _late_at = 0.0  # of the alarm that is set, and when the process should long have ended


@contextlib.contextmanager
def alarm(seconds: float | None) -> Iterator[None]:
    """End this process by SIGALRM unless the block ends in time: a kernel that hangs may never return to Python.

    Around a block inside it, an alarm waits, and starts anew after it.
    """
    global _seconds
    again = _seconds
    _set_alarm(seconds or again)
    try:
        yield
    finally:
        _set_alarm(again)


def _set_alarm(seconds: float) -> None:
    global _seconds, _late_at
    _seconds, _late_at = seconds, time.monotonic() + seconds + GRACE
    signal.setitimer(signal.ITIMER_REAL, seconds)


def watch() -> None:
    """End this process with the code LATE where a backend has disarmed its alarm; a thread runs this."""
    while True:
        time.sleep(GRACE / 2)
        if _seconds and time.monotonic() > _late_at:
            os._exit(LATE)


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
