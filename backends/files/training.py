"""The checkpoint of a run as one safetensors file: masters, momenta, exponents, and all that determines later steps.

Its content hash is the run's: the same on every backend, device and number of ranks, and after every interruption.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mamba_integer.spec import ops as golden
from mamba_integer.spec.contract import DomainError
from mamba_integer.spec.model.config import ConfigError, ModelConfig
from mamba_integer.spec.model.formats import Format, check_arrays
from mamba_integer.spec.ops.optimizer import GRADIENT_EXPONENT, MOMENTUM, MOMENTUM_EXPONENT
from mamba_integer.spec.training.backward import gradient_names
from mamba_integer.spec.training.masters import Master, lifted, masters_of, project
from mamba_integer.spec.training.options import Options, OptionsError
from mamba_integer.spec.training.step import Run, State
from mamba_integer.spec.version import SPEC_VERSION

from .container import (
    LARGEST_HEADER,
    CheckpointError,
    load_arrays,
    read_header,
    save_arrays,
)
from .folder import load_model
from .hashing import content_hash
from .strict_json import parse_json

TRAINING_FILE = "training.safetensors"
TRAINING_FORMAT = "mamba-integer/training"
FIELDS = ("config", "options", "tokenizer_sha256", "corpus_sha256", "origin", "step")
MOST_STEPS = 1 << 31
SCHEDULE = ("option steps", "option warmup", "option rate", "option last_rate")
SOME_STEPS = 1 << 20  # whose rates are computed at once


class TrainingError(ValueError):
    """A run can't go on as asked; the message names the difference, the value found and the value asked for."""


@dataclass(frozen=True)
class Training:
    """The description of a run: sizes, options, and the hashes of its tokenizer, tokens and starting model."""

    config: ModelConfig
    options: Options
    tokenizer_sha256: str
    corpus_sha256: str
    origin: str = ""

    def header(self, step: int) -> dict[str, str]:
        return {
            "format": TRAINING_FORMAT,
            "spec_version": SPEC_VERSION,
            "config": json.dumps(self.config.to_dict(), sort_keys=True),
            "options": json.dumps(self.options.to_dict(), sort_keys=True),
            "tokenizer_sha256": self.tokenizer_sha256,
            "corpus_sha256": self.corpus_sha256,
            "origin": self.origin,
            "step": str(step),
        }


def arrays_of(run: Run, state: State) -> dict[str, np.ndarray]:
    """Return a state as NumPy arrays by name."""
    tables = {"gradient_exponents": state.gradient_exponents, "momentum_exponents": state.momentum_exponents}
    return (
        {f"master.{name}": run.store(array) for name, array in state.masters.items()}
        | {f"momentum.{name}": run.store(array) for name, array in state.momenta.items()}
        | {name: np.array(list(table.values()), np.int32) for name, table in tables.items()}
    )


def array_formats(config: ModelConfig) -> dict[str, Format]:
    """Return the format of each array of a training checkpoint."""
    masters = masters_of(config)
    tables = {
        "gradient_exponents": (len(gradient_names(config)), GRADIENT_EXPONENT),
        "momentum_exponents": (len(masters), MOMENTUM_EXPONENT),
    }
    return (
        {f"master.{n}": Format(m.shape, "int32", "Q.24", m.low, m.high) for n, m in masters.items()}
        | {f"momentum.{n}": Format(m.shape, "int32", "", MOMENTUM.low, MOMENTUM.high) for n, m in masters.items()}
        | {name: Format((size,), "int32", "", bound.low, bound.high) for name, (size, bound) in tables.items()}
    )


def training_hash(training: Training, run: Run, state: State) -> str:
    """Return the content hash that `save_training` would write."""
    return content_hash(arrays_of(run, state), training.header(state.step))


def save_training(path: Path, training: Training, run: Run, state: State) -> str:
    """Write a training checkpoint atomically; return its content hash."""
    return save_arrays(path, arrays_of(run, state), training.header(state.step))


def read_training(path: Path) -> tuple[Training, int, dict[str, np.ndarray]]:
    """Read a training checkpoint: the description of its run, its step and its arrays.

    Raises
    ------
    CheckpointError
        The file is missing, truncated, no training checkpoint, of another specification version, altered, or holds an
        array of the wrong shape, dtype or range.
    """
    header = read_header(path, TRAINING_FORMAT, FIELDS)
    try:
        config = ModelConfig.from_dict(parse_json(header["config"]))
        options = Options.from_dict(parse_json(header["options"]))
        step = int(header["step"])
    except (ConfigError, OptionsError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its header makes no run: {error}") from error
    if not 0 <= step < MOST_STEPS:
        raise CheckpointError(f"{path}: step: found {step}, allowed [0, {MOST_STEPS - 1}]")
    wanted = array_formats(config)
    arrays = load_arrays(path, LARGEST_HEADER + sum(f.size_in_bytes for f in wanted.values()))
    try:
        check_arrays(arrays, wanted)
    except DomainError as error:
        raise CheckpointError(f"{path}: {error}") from error
    training = Training(config, options, header["tokenizer_sha256"], header["corpus_sha256"], header["origin"])
    if content_hash(arrays, training.header(step)) != header["content_sha256"]:
        raise CheckpointError(f"{path}: altered: its content hash is not the one it was written with")
    return training, step, arrays


def load_training(path: Path, training: Training, run: Run) -> State:
    """Read the state of this very run, or of one that differs in its schedule's future alone.

    Every integer of a state depends on the learning rates of the steps that were taken, not on those to come. So a run
    may go on with other ``steps``, ``warmup``, ``rate`` and ``last_rate`` where they give each step that was taken the
    rate that it had; it then ends at the hash of a run that was planned so from the start.

    Raises
    ------
    CheckpointError
        As `read_training`.
    TrainingError
        The checkpoint is of a run with another config, option, tokenizer or corpus; or of another schedule, by which
        a step that was taken would have had another rate, or which ends before the checkpoint.
    """
    stored, step, arrays = read_training(path)
    for name, before, after in differences(stored, training):
        if name not in SCHEDULE:
            raise TrainingError(
                f"{path}: a run with another {name}: found {after}, allowed {before}; other runs need another folder"
            )
    check_schedule(path, stored.options, training.options, step)
    return state_of(run, step, arrays)


def state_of(run: Run, step: int, arrays: Mapping[str, np.ndarray]) -> State:
    """Return the state of a run that `arrays_of` gave, in arrays of the run's backend."""
    masters = {name: run.load(arrays[f"master.{name}"]) for name in run.masters}
    momenta = {name: run.load(arrays[f"momentum.{name}"]) for name in run.masters}
    tables = arrays["gradient_exponents"].tolist(), arrays["momentum_exponents"].tolist()
    errors, momentum = (
        dict(zip(n, t, strict=True)) for n, t in zip((run.gradient_names, run.masters), tables, strict=True)
    )
    return State(step, masters, momenta, errors, momentum)


def check_schedule(path: Path, stored: Options, wanted: Options, step: int) -> None:
    """Raise TrainingError unless ``wanted`` can go on where ``stored`` stands after ``step`` steps."""
    if step > wanted.steps:
        raise TrainingError(f"{path}: option steps: found {wanted.steps}, but the run has done {step} steps")
    if stored.schedule == wanted.schedule:
        return
    for start in range(0, step, SOME_STEPS):
        taken = np.arange(start, min(start + SOME_STEPS, step), dtype=np.int32)
        had, has = (golden.learning_rate(taken, **options.schedule) for options in (stored, wanted))
        if (other := np.flatnonzero(had != has)).size:
            first = int(other[0])
            raise TrainingError(
                f"{path}: another schedule: its step {start + first} had learning rate {had[first]}, by the options "
                f"asked for it has {has[first]} (units of 2**-24); a run can be made longer before its rate falls, or "
                "where last_rate is equal to rate, with the same warmup"
            )


def origin_masters(path: Path, forms: Mapping[str, Master]) -> tuple[str, dict[str, np.ndarray]]:
    """Return the hash of a model's origin, and masters from which to train the model further.

    If the run that made the model lies beside it, that run is the origin and its masters are returned. Otherwise the
    model itself is the origin, and the masters are made from its weights. ``forms`` are those of `masters_of`.

    Raises
    ------
    CheckpointError
        As `load_model` and `read_training`.
    TrainingError
        The training checkpoint beside the model is not that of its run.
    """
    model = load_model(path).checkpoint
    file = (path if path.is_dir() else path.parent) / TRAINING_FILE
    if not file.exists():
        return model.sha256, {name: lifted(model.parameters[name], forms[name]) for name in forms}
    training, step, arrays = read_training(file)
    if training.config != model.config:
        raise TrainingError(f"{file}: found the run of a model with other sizes than those of {path}")
    masters = {name: arrays[f"master.{name}"] for name in forms}
    for name, parameter in project(golden, masters, forms).items():
        if not np.array_equal(parameter, model.parameters[name]):
            raise TrainingError(
                f"{file}: its masters don't give {name} of {path}; train --resume writes the model anew"
            )
    return content_hash(arrays, training.header(step)), masters


def differences(a: Training, b: Training) -> list[tuple[str, Any, Any]]:
    """Return the name and both values of each field in which two runs differ."""
    sides = [
        dict(flat("config", t.config.to_dict()) | flat("option", t.options.to_dict()))
        | {"tokenizer": t.tokenizer_sha256[:16], "corpus": t.corpus_sha256[:16], "origin": t.origin[:16] or "none"}
        for t in (a, b)
    ]
    return [(name, sides[0][name], sides[1][name]) for name in sides[0] if sides[0][name] != sides[1][name]]


def flat(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{kind} {name}": value for name, value in values.items()}
