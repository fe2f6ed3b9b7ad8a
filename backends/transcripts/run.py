"""Committing a run while it goes on, and running a part of it again."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files.atomic import new_folder
from ..protocol import Backend
from .computation import Computation
from .folder import Transcript, Writer
from .header import Header
from .leaf import Leaf, Place
from .recorder import Recorder

Build = Callable[[Backend], Computation]  # from a backend whose ops are recorded


def recorded_calls(
    header: Header, recorder: Recorder, computation: Computation, state: Any, calls: range
) -> Iterator[tuple[int, Any]]:
    """Run calls from the state before the first of them; yield each call and the state after it."""
    for call in calls:
        recorder.begin(call)
        state = computation.advance(call, state, recorder.observe)
        recorder.end(computation.arrays(state) if header.ends_stretch(call) else None)
        yield call, state


def commit(
    folder: Path,
    header: Header,
    backend: Backend,
    build: Build,
    progress: Callable[[int], None] = lambda calls: None,
) -> bytes:
    """Run a request on a backend and write its transcript; return the root.

    Parameters
    ----------
    folder : Path
        A new or an empty one. A run that ends early leaves nothing in it.
    header : Header
    backend : Backend
    build : callable
        Returns the computation on the backend that it is handed, whose ops are recorded.
    progress : callable
        Is told after each call how many there were.
    """
    with new_folder(folder) as place, closing(Writer(place, header)) as writer:
        recorder = Recorder(backend, header.run_id, header.leaves, writer.add)
        computation = build(recorder.backend)
        for call, state in recorded_calls(header, recorder, computation, computation.start(), range(computation.calls)):
            writer.check_room(call)
            outcome = computation.outcome(call, state)
            writer.result += [] if outcome is None else [outcome]
            if header.ends_stretch(call) and call + 1 < computation.calls:
                writer.save_state(call + 1, as_numpy(backend, computation.arrays(state)))
            progress(call + 1)
        return writer.finish()


def as_numpy(backend: Backend, arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    return {n: array if isinstance(array, np.ndarray) else backend.store(array) for n, array in arrays.items()}


@dataclass(frozen=True)
class Difference:
    """The first leaf at which a run that was repeated differs from its transcript.

    ``leaf`` is that of the repeated run, None where it makes no leaf there.
    """

    place: Place
    leaf: Leaf | None
    says: str


class Replay:
    """A run that a reader repeats on any backend, from a state of a transcript."""

    def __init__(self, header: Header, backend: Backend, build: Build):
        self.header = header
        self.store = backend.store
        self._leaves: list[Leaf] = []
        self._recorder = Recorder(backend, header.run_id, header.leaves, self._leaves.append, keeps_arrays=True)
        self.computation = build(self._recorder.backend)

    def state_before(self, transcript: Transcript, call: int) -> Any:
        """Return the state before a call that starts a stretch."""
        if call == 0:
            return self.computation.start()
        return self.computation.restore(call, transcript.state(call, self.computation.state_bytes))

    def leaves(self, state: Any, calls: range) -> Iterator[tuple[int, list[Leaf], Any]]:
        """Yield each call, its leaves with their arrays, and the state after it."""
        for call, after in recorded_calls(self.header, self._recorder, self.computation, state, calls):
            made, self._leaves[:] = list(self._leaves), []
            yield call, made, after

    def check(self, transcript: Transcript, calls: range) -> Difference | None:
        """Run a stretch of calls again; return the first difference from the transcript."""
        results = iter(outcomes(transcript, calls))
        for call, made, after in self.leaves(self.state_before(transcript, calls.start), calls):
            if difference := compare(made, list(transcript.leaves(range(call, call + 1)))):
                return difference
            outcome = self.computation.outcome(call, after)
            if outcome is not None and (stated := next(results, None)) != outcome:
                says = f"the result has {stated}, the run gives {outcome}"
                return Difference(made[-1].place, made[-1], says)
        return None


def outcomes(transcript: Transcript, calls: range) -> list[int]:
    """Return the integers of a transcript's result that these calls add, and all that follow."""
    request = transcript.header.request
    silent = request.calls - request.result_length  # only first calls, which read a prompt, add nothing
    return transcript.result[max(0, calls.start - silent) :]


def compare(made: list[Leaf], stated: list[tuple[Place, bytes]]) -> Difference | None:
    """Return the first difference between the leaves of a call and those of a transcript."""
    for leaf, (place, digest) in zip(made, stated, strict=False):
        if leaf.place != place:
            return Difference(min(leaf.place, place), leaf, f"the transcript has leaf {place.name} instead")
        if leaf.digest != digest:
            return Difference(
                place, leaf, f"the transcript has {digest.hex()[:16]}, the run gives {leaf.digest.hex()[:16]}"
            )
    if len(made) > len(stated):
        return Difference(made[len(stated)].place, made[len(stated)], "the transcript has no leaf there")
    if len(made) < len(stated):
        return Difference(stated[len(made)][0], None, "the transcript has a leaf there, the run has none")
    return None
