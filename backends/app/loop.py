"""The training loop: steps, validation, a log, checkpoints, and continuing an interrupted run.

A run is a folder. ``training.safetensors`` is its last checkpoint. ``log.jsonl`` has one line per step and is cut back
to the checkpoint when the run continues. ``model.safetensors`` and ``tokenizer.json`` are the model at the checkpoint,
for `generate`. ``.lock`` is held while the run writes.

A run may be killed at any moment. Continued, it ends at the hash of an uninterrupted run.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mamba_integer.spec.contract import trusted_values
from mamba_integer.spec.model.blocks import Call, Network
from mamba_integer.spec.model.scoring import LOSS_BITS, show
from mamba_integer.spec.training.masters import project
from mamba_integer.spec.training.step import Run, State, initial_state, train_step

from ..files.atomic import write_atomically
from ..files.corpus import Corpus
from ..files.folder import TextModel, save_model
from ..files.model import Checkpoint
from ..files.regular import read_regular
from ..files.strict_json import parse_json
from ..files.text import LONGEST_TEXT, lines_of
from ..files.tokenizer import Tokenizer
from ..files.training import TRAINING_FILE, Training, load_training, save_training, training_hash

LOG_FILE = "log.jsonl"


@dataclass(frozen=True)
class Habits:
    """The intervals at which a run saves and validates; neither changes an integer of the result."""

    save_every: int = 50
    validate_every: int = 50
    windows: int = 32  # of the validation text


@dataclass(frozen=True)
class Step:
    """A step as it is shown and logged. ``validation`` is None unless the model was validated after the step."""

    step: int
    bits_per_byte: str
    rate: int
    clipped: int
    tokens_per_second: int
    validation: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}


def train(
    run: Run,
    training: Training,
    corpus: Corpus,
    tokenizer: Tokenizer,
    folder: Path,
    habits: Habits,
    masters: dict[str, np.ndarray] | None = None,
    resume: bool = False,
    progress: Callable[[Step], None] = lambda progress: None,
) -> dict[str, Any]:
    """Train to the last step; return the run's hash, its step and its bits per byte of validation text.

    ``masters`` are those of the model to train further; without them a fresh model is trained. Of several ranks only
    the first writes files.

    Raises
    ------
    ProofError, DomainError
        A batch of this size may leave an op's domain.
    TrainingError, CheckpointError
        The folder's checkpoint is not of this run, or damaged.
    OSError
        A file can't be written; the last checkpoint is whole.
    """
    run.prove()
    file = folder / TRAINING_FILE
    goes_on = resume and file.exists()
    state = load_training(file, training, run) if goes_on else initial_state(run, masters)
    writes = run.exchange.rank == 0
    spelling = spelled_bytes(tokenizer, run.config.vocab_size)
    rows = rank_rows(run)
    if writes:
        for partial in folder.glob(f".{TRAINING_FILE}.*"):
            partial.unlink()
        cut_log(folder / LOG_FILE, state.step)
    if writes and goes_on:
        # A kill between the two files of a checkpoint left the model of the one before.
        save_model(folder, model_of(run, training, tokenizer, state))
    shown = None
    while state.step < training.options.steps:
        started = time.monotonic()
        ids = corpus.batch(training.options.seed, state.step, rows, training.options.length)
        state, metrics = train_step(run, state, ids, rows.start)
        size = int(run.exchange.sum([spelling[ids[:, 1:]].sum(keepdims=True)])[0].item())
        seconds = time.monotonic() - started
        last = state.step == training.options.steps
        if validates := last or state.step % habits.validate_every == 0:
            shown = validate(run, state, corpus, spelling, habits.windows)
        if writes:
            bits = show(Fraction(metrics.loss, size << LOSS_BITS))
            speed = round(metrics.tokens / seconds)
            seen = Step(state.step, bits, metrics.rate, metrics.clipped, speed, shown if validates else None)
            with (folder / LOG_FILE).open("a", encoding="utf-8") as log:
                print(json.dumps(seen.to_dict()), file=log)
            if last or state.step % habits.save_every == 0:
                save_training(file, training, run, state)
                save_model(folder, model_of(run, training, tokenizer, state))
            progress(seen)
    shown = shown or validate(run, state, corpus, spelling, habits.windows)
    return {"checkpoint_sha256": training_hash(training, run, state), "step": state.step, "bits_per_byte": shown}


def rank_rows(run: Run) -> range:
    """Return the rows of each batch that this rank computes."""
    batch, rank, ranks = run.options.batch, run.exchange.rank, run.exchange.ranks
    return range(batch * rank // ranks, batch * (rank + 1) // ranks)


def cut_log(path: Path, step: int) -> None:
    """Drop the lines of steps after ``step``, which the run writes anew, and those that are damaged."""
    kept = []
    text = read_regular(path, LONGEST_TEXT) if path.exists() else b""
    for line in lines_of(text.decode("utf-8", "replace")):
        try:
            if parse_json(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    write_atomically(path, "".join(f"{line}\n" for line in kept).encode())


def spelled_bytes(tokenizer: Tokenizer, vocabulary: int) -> np.ndarray:
    """Return how many bytes of text each token stands for, int64."""
    return np.array([len(tokenizer.spell(token)) for token in range(vocabulary)], np.int64)


def validate(run: Run, state: State, corpus: Corpus, spelling: np.ndarray, windows: int) -> str:
    """Return the bits per byte of windows of the validation text, each read from its start."""
    ids = corpus.windows(run.options.length, windows)
    loss = 0
    with trusted_values():
        weights = project(run.kernels, state.masters, run.masters)
        network = Network(run.config, run.formats, run.kernels, weights)
        for start in range(0, len(ids), min(run.micro_batch, run.options.batch)):
            rows = ids[start : start + min(run.micro_batch, run.options.batch)]
            read, target = (run.load(np.ascontiguousarray(part)) for part in (rows[:, :-1], rows[:, 1:]))
            call = Call(True, run.rotation(read.shape[1]), run.fill(len(rows)), None)
            logits, _ = network(call, read, run.start(len(rows)))
            losses = run.kernels.cross_entropy_pow2(logits, target, f=run.formats.activation)
            loss += int(run.store(losses).sum(dtype=np.int64))
    return show(Fraction(loss, int(spelling[ids[:, 1:]].sum()) << LOSS_BITS))


def model_of(run: Run, training: Training, tokenizer: Tokenizer, state: State) -> TextModel:
    """Return the model at this state of its run."""
    with trusted_values():
        weights = project(run.kernels, state.masters, run.masters)
    parameters = {name: run.store(array) for name, array in weights.items()}
    return TextModel(Checkpoint(training.config, parameters, training.tokenizer_sha256), tokenizer)
