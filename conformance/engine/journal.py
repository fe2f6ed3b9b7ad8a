"""A journal of the cases that a process ran on one backend, and the clock that each of them runs against."""

import contextlib
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .comparison import AnyCase


@contextlib.contextmanager
def alarm(seconds: float | None) -> Iterator[None]:
    """End this process by SIGALRM unless the block ends in time: a kernel that hangs may never return to Python."""
    if seconds:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if seconds:
            signal.setitimer(signal.ITIMER_REAL, 0)


@dataclass
class Journal:
    """The cases run so far, as JSON; with a ``path`` also in a file, which outlives the process."""

    path: Path | None = None
    timeout: float | None = None
    cases: list[str] = field(default_factory=list)

    def start(self, title: str) -> None:
        """Begin anew, for one task on one backend."""
        self.cases.clear()
        if self.path:
            self.path.write_text(title + "\n")

    @contextlib.contextmanager
    def running(self, case: AnyCase) -> Iterator[None]:
        """Note a case, and give it no more than its time."""
        self.cases.append(case.to_json())
        if self.path:
            with self.path.open("a") as file:
                file.write(self.cases[-1] + "\n")
        with alarm(self.timeout):
            yield


def read(path: Path) -> tuple[str, list[str]]:
    """Return the title and the cases of a journal, without a last line that was cut."""
    title, *cases = path.read_text().splitlines()
    if cases:
        try:
            json.loads(cases[-1])
        except json.JSONDecodeError:
            cases.pop()
    return title, cases
