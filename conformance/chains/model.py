"""Whole models: each block's tensors while a prompt is read, then logits, tokens and the state after writing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mamba_integer.backends import Backend, load
from mamba_integer.backends.files.source import Source
from mamba_integer.spec import OPS
from mamba_integer.spec.model import CONFIGS, LanguageModel, ModelConfig, State, initial_parameters
from mamba_integer.spec.model.blocks import HEAD
from mamba_integer.spec.model.generation import Options, Session, generate, inverse_temperature, share

from ..report import Text
from .stages import Stage, first_difference, follow, observed
from .text import SEED

GREEDY = Options(0, greedy=True)
SAMPLED = Options(0, seed=SEED, inverse_temperature=inverse_temperature("0.8"), top_k=200, top_p=share("0.95"))
PREFIX = 4  # tokens on which the golden model vouches for a faster reference


@dataclass(frozen=True)
class Case:
    """A model reads ``batch`` prompts of ``length`` tokens and writes ``tokens`` greedily, then as many by draws."""

    config: ModelConfig
    batch: int
    length: int
    tokens: int
    reference: str = "golden"

    @property
    def name(self) -> str:
        return f"model {self.config.name}, B {self.batch}, L {self.length}, {2 * self.tokens} tokens written"


SMALL = Case(CONFIGS["tiny"], 2, 6, 1)
MANY_ROWS = Case(CONFIGS["tiny"], 37, 2, 70, "numba")  # several rows to a program, and the end of a chunk
LARGE = Case(CONFIGS["base"], 2, 512, 256, "numba")


class Watched:
    """A model that keeps the logits of the tokens that it writes."""

    def __init__(self, model: LanguageModel):
        self.model = model
        self.logits: list[np.ndarray] = []

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def step(self, ids: np.ndarray, state: State):
        logits, state = self.model.step(ids, state)
        self.logits.append(self.model.to_numpy(logits))
        return logits, state


def stages(model: LanguageModel, ids: np.ndarray, tokens: int) -> Iterator[Stage]:
    """Yield the tensors of each layer on all ids but the last, then the tokens of two ways of writing, then the state.

    A backend may decode by kernels of whole steps, but not where each step is watched, so the draws are written twice.
    """
    watched: Any = Watched(model)
    kind = kind_of(model.config)
    empty = model.new_state(len(ids))
    prompt = np.ascontiguousarray(ids[:, :-1])
    logits, state = yield from observed(lambda see: model.prefill(prompt, empty, observe=see), model.to_numpy, kind)
    again = prefill_again(model, prompt) if repeats(model) else (model.to_numpy(logits), state)
    yield Stage("repeated", "model", {"logits": again[0], **model.state_to_numpy(again[1]).arrays})
    session = start = Session(state, np.ascontiguousarray(ids[:, -1]))
    for name, options in (("greedy", GREEDY), ("sampled", SAMPLED)):
        watched.logits.clear()
        sessions = list(generate(watched, session, replace(options, max_tokens=tokens)))
        session = sessions[-1]
        written = np.stack([one.last for one in sessions])
        yield Stage(name, HEAD, {"logits": np.stack(watched.logits), "tokens": written})
    yield Stage("state", "model", dict(model.state_to_numpy(session.state).arrays))
    decoded = list(generate(model, start, replace(SAMPLED, max_tokens=tokens)))
    arrays = model.state_to_numpy(decoded[-1].state).arrays
    yield Stage("decoded", "model", {"tokens": np.stack([one.last for one in decoded]), **arrays})


def repeats(model: LanguageModel) -> bool:
    """Return whether a backend replays repeated calls, other than in an interpreter."""
    return bool(model.repeated) and not getattr(model.ops, "interpreted", 0)


def prefill_again(model: LanguageModel, prompt: np.ndarray) -> tuple[np.ndarray, State]:
    """Read a prompt in two equal pieces and the rest, after calls of their shape that have read other tokens."""
    size = max(1, prompt.shape[1] // 2)
    other = np.ascontiguousarray(prompt[:, :size][:, ::-1])
    for _ in range(2):
        model.prefill(other, model.new_state(len(prompt)))
    state, logits = model.new_state(len(prompt)), []
    for start in range(0, prompt.shape[1], size):
        piece, state = model.prefill(np.ascontiguousarray(prompt[:, start : start + size]), state)
        logits.append(model.to_numpy(piece))
    return np.concatenate(logits, axis=1), state


def kind_of(config: ModelConfig) -> Callable[[str], str]:
    """Return a function that gives the kind of block of a layer."""
    kinds = {f"layers.{i}": f"{kind} block" for i, kind in enumerate(config.kinds)}
    return lambda layer: kinds.get(layer, "model")


def run(backends: Sequence[Backend], source: Source, case: Case = SMALL) -> list[Text]:
    """Run a model on each backend and hold it against the case's reference, for which the golden ops vouch."""
    parameters = initial_parameters(case.config, SEED)
    ids = np.resize(np.frombuffer(source.data, np.uint8), (case.batch, case.length)).astype(np.int32)
    reference = LanguageModel(case.config, parameters, load(case.reference))
    want = list(stages(reference, ids, case.tokens))
    needed = [name for name in OPS if name in vars(reference.ops)]  # the ops that it called
    unlike = "" if case.reference == "golden" else difference_on_prefix(reference, parameters, ids)

    def running(backend: Backend) -> Iterator[Stage]:
        yield from stages(LanguageModel(case.config, parameters, backend), ids, case.tokens)

    texts = []
    for backend in backends:
        text = Text(backend.name, case.name, message=unlike)
        lacking = [op for op in needed if not backend.has(op)]
        texts.append(text.lacks(lacking) if lacking else follow(text, want, running(backend)))
    return texts


def difference_on_prefix(reference: LanguageModel, parameters: Mapping[str, np.ndarray], ids: np.ndarray) -> str:
    """Return the difference of a reference from the golden model on the first tokens, or an empty text."""
    golden = LanguageModel(reference.config, parameters)
    start = ids[:, :PREFIX]
    return first_difference(stages(reference, start, 1), stages(golden, start, 1))


def run_all(backends: Sequence[Backend], source: Source, full: bool) -> list[Text]:
    """Run the small model on all backends; in a full run, also many rows, and the large model on a GPU's backends."""
    large = [backend for backend in backends if full and backend.device.startswith("cuda")]
    further = (MANY_ROWS, LARGE) if large else ()
    return run(backends, source) + [text for case in further for text in run(large, source, case)]
