"""Chains of ops on real text: each backend runs them in a process of its own, which it may end without harm."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain

from mamba_integer.backends import Backend

from ..presets import LONGER, TIMEOUT
from ..report import Text
from .journal import alarm
from .workers import as_they_end, is_late, processes, workers

Chain = Callable[[Sequence[Backend]], list[Text]]


@dataclass
class Lane:
    """One backend's way through chains: those that are left, and the process that runs them."""

    backend: Backend
    chains: list[tuple[str, Chain]]
    jobs: int
    limit: float
    opened: ExitStack = field(default_factory=ExitStack)
    pool: ProcessPoolExecutor | None = None

    def start(self) -> Future:
        """Start the next chain, in a fresh process where the last one ended or there was none."""
        if self.pool is None:
            self.pool = self.opened.enter_context(processes(1, sharing=self.jobs))
        return self.pool.submit(in_time, self.limit, self.chains[0][1], [self.backend])

    def finish(self, done: Future) -> tuple[str, list[Text]]:
        """Return the name of the chain that has run, and its texts; one whose process ended has failed."""
        name, _ = self.chains.pop(0)
        assert self.pool
        started = workers(self.pool)
        try:
            texts = done.result()
        except BrokenProcessPool:
            self.close()  # two threads that wait for one process at once may both miss how it ended
            late = any(is_late(worker.exitcode) for worker in started)
            message = f"no result within {self.limit:g} s" if late else "the process died"
            texts = [Text(self.backend.name, name, "failed", message)]
        if not self.chains:
            self.close()
        return name, texts

    def close(self) -> None:
        self.opened.close()
        self.pool = None


def run_chains(
    backends: Sequence[Backend], jobs: int, chains: Mapping[str, Chain], timeout: float = TIMEOUT
) -> Iterator[dict[str, list[Text]]]:
    """Run each chain on each backend, ``jobs`` at a time; yield the texts of each chain, backend by backend.

    They are yielded before the first one runs and whenever one has ended: a chain that hasn't is one text, "not run".
    A backend has one process for all chains, or several where there are more jobs than backends. With ``jobs`` 0 all
    run in this process.
    """
    texts = {name: [[Text(backend.name, name)] for backend in backends] for name in chains}

    def all_texts() -> dict[str, list[Text]]:
        return {name: list(chain.from_iterable(parts)) for name, parts in texts.items()}

    yield all_texts()
    if jobs == 0:
        for name, run in chains.items():
            texts[name] = [run(backends)]
            yield all_texts()
        return
    lanes = min(len(chains), max(1, jobs // len(backends)))
    parts = [list(chains.items())[lane::lanes] for lane in range(lanes)]
    waiting = [Lane(backend, list(part), jobs, LONGER * timeout) for backend in backends for part in parts]
    running: dict[Future, Lane] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                lane = waiting.pop()  # the last one named is most often the slowest
                running[lane.start()] = lane
            done = next(as_they_end(running))
            lane = running.pop(done)
            name, results = lane.finish(done)
            texts[name][backends.index(lane.backend)] = results
            if lane.chains:
                running[lane.start()] = lane
            yield all_texts()
    finally:
        for lane in running.values():
            lane.close()


def in_time(seconds: float, chain: Chain, backends: Sequence[Backend]) -> list[Text]:
    with alarm(seconds):
        return chain(backends)
