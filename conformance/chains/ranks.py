"""Several ranks of a training step in one process: threads that take turns and meet where ranks exchange arrays."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mamba_integer.backends.app.loop import rank_rows
from mamba_integer.spec.training import Metrics, Run, State, train_step


class DesertedError(RuntimeError):
    """A rank waits for another one that has failed."""


class Meeting:
    """The place where ranks meet. One of them runs at a time, with ``turn`` held; a rank that waits lets it go."""

    def __init__(self, ranks: int):
        self.ranks, self.turn = ranks, threading.Condition()
        self.parts: dict[int, Any] = {}
        self.complete: dict[int, Any] = {}  # the parts of the last meeting
        self.meetings = self.ended = 0

    def meet(self, rank: int, part: Any) -> list[Any]:
        """Return the parts of all ranks once the last one has come."""
        number, self.parts[rank] = self.meetings, part
        if len(self.parts) == self.ranks:
            self.complete, self.parts = self.parts, {}
            self.meetings += 1
            self.turn.notify_all()
        else:
            self.turn.wait_for(lambda: self.meetings > number or self.ended)
        if self.meetings == number:
            raise DesertedError(f"rank {rank} of {self.ranks} waits for a rank that has ended")
        return [self.complete[other] for other in range(self.ranks)]

    def run(self, work: Callable[[], Any]) -> Any:
        with self.turn:
            try:
                return work()
            finally:
                self.ended += 1
                self.turn.notify_all()

    def results(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run each rank's work in a thread; return the results, or raise the error of the first rank that failed."""
        self.ended, self.parts = 0, {}
        with ThreadPoolExecutor(self.ranks) as pool:
            futures = [pool.submit(self.run, work) for work in works]
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, DesertedError)):
            raise error
        return [future.result() for future in futures]


@dataclass(frozen=True)
class Member:
    """The exchange of one rank, as `distributed.Ranks` is."""

    meeting: Meeting
    rank: int

    @property
    def ranks(self) -> int:
        return self.meeting.ranks

    def sum(self, arrays: list[Any]) -> list[Any]:
        return [sum(rest, first) for first, *rest in zip(*self.meeting.meet(self.rank, arrays), strict=True)]

    def sums(self, narrow: bool = False) -> "Sums":
        return Sums(self, [])


@dataclass(frozen=True)
class Sums:
    """The sums of one rank, like `distributed.Sums`: each is complete at once and as wide as its terms."""

    member: Member
    arrays: list[Any]

    def add(self, array: Any) -> None:
        self.arrays.append(array)

    def totals(self) -> list[Any]:
        return self.member.sum(self.arrays)

    def settle(self, numbers: np.ndarray) -> tuple[np.ndarray, bool]:
        return np.stack(self.member.meeting.meet(self.member.rank, numbers)), True


class Together:
    """The steps of a run that is shared by several ranks."""

    def __init__(self, run: Run, ranks: int):
        self.meeting = Meeting(ranks)
        self.runs = [replace(run, exchange=Member(self.meeting, rank)) for rank in range(ranks)]

    def step(self, state: State, ids: np.ndarray) -> list[tuple[State, Metrics]]:
        """Return the result of a step on each rank; ``ids`` are the rows of all."""
        parts = [(run, rank_rows(run)) for run in self.runs]
        works = [partial(train_step, run, state, ids[rows.start : rows.stop], rows.start) for run, rows in parts]
        return self.meeting.results(works)
