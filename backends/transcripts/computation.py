"""Runs that can be committed, as calls that each go on from the state of the last: generation, scoring, training.

Each call is a pure function of the request, the model and that state, so any call can be run again alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from mamba_integer.spec.contract import DomainError
from mamba_integer.spec.model.blocks import Observe
from mamba_integer.spec.model.formats import Format, check_arrays
from mamba_integer.spec.model.generation import Session, generate
from mamba_integer.spec.model.language_model import LanguageModel
from mamba_integer.spec.model.state import State
from mamba_integer.spec.training.step import Run, initial_state, train_step
from mamba_integer.spec.training.step import State as Trained

from ..files.corpus import Corpus
from ..files.training import array_formats, arrays_of, state_of
from .errors import TranscriptError
from .request import Generate, Request, Score, Train

LAST, LOSS = "last", "loss"
VALUE_BYTES = 8  # of either, at most


class Computation(Protocol):
    """A run as calls numbered from 0.

    ``outcome`` is the integer that a call adds to the run's result, if any; ``state_bytes`` what a state's arrays hold.
    """

    calls: int
    state_bytes: int

    def start(self) -> Any: ...
    def advance(self, call: int, state: Any, observe: Observe) -> Any: ...
    def arrays(self, state: Any) -> dict[str, Any]: ...
    def outcome(self, call: int, state: Any) -> int | None: ...
    def restore(self, calls: int, arrays: Mapping[str, np.ndarray]) -> Any: ...


@dataclass(frozen=True)
class Reading:
    """A model's state, and one integer beside it: the token to be read next, or the loss so far."""

    state: State
    value: int


class Observed:
    """A model that shows every tensor of its calls to an observer."""

    def __init__(self, model: LanguageModel, observe: Observe):
        self.model, self.observe = model, observe

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def prefill(self, ids: Any, state: State, last_only: bool = False):
        return self.model.prefill(ids, state, last_only, self.observe)

    def step(self, ids: Any, state: State):
        return self.model.step(ids, state, self.observe)


class Generation:
    """A prompt read in pieces, then one token written per call."""

    def __init__(self, model: LanguageModel, request: Generate):
        self.model, self.request = model, request
        self.calls, self.state_bytes = request.calls, reading_bytes(model)

    def start(self) -> Reading:
        return Reading(self.model.new_state(1), self.request.prompt[0])

    def advance(self, call: int, state: Reading, observe: Observe) -> Reading:
        model: Any = Observed(self.model, observe)
        first, end = self.request.piece(call)
        if end > first:
            prompt = self.request.prompt
            _, after = model.prefill(np.array([prompt[first:end]], np.int32), state.state, last_only=True)
            return Reading(after, prompt[end])
        session = Session(state.state, np.array([state.value], np.int32))
        (written,) = generate(model, session, replace(self.request.options, max_tokens=1))
        return Reading(written.state, int(written.last[0]))

    def arrays(self, state: Reading) -> dict[str, Any]:
        return {**state.state.arrays, LAST: self.model.from_numpy(np.array([state.value], np.int32))}

    def outcome(self, call: int, state: Reading) -> int | None:
        return state.value if call >= self.request.pieces else None

    def restore(self, calls: int, arrays: Mapping[str, np.ndarray]) -> Reading:
        token = Format((1,), "int32", "id", 0, self.model.config.vocab_size - 1)
        return restored(self.model, self.request.position(calls), arrays, LAST, token)


class Scoring:
    """A text read in chunks, whose losses are summed."""

    def __init__(self, model: LanguageModel, request: Score):
        self.model, self.request = model, request
        self.calls, self.state_bytes = request.calls, reading_bytes(model)

    def start(self) -> Reading:
        return Reading(self.model.new_state(1), 0)

    def advance(self, call: int, state: Reading, observe: Observe) -> Reading:
        model, ids = self.model, self.request.ids
        first, end = self.request.piece(call)
        logits, after = model.prefill(np.array([ids[first:end]], np.int32), state.state, False, observe)
        target = model.from_numpy(np.array([ids[first + 1 : end + 1]], np.int32))
        losses = model.ops.cross_entropy_pow2(logits, target, f=model.formats.activation)
        return Reading(after, state.value + int(model.to_numpy(losses).sum(dtype=np.int64)))

    def arrays(self, state: Reading) -> dict[str, Any]:
        return {**state.state.arrays, LOSS: self.model.from_numpy(np.array([state.value], np.int64))}

    def outcome(self, call: int, state: Reading) -> int | None:
        return state.value

    def restore(self, calls: int, arrays: Mapping[str, np.ndarray]) -> Reading:
        loss = Format((1,), "int64", "Q.16", 0, (1 << 62) - 1)
        return restored(self.model, self.request.piece(calls)[0], arrays, LOSS, loss)


class Training:
    """One call per step."""

    def __init__(self, run: Run, corpus: Corpus):
        self.run, self.corpus = run, corpus
        self.calls = run.options.steps
        self.state_bytes = sum(format.size_in_bytes for format in array_formats(run.config).values())
        self._losses: dict[int, int] = {}

    def start(self) -> Trained:
        return initial_state(self.run)

    def advance(self, call: int, state: Trained, observe: Observe) -> Trained:
        options = self.run.options
        ids = self.corpus.batch(options.seed, call, range(options.batch), options.length)
        after, metrics = train_step(self.run, state, ids, observe=observe)
        self._losses = {call: metrics.loss}
        return after

    def arrays(self, state: Trained) -> dict[str, Any]:
        return arrays_of(self.run, state)

    def outcome(self, call: int, state: Trained) -> int | None:
        return self._losses[call]

    def restore(self, calls: int, arrays: Mapping[str, np.ndarray]) -> Trained:
        checked(arrays, array_formats(self.run.config))
        return state_of(self.run, calls, arrays)


def reading_bytes(model: LanguageModel) -> int:
    """Return how many bytes the arrays of a `Reading` have."""
    return sum(format.size_in_bytes for format in model.state_formats(1).values()) + VALUE_BYTES


def restored(
    model: LanguageModel, position: int, arrays: Mapping[str, np.ndarray], name: str, format: Format
) -> Reading:
    others = {key: array for key, array in arrays.items() if key != name}
    checked({key: array for key, array in arrays.items() if key == name}, {name: format})
    checked(others, model.state_formats(1))
    return Reading(model.state_from_numpy(State(others, (position,))), int(arrays[name][0]))


def checked(arrays: Mapping[str, np.ndarray], formats: Mapping[str, Format]) -> None:
    try:
        check_arrays(arrays, formats)
    except DomainError as error:
        raise TranscriptError(f"a snapshot of the transcript is no state: {error}") from error


def computation_for(request: Request, model: Any, corpus: Corpus | None = None) -> Computation:
    """Return the run of a request; ``model`` is a `LanguageModel`, or a `Run` to train."""
    if isinstance(request, Train):
        assert corpus is not None
        return Training(model, corpus)
    return Generation(model, request) if isinstance(request, Generate) else Scoring(model, request)
