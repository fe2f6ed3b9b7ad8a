"""Whole training steps: each layer's tensors and gradients, then the masters and momenta after the update."""

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
    state, kind = initial_state(run), kind_of(run.config)
    for number, ids in enumerate(batches, 1):
        prefix = f"step {number} "

        def step(see, state=state, ids=ids):
            return train_step(run, state, ids, observe=see)

        before, (state, metrics) = state, (yield from observed(step, run.store, kind, prefix))
        yield Stage(f"{prefix}update", "optimizer", arrays_of(run, state, metrics))
        # Nobody watches: a backend may do more at once.
        unseen = train_step(run, before, ids) if goes_faster(run, len(ids)) else (state, metrics)
        yield Stage(f"{prefix}unobserved", "optimizer", arrays_of(run, *unseen))


def goes_faster(run: Run, rows: int) -> bool:
    """Return whether a backend computes steps without an observer in a way of its own, and not in an interpreter."""
    return bool(run.replay(rows, 0)) and not getattr(run.ops.ops, "interpreted", 0)


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
    """Return how a case's reference differs from the golden ops on a few tokens, or nothing."""
    few = Case(case.config, 1, 4, 1, case.gradient_bits)
    batches = few.batches(source)
    found, expected = (stages(few.run(load(name)), batches) for name in (case.reference, "golden"))
    return first_difference(found, expected)


def run_all(backends: Sequence[Backend], source: Source, full: bool) -> list[Text]:
    """Train the small model on all backends; in a full run with narrow gradients too, and the large one on a GPU."""
    texts = run(backends, source)
    large = [backend for backend in backends if backend.device.startswith("cuda")]
    if full:
        texts += run(backends, source, NARROW)
        texts += run(large, source, LARGE) if large else []
    return texts
