"""Whole training steps: each layer's tensors and gradients, then the masters and momenta after the update."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mamba_integer.backends import Backend, load
from mamba_integer.backends.files.source import Source
from mamba_integer.spec import OPS
from mamba_integer.spec.model import CONFIGS, ModelConfig
from mamba_integer.spec.training import Metrics, Options, Run, State, initial_state, train_step

from ..report import Text
from .model import kind_of
from .ranks import Together
from .stages import Stage, first_difference, follow, observed
from .text import SEED


@dataclass(frozen=True)
class Case:
    """A model takes ``steps`` steps on ``rows`` sequences of ``length`` tokens, with gradients of ``gradient_bits``."""

    config: ModelConfig
    rows: int
    length: int
    steps: int
    gradient_bits: int = 16
    reference: str = "golden"

    @property
    def name(self) -> str:
        steps = f"{self.steps} step{'s' * (self.steps > 1)} of {self.rows} x {self.length}"
        return f"training {self.config.name}, {steps}, gradients of {self.gradient_bits} bits"

    def run(self, backend: Backend) -> Run:
        options = Options(
            steps=self.steps, batch=self.rows, length=self.length, seed=SEED, warmup=0, gradient_bits=self.gradient_bits
        )
        return Run(self.config, options, backend)

    def batches(self, source: Source) -> np.ndarray:
        """Return the tokens of every step, which begin at the text's beginning and, where it ends, begin again."""
        shape = (self.steps, self.rows, self.length + 1)
        return np.resize(np.frombuffer(source.data, np.uint8), shape).astype(np.int32)


RANKS = 2
# Both kinds of block, a few hundred weights each: interpreters of kernels are slow.
MINUTE = replace(
    CONFIGS["tiny"],
    name="minute",
    d_model=16,
    d_inner=32,
    mamba1_d_state=4,
    mamba2_d_state=8,
    nheads=4,
    headdim=8,
    chunk_size=4,
)
SMALL = Case(MINUTE, 2, 6, 2)
NARROW = Case(MINUTE, 1, 5, 1, gradient_bits=8)
LARGE = Case(CONFIGS["verse"], 2, 200, 2, reference="numba")


def stages(run: Run, batches: np.ndarray) -> Iterator[Stage]:
    state, kind, unobserved = initial_state(run), kind_of(run.config), Unobserved(run, batches.shape[1])
    for number, ids in enumerate(batches, 1):
        prefix = f"step {number} "

        def step(see, state=state, ids=ids):
            return train_step(run, state, ids, observe=see)

        before, (state, metrics) = state, (yield from observed(step, run.store, kind, prefix))
        yield Stage(f"{prefix}update", "optimizer", arrays_of(run, state, metrics))
        steps = unobserved.steps(before, ids) if unobserved.differs else itertools.repeat((state, metrics))
        for name, result in zip(unobserved.names, steps, strict=False):
            yield Stage(f"{prefix}{name}", "optimizer", arrays_of(run, *result))


class Unobserved:
    """The steps of a run that nobody watches, so that a backend may do more at once.

    A step is taken in one pass, in a pass for each row, and by ranks.
    """

    def __init__(self, run: Run, rows: int):
        ranks = range(min(rows, RANKS)) if rows > 1 else ()
        self.run, self.by_row, self.ranks = run, replace(run, micro_batch=1), Together(run, len(ranks))
        self.names = ["unobserved", *(["unobserved, row by row"] if rows > 1 else [])]
        self.names += [f"unobserved, rank {rank} of {len(ranks)}" for rank in ranks]
        # Of a backend that has a way of its own, and not in an interpreter.
        self.differs = run.replays and not getattr(run.ops.ops, "interpreted", 0)

    def steps(self, state: State, ids: np.ndarray) -> Iterator[tuple[State, Metrics]]:
        """Yield the result of a step in each way, by `names`."""
        yield train_step(self.run, state, ids)
        if len(ids) > 1:
            yield train_step(self.by_row, state, ids)
            yield from self.ranks.step(state, ids)


def arrays_of(run: Run, state: State, metrics: Metrics) -> dict[str, np.ndarray]:
    arrays = {"loss, tokens, clipped": np.array([metrics.loss, metrics.tokens, metrics.clipped])}
    arrays |= {f"master of {name}": run.store(array) for name, array in state.masters.items()}
    arrays |= {f"momentum of {name}": run.store(array) for name, array in state.momenta.items()}
    exponents = {"exponents of gradients": state.gradient_exponents, "exponents of momenta": state.momentum_exponents}
    return arrays | {name: np.array([*table.values()]) for name, table in exponents.items()}


def run(backends: Sequence[Backend], source: Source, case: Case = SMALL) -> list[Text]:
    """Train on each backend and hold it against the case's reference, for which the golden ops vouch."""
    batches, reference = case.batches(source), case.run(load(case.reference))
    want = list(stages(reference, batches))
    needed = [name for name in OPS if name in vars(reference.kernels)]  # the ops that it called
    unlike = "" if case.reference == "golden" else difference_on_few(case, source)
    texts = []
    for backend in backends:
        text = Text(backend.name, case.name, message=unlike)
        lacking = [op for op in needed if not backend.has(op)]
        texts.append(text.lacks(lacking) if lacking else follow(text, want, stages(case.run(backend), batches)))
    return texts


def difference_on_few(case: Case, source: Source) -> str:
    """Return the difference of a case's reference from the golden ops on a few tokens, or an empty text."""
    few = Case(case.config, 1, 4, 1, case.gradient_bits)
    batches = few.batches(source)
    reference, expected = (stages(few.run(load(name)), batches) for name in (case.reference, "golden"))
    return first_difference(reference, expected)


def run_all(backends: Sequence[Backend], source: Source, full: bool) -> list[Text]:
    """Train the small model on all backends; in a full run with narrow gradients too, and the large one on a GPU."""
    texts = run(backends, source)
    large = [backend for backend in backends if backend.device.startswith("cuda")]
    if full:
        texts += run(backends, source, NARROW)
        texts += run(large, source, LARGE) if large else []
    return texts
